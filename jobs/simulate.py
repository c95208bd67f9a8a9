"""dynaq simulate: a judge plays the applicants against a running API, to try and to load-test the feedback loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.table import Table

from cluster.broker import BrokerClient, start_broker
from cluster.session import ray_session
from dynaq.errors import InputError
from dynaq.judging.judgement import JudgementSource
from dynaq.judging.ledger_file import LEDGER, ReplayJudge
from jobs.cli import run_verb
from jobs.steps.judge_backend import judge_backend
from jobs.terminal.console import Bars, console, print_json
from recommend_service.client import Api
from recommend_service.config import API_KEY
from recommend_service.simulation import Behaviour, Visits


def main(
    url: Annotated[str, typer.Option(help="of a running dynaq serve --recommend")],
    judge: Annotated[str, typer.Option(help="who plays: ledger:PATH, vllm, vllm:CONFIG.yaml or a URL")],
    store: Annotated[
        str | None, typer.Option(help="the service's store; a judge reads profiles and jobs there, a ledger needs none")
    ] = None,
    applicants: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="number of applicants at most, in order of id")
    ] = 100,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="visits of each applicant")] = 1,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="jobs looked at in one visit")] = 10,
    declines: Annotated[
        float, typer.Option(min=0, max=1, help="share of the jobs they do not want that applicants decline")
    ] = 0.3,
    rate: Annotated[float, typer.Option(min=0.01, max=10_000, help="visits per second at most")] = 10.0,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="visits at once at most")] = 8,
    seed: Annotated[int, typer.Option(help="decides every answer")] = 0,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster of the judge; default: RAY_ADDRESS, else a local one")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Let a judge play the applicants: look at a list, draw an answer per job, send what an applicant would send."""
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url!r} is not the address of a service; write e.g. http://127.0.0.1:8000")
    with _source(judge, store, address) as source, Bars() as bars:
        visits = Visits(
            Api(url, os.environ.get(API_KEY)),
            source,
            Behaviour(seed, k, declines),
            on_progress=lambda done, total: bars.update("visits", done, total),
        )
        summary = asyncio.run(visits.run(applicants, rounds, rate, concurrency))
    if as_json:
        print_json(summary)
    else:
        _show(summary)
    visits.check()


@contextmanager
def _source(judge: str, store: str | None, address: str | None) -> Iterator[JudgementSource]:
    """The source of the answers. A ledger needs no Ray and no store."""
    if judge.startswith(LEDGER):
        yield ReplayJudge(judge.removeprefix(LEDGER))
        return
    if store is None:
        raise InputError(f"judge {judge!r} reads profiles and jobs; name the service's --store")
    backend = judge_backend(judge)
    with ray_session(address):
        yield BrokerClient(start_broker(store, backend), payer="simulate")


def _show(summary: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    events = ", ".join(f"{count} {name}" for name, count in summary["events"].items() if count)
    table.add_row("visits", f"{summary['visits']} of {summary['applicants']} applicants in {summary['seconds']:.1f} s")
    table.add_row("events", events or "none")
    for run_id, one in summary["policies"].items():
        table.add_row(run_id, f"{one['lists']} lists, mean reward per list {one['mean_reward']:.3f}")
    for name, one in summary["latency_ms"].items():
        table.add_row(
            f"{name}, ms", f"p50 {one['p50']:.1f}, p95 {one['p95']:.1f}, p99 {one['p99']:.1f}, most {one['max']:.1f}"
        )
    if summary["waited"]:
        table.add_row("told to wait", f"{summary['waited']} times")
    for reason, count in summary["failures"].items():
        table.add_row("failed", f"{count} times: {reason}")
    console.print(table)


if __name__ == "__main__":
    run_verb("simulate")
