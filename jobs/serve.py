"""dynaq serve: the reward service over HTTP, until interrupted."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from cluster.http_auth import refuse_open_address
from cluster.session import ray_session
from dynaq.errors import InputError
from jobs.cli import run_verb
from jobs.console import say, step
from reward_service.config import JudgeConfig


def main(
    reward: Annotated[bool, typer.Option("--reward", help="serve the judge")] = False,
    host: Annotated[str, typer.Option(help="address to listen on; any but loopback needs an API key")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    config: Annotated[str | None, typer.Option(help="YAML with the judge's settings")] = None,
    store: Annotated[
        str | None, typer.Option(help="store whose records can be named by id; its ledger is kept")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="running Ray cluster; default: RAY_ADDRESS, else a local one")
    ] = None,
) -> None:
    """Serve over HTTP."""
    if not reward:
        raise InputError("nothing to serve; add --reward")
    from reward_service.app import start_service, stop_judge

    judge = JudgeConfig.load(config, store=store)
    refuse_open_address(judge.with_secrets().api_key, host, "the judge")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ray_session(address):
        with step("Starting the judge"):
            url = start_service(judge, host=host, port=port)
        say(f"judge {judge.fingerprint} answers at {url}, described at {url}/docs; Ctrl-C stops it")
        stop.wait()
        say("finishing what was accepted")
        stop_judge()


if __name__ == "__main__":
    run_verb("serve")
