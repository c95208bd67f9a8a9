"""dynaq serve: the judge or the recommendations over HTTP, until interrupted."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from cluster.session import ray_session
from dynaq.errors import InputError
from jobs.cli import run_verb
from jobs.steps.options import Address
from jobs.terminal.console import say, step


def main(
    reward: Annotated[bool, typer.Option("--reward", help="serve the judge")] = False,
    recommend: Annotated[
        bool, typer.Option("--recommend", help="serve recommendations, take feedback, show the page")
    ] = False,
    host: Annotated[str, typer.Option(help="address to listen on; any but loopback needs an API key")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    config: Annotated[str | None, typer.Option(help="YAML with the service's settings")] = None,
    store: Annotated[
        str | None, typer.Option(help="store of the records, the judge's ledger and the applicants' feedback")
    ] = None,
    run: Annotated[str | None, typer.Option(help="--recommend: run folder whose agents rank")] = None,
    serving: Annotated[
        str | None, typer.Option(help="--recommend: folder in which dynaq promote names the run")
    ] = None,
    address: Address = None,
) -> None:
    """Serve over HTTP."""
    if reward == recommend:
        raise InputError("name one to serve, --reward or --recommend; each has a command and a port of its own")
    if recommend:
        _recommend(host, port, config, store, run, serving, address)
        return
    if run or serving:
        raise InputError("--run and --serving belong to --recommend")
    _reward(host, port, config, store, address)


def _reward(host: str, port: int, config: str | None, store: str | None, address: str | None) -> None:
    from cluster.serve import refuse_open_address
    from reward_service.app import start_service, stop_judge
    from reward_service.config import JudgeConfig

    judge = JudgeConfig.load(config, store=store)
    refuse_open_address(judge.with_secrets().api_key, host, "the judge")
    with ray_session(address):
        with step("Starting the judge"):
            url = start_service(judge, host=host, port=port)
        stop = _stop_signal()
        say(f"judge {judge.fingerprint} answers at {url}, described at {url}/docs; Ctrl-C stops it")
        stop.wait()
        say("finishing what was accepted")
        stop_judge()


def _recommend(
    host: str,
    port: int,
    config: str | None,
    store: str | None,
    run: str | None,
    serving: str | None,
    address: str | None,
) -> None:
    from cluster.serve import refuse_open_address
    from dynaq.runs.q_table import ServedRun
    from dynaq.stores import open_store
    from recommend_service.app import start_recommender, stop_recommender
    from recommend_service.config import RecommendConfig

    # Absolute, since replicas have another working directory.
    settings = RecommendConfig.load(
        config, store=_absolute(store), run=_absolute(run), serving=_absolute(serving)
    ).with_secrets()
    refuse_open_address(settings.api_key, host, "the recommender")
    open_store(
        settings.store, read_only=True
    ).close()  # fails here rather than in a replica, whose errors the user would not see
    if settings.run is not None:
        ServedRun.open(settings.run)
    with ray_session(address):
        with step("Starting the recommender"):
            url = start_recommender(settings, host=host, port=port)
        stop = _stop_signal()
        say(f"the page is at {url}, the API described at {url}/docs; Ctrl-C stops it")
        stop.wait()
        say("writing what was accepted")
        stop_recommender()


def _absolute(place: str | None) -> str | None:
    """An absolute path; URIs are returned as they are."""
    return place if place is None or "://" in place else str(Path(place).expanduser().resolve())


def _stop_signal() -> threading.Event:
    """An event that SIGINT and SIGTERM set. Call it after Ray has started, which sets its own SIGTERM handler."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


if __name__ == "__main__":
    run_verb("serve")
