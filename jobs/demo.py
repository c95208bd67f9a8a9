"""dynaq demo: the whole pipeline with real parts: ESCO's ICT occupations, a real encoder, a real LLM in vLLM."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import ray
import typer

from cluster.broker import JudgeBackend, start_broker
from cluster.session import ray_session
from cluster.trainer import ActorSize
from cluster.tuning.plan import Plan
from dynaq.agent.config import DynaQConfig
from dynaq.agent.reward_strategy import STRATEGIES
from dynaq.ingest import ingest_market
from dynaq.markets import esco_market
from dynaq.runs.folder import CONFIG, REPORT, RunFolder
from dynaq.runs.reading import open_run_store, read_runs
from dynaq.stores import open_store
from jobs.cli import run_verb
from jobs.reporting.page import write_report
from jobs.reporting.story import story
from jobs.steps.compare import compare
from jobs.steps.judge_backend import judge_backend
from jobs.steps.options import LayoutName
from jobs.steps.prepare import Prepared, prepare, report_failures
from jobs.steps.titles import titled
from jobs.steps.visits import learn, shown_jobs, taught, taught_words, visit
from jobs.terminal.comparison_table import report_failed_trials, show_comparison
from jobs.terminal.console import Bars, console, say, saying_what_is_awaited, step
from jobs.terminal.tables import recommendation_table
from recommend_service.simulation import Behaviour

STORE = "data/esco"
OUT = "runs/demo"
APPLICANTS = 16  # of the comparison, which the judge's speed bounds
MARKET_APPLICANTS = 91  # everyone's occupation is another one
TAUGHT = "runs/demo-people"
BUDGET = 30
SERVICE = "http://127.0.0.1:8000"  # where `dynaq serve` listens unless it is told otherwise


def main(
    layout: Annotated[LayoutName, typer.Option(help="of the vectors")] = "extended",
    store: Annotated[str, typer.Option(help="folder or mongodb:// URI for the market and the ledger")] = STORE,
    serve: Annotated[bool, typer.Option("--serve", help="then serve the best run and open the page on it")] = False,
) -> None:
    """Run the demo into runs/demo, its market and ledger in the store."""
    began = time.monotonic()
    backend = judge_backend("vllm")
    folder = RunFolder.at(OUT)
    folder.remove("")
    config = DynaQConfig.load(None, {"budget": BUDGET, "block_size": APPLICANTS})
    with ray_session():
        prepared, others, broker, starting = _prepare_market(store, layout, backend)
        with step("Training: cosine, llm and hybrid as three Ray Tune trials"), _awaiting_the_judge(starting, backend):
            size = ActorSize(actors=1, reserved_cpus=backend.cpus)
            result = compare(Plan(STRATEGIES), prepared, config, folder, "vllm", backend, size=size, broker=broker)
        lesson = _taught_by_people(others)
    console.print()
    show_comparison(result)
    _show_one_applicant(prepared)
    write_report(folder, store, service=SERVICE if serve else None)
    say("\nWhat happened here:", "bold")
    for sentence in story(result.statistics, folder.read_yaml(CONFIG)):
        say(sentence)
    say(lesson)
    say(f"\nReport: {OUT}/{REPORT}   ({time.monotonic() - began:.0f} s in all)")
    report_failed_trials(result.results)
    report_failures(result.failures)
    if serve:
        console.file.flush()
        # Another process, since Ray has ended in this one and Serve would meet its remains.
        os.execv(sys.executable, [sys.executable, "-m", "jobs.serve", *_serving(store), "--open"])
    say(f"The page on it:       {_command()} serve {' '.join(_serving(store))} --open")
    say(f"Next, your own files: {_command()} ingest --store data/mine --jobs jobs.csv --candidates people.csv")
    say(f"                      {_command()} train --store data/mine --out runs/mine")


def _taught_by_people(people: Prepared) -> str:
    """Train on what the cohort does with its lists, without a judge. Returns what came of it, in words."""
    assert people.qrels is not None
    with step(f"What people do: {len(people.cohort)} others look through their lists, and agents learn from it alone"):
        shown = shown_jobs(people.cache, people.cohort)
        events = visit(people.store_uri, shown, people.qrels, Behaviour())
        folder = RunFolder.at(TAUGHT)
        folder.remove("")
        run = learn(people, folder)
        write_report(folder, people.store_uri)
        ranked = {one: [job for job, _ in jobs] for one, jobs in run.ranked.items()}
        return taught_words(taught(ranked, people.cache, people.qrels, shown), len(people.cohort), events)


def _serving(store: str) -> list[str]:
    return ["--recommend", "--store", store, "--run", OUT]


def _command() -> str:
    """What to type for `dynaq` here: its path unless the shell would find it."""
    here = Path(sys.executable).with_name("dynaq")
    found = shutil.which("dynaq")
    return "dynaq" if found and Path(found).resolve() == here.resolve() else os.path.relpath(here)


def _prepare_market(store_uri: str, layout: str, backend: JudgeBackend) -> tuple[Prepared, Prepared, Any, Any]:
    """Write and embed the market and load it; meanwhile the judge starts, unless the ledger has its answers.

    Returns it with the applicants of the comparison, and with the others; the broker; and a reference that is ready
    when the judge has started, or None.
    """
    with step("Data: ESCO's ICT occupations as a job market"), open_store(store_uri, create=True) as store:
        market = esco_market(applicants=MARKET_APPLICANTS)
        answers = store.judgements(backend.fingerprint).num_rows
        say(f"  {len(market.jobs)} postings, {len(market.applicants)} applicants, {answers} judgements in the ledger")
        broker = start_broker(store_uri, backend)
        starting: Any = None
        if not answers:
            say("  the judge starts in the background")
            starting = broker.warm_up.remote()
        with Bars() as bars:
            ingest_market(store, market, layout=layout, progress=bars.update)
    everyone = prepare(store_uri, "all", layout, None)
    compared = {one.id for one in market.applicants[:APPLICANTS]}
    first, others = (tuple(one for one in everyone.cohort if (one in compared) is chosen) for chosen in (True, False))
    return replace(everyone, cohort=first), replace(everyone, cohort=others), broker, starting


def _awaiting_the_judge(starting: Any, backend: JudgeBackend) -> AbstractContextManager[None]:
    if starting is None:
        return nullcontext()
    return saying_what_is_awaited(
        "the judge",
        f"{backend.model} starts in vLLM, which takes a minute or so; cosine trains without it",
        lambda seconds: bool(ray.wait([starting], timeout=seconds)[0]),
    )


def _show_one_applicant(prepared: Prepared) -> None:
    run = read_runs(OUT)[0]
    applicant_id = prepared.cohort[0]
    with open_run_store(run, prepared.store_uri) as store:
        applicant = next(iter(store.records("candidate", [applicant_id])))
        past = ", ".join(item.title for item in applicant.experience)
        say(f"\nTop 5 of {run.name} for {applicant_id} ({past}):")
        console.print(recommendation_table(titled(run.jobs_for(applicant_id, 5), store)))


if __name__ == "__main__":
    run_verb("demo")
