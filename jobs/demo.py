"""dynaq demo: the whole pipeline with real parts: ESCO's ICT occupations, a real encoder, a real LLM in vLLM."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from cluster.broker import JudgeBackend, start_broker
from cluster.session import ray_session
from cluster.trainer import ActorSize
from cluster.tuning.plan import Plan
from dynaq.agent.config import DynaQConfig
from dynaq.agent.reward_strategy import STRATEGIES
from dynaq.ingest import ingest_market
from dynaq.markets import esco_market
from dynaq.runs.folder import REPORT, RunFolder
from dynaq.runs.reading import open_run_store, read_runs
from dynaq.stores import open_store
from jobs.cli import run_verb
from jobs.reporting.page import write_report
from jobs.steps.compare import compare
from jobs.steps.judge_backend import judge_backend
from jobs.steps.options import LayoutName
from jobs.steps.prepare import Prepared, prepare, report_failures
from jobs.steps.titles import titled
from jobs.terminal.comparison_table import report_failed_trials, show_comparison
from jobs.terminal.console import Bars, console, say, step
from jobs.terminal.tables import recommendation_table

STORE = "data/esco"
OUT = "runs/demo"
APPLICANTS = 16
BUDGET = 30


def main(
    layout: Annotated[LayoutName, typer.Option(help="of the vectors")] = "extended",
    store: Annotated[str, typer.Option(help="folder or mongodb:// URI for the market and the ledger")] = STORE,
) -> None:
    """Run the demo into runs/demo, its market and ledger in the store."""
    began = time.monotonic()
    backend = judge_backend("vllm")
    folder = RunFolder.at(OUT)
    folder.remove("")
    config = DynaQConfig.load(None, {"budget": BUDGET, "block_size": APPLICANTS})
    with ray_session():
        prepared, broker = _prepare_market(store, layout, backend)
        with step("Training: cosine, llm and hybrid as three Ray Tune trials"):
            size = ActorSize(actors=1, reserved_cpus=backend.cpus)
            result = compare(Plan(STRATEGIES), prepared, config, folder, "vllm", backend, size=size, broker=broker)
    console.print()
    show_comparison(result)
    _show_one_applicant(prepared)
    write_report(folder, store)
    say(f"\nReport: {OUT}/{REPORT}   ({time.monotonic() - began:.0f} s in all)")
    report_failed_trials(result.results)
    report_failures(result.failures)


def _prepare_market(store_uri: str, layout: str, backend: JudgeBackend) -> tuple[Prepared, Any]:
    """Write and embed the market and load it; meanwhile the judge starts, unless the ledger has its answers.

    Returns the broker too.
    """
    with step("Data: ESCO's ICT occupations as a job market"), open_store(store_uri, create=True) as store:
        market = esco_market(applicants=APPLICANTS)
        answers = store.judgements(backend.fingerprint).num_rows
        say(f"  {len(market.jobs)} postings, {len(market.applicants)} applicants, {answers} judgements in the ledger")
        broker = start_broker(store_uri, backend)
        if not answers:
            say("  the judge starts in the background")
            broker.warm_up.remote()
        with Bars() as bars:
            ingest_market(store, market, layout=layout, progress=bars.update)
    return prepare(store_uri, "all", layout, None), broker


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
