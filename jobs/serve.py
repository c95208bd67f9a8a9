"""dynaq serve: the judge, the recommendations or both over HTTP, until interrupted."""

from __future__ import annotations

import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import TimeoutError
from multiprocessing.pool import ThreadPool
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, Field

from cluster.ports import held_port
from cluster.session import cluster_address, ray_session
from dynaq.errors import InputError
from dynaq.settings import load_settings
from dynaq.stores import absolute
from jobs.cli import run_verb
from jobs.steps.options import Address
from jobs.terminal.console import say, step

JUDGE_ROUTE = "/judge"  # of the judge beside the recommender, whose page is at the root; alone each is at the root
STOP_SECONDS = 5.0  # to finish what was accepted; whoever sent SIGTERM usually sends SIGKILL after 10, and Ray ends too


@dataclass(frozen=True)
class Service:
    """One of the services, checked but not started.

    Args:
        name: in messages.
        start: returns the URL when the service answers.
        stop: returns when the service has finished what it accepted.
        answers: what to tell people about it; `{url}` is its URL.
    """

    name: str
    start: Callable[[], str]
    stop: Callable[[], None]
    answers: str


class BothServices(BaseModel):
    """The file of `--config` when both services are asked for: the settings of each under its name."""

    model_config = ConfigDict(extra="forbid")

    reward: dict[str, Any] = Field(default_factory=dict)
    recommend: dict[str, Any] = Field(default_factory=dict)


def main(
    reward: Annotated[bool, typer.Option("--reward", help="serve the judge; below /judge beside --recommend")] = False,
    recommend: Annotated[
        bool, typer.Option("--recommend", help="serve recommendations, take feedback, show the page")
    ] = False,
    host: Annotated[str, typer.Option(help="address to listen on; any but loopback needs an API key")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    config: Annotated[
        str | None, typer.Option(help="YAML with the service's settings; of both: under reward: and recommend:")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="store of the records, the judge's ledger and the applicants' feedback")
    ] = None,
    run: Annotated[str | None, typer.Option(help="--recommend: run folder whose agents rank")] = None,
    serving: Annotated[
        str | None, typer.Option(help="--recommend: folder in which dynaq promote names the run")
    ] = None,
    keep_days: Annotated[
        float | None, typer.Option(min=0.01, help="--recommend: delete feedback and exposures after so many days")
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="--recommend: lists take account of what the applicant has just seen")
    ] = False,
    open_page: Annotated[bool, typer.Option("--open", help="--recommend: open the page in a browser")] = False,
    address: Address = None,
) -> None:
    """Serve over HTTP."""
    if not (reward or recommend):
        raise InputError("name what to serve: --reward, --recommend or both")
    if not recommend and (run or serving or keep_days or memory or open_page):
        raise InputError("--run, --serving, --keep-days, --memory and --open belong to --recommend")
    # Absolute, since replicas have another working directory.
    given = {"store": store, "run": run, "serving": serving}
    flags: dict[str, Any] = {name: place and absolute(place) for name, place in given.items()}
    flags |= {"keep_days": keep_days, "memory": memory or None}
    local = cluster_address(address) is None
    with held_port(host, port) if local else nullcontext():
        if reward and recommend:
            services = _both(host, port, config, flags)
        elif recommend:
            services = [_recommend(host, port, config, flags)]
        else:
            services = [_reward(host, port, config, {"store": flags["store"]}, "/")]
        with ray_session(address):
            if not local:
                from cluster.serve import check_head_port

                check_head_port(host, port)
            _serve(services, open_page)


def _both(host: str, port: int, config: str | None, flags: dict[str, Any]) -> list[Service]:
    both = load_settings(BothServices, "service configuration", config)
    recommender = both.recommend | {name: value for name, value in flags.items() if value is not None}
    first = _recommend(host, port, None, recommender)
    judge = _beside_recommender(both.reward, recommender["store"])
    return [first, _reward(host, port, None, judge, JUDGE_ROUTE)]


def _beside_recommender(given: dict[str, Any], store: str) -> dict[str, Any]:
    """The judge's settings beside a recommender. A folder has one writer, so the judge keeps no ledger in it."""
    if "://" in store:
        return {"store": store} | given
    if "store" not in given:
        say("the judge keeps no ledger: the recommender is the folder's one writer; with mongodb:// both write")
    elif absolute(str(given["store"])) == absolute(store):
        raise InputError(f"both services cannot write folder {store}; use mongodb://, or take store out of reward:")
    return given


def _serve(services: list[Service], open_page: bool) -> None:
    """Start the services on the connected Ray, and stop them on SIGINT or SIGTERM.

    open_page: of the first one, in a browser.
    """
    started: list[Service] = []
    lines: list[str] = []
    urls: list[str] = []
    try:
        for service in services:
            with step(f"Starting {service.name}"):
                urls.append(service.start())
            lines.append(service.answers.format(url=urls[-1]))
            started.append(service)
        stop = _stop_signal()
        for line in lines:
            say(line)
        if open_page and _has_screen():
            webbrowser.open(urls[0])
        say("Ctrl-C stops it" if len(services) == 1 else "Ctrl-C stops both")
        stop.wait()
        say("finishing what was accepted")
    finally:
        _stop(started)


def _has_screen() -> bool:
    """Whether a browser window can open; without one, a text browser would take the terminal."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _stop(services: list[Service]) -> None:
    with ThreadPool(2) as pool:
        stopping = pool.map_async(lambda service: service.stop(), services)
        try:
            stopping.get(STOP_SECONDS)
        except TimeoutError:
            say(f"not all that was accepted is finished after {STOP_SECONDS:g} s; whoever waits for it gets an error")


def _reward(host: str, port: int, config: str | None, given: dict[str, Any], route: str) -> Service:
    from cluster.serve import refuse_open_address
    from reward_service.app import start_service, stop_judge
    from reward_service.config import JudgeConfig

    judge = JudgeConfig.load(config, **given)
    refuse_open_address(judge.with_secrets().api_key, host, "the judge")
    return Service(
        "the judge",
        lambda: start_service(judge, host=host, port=port, route=route),
        stop_judge,
        f"judge {judge.fingerprint} answers at {{url}}, described at {{url}}/docs",
    )


def _recommend(host: str, port: int, config: str | None, given: dict[str, Any]) -> Service:
    from cluster.serve import refuse_open_address
    from dynaq.runs.q_table import ServedRun
    from dynaq.stores import open_store
    from recommend_service.app import start_recommender, stop_recommender
    from recommend_service.config import RecommendConfig

    settings = RecommendConfig.load(config, **given).with_secrets()
    refuse_open_address(settings.api_key, host, "the recommender")
    if settings.one_replica is not None:
        say(settings.one_replica)
    open_store(settings.store, read_only=True).close()  # fails here, since the user would not see a replica's error
    if settings.run is not None:
        ServedRun.open(settings.run)
    return Service(
        "the recommender",
        lambda: start_recommender(settings, host=host, port=port),
        stop_recommender,
        "the page is at {url}, the API described at {url}/docs",
    )


def _stop_signal() -> threading.Event:
    """An event that SIGINT and SIGTERM set. Call it after Ray has started, which sets its own SIGTERM handler."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


if __name__ == "__main__":
    run_verb("serve")
