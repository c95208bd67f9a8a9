"""dynaq train: one agent per applicant, trained in blocks by Ray actors, into a run folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import pyarrow as pa
import ray
import typer

from cluster.block_actor import TrainingJob
from cluster.broker import JudgeBackend, start_broker
from cluster.cache import CacheRef, put_cache
from cluster.session import ray_session
from cluster.trainer import ActorSize, CohortProgress, CohortResult, CohortTrainer
from dynaq.agent.config import DynaQConfig
from dynaq.errors import InputError
from dynaq.pretraining.prior import Pretrained
from dynaq.runs.folder import RunFolder
from jobs.cli import run_verb
from jobs.reporting.judge_health import remarks_line
from jobs.reporting.page import write_report
from jobs.reporting.tensorboard import RunEvents
from jobs.reporting.training_summary import training_summary, training_table
from jobs.steps.feedback_answers import describe_feedback, learn_from_events
from jobs.steps.judge_backend import (
    NO_JUDGE,
    check_feedback,
    keep_gold,
    offline_ledger,
    quoted_backend,
    read_gold,
)
from jobs.steps.options import (
    ActorCpus,
    ActorGpus,
    Address,
    AgentConfig,
    Budget,
    Calibrate,
    Cohort,
    Gold,
    Layout,
    MaxCost,
    Out,
    PretrainedFolder,
    PriceIn,
    PriceOut,
    Samples,
    Store,
)
from jobs.steps.prepare import (
    Prepared,
    check_strategies,
    open_run,
    prepare,
    refuse_other_run,
    report_failures,
    run_config,
)
from jobs.steps.usable_judge import usable_judge
from jobs.terminal.console import LiveTable, console, print_json, say
from jobs.terminal.tables import gain_of, number
from reward_service.costs import Costs


def main(
    store: Store,
    out: Out,
    cohort: Cohort = "all",
    strategy: Annotated[Literal["cosine", "llm", "hybrid"], typer.Option(help="where rewards come from")] = "hybrid",
    judge: Annotated[
        str, typer.Option(help="vllm, vllm:CONFIG.yaml, ledger:PATH or a URL; none: learn from --feedback alone")
    ] = "vllm",
    judge_samples: Samples = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    max_cost: MaxCost = None,
    calibrate: Calibrate = None,
    budget: Budget = None,
    layout: Layout = None,
    config: AgentConfig = None,
    seed: Annotated[int | None, typer.Option(help="of all agents")] = None,
    qrels: Annotated[str | None, typer.Option(help="relevance file for the learning curves")] = None,
    pretrained: PretrainedFolder = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="do not act; learn from the pairs of --judge ledger:PATH")
    ] = False,
    feedback: Annotated[
        bool, typer.Option("--feedback", help="also learn from applicants' feedback; it outranks the judge")
    ] = False,
    feedback_until: Annotated[
        str | None,
        typer.Option(help="only events before this time, e.g. 2026-03-01T12:00:00Z; later ones test the run"),
    ] = None,
    gold: Gold = None,
    actors: Annotated[int | None, typer.Option(min=1, help="default: one per core")] = None,
    actor_cpus: ActorCpus = 1.0,
    actor_gpus: ActorGpus = 0.0,
    address: Address = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in --out")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON object at the end, the rest to stderr")
    ] = False,
) -> None:
    """Train one Dyna-Q agent per applicant."""
    settings = DynaQConfig.load(config, {"budget": budget, "seed": seed})
    needs_judge = check_strategies([strategy], settings)
    prepared = prepare(store, cohort, layout, qrels, settings.candidates)
    from_events = feedback or feedback_until is not None
    check_feedback(strategy, judge, from_events)
    folder = RunFolder.at(out)
    refuse_other_run(folder, resume=resume)
    terms = {"samples": judge_samples, "price_in": price_in, "price_out": price_out, "max_cost": max_cost}
    asks = needs_judge and judge != NO_JUDGE
    most = settings.budget * len(prepared.cohort)
    backend = quoted_backend(judge, folder, prepared, most, terms, feedback_until) if asks else None
    networks = _pretrained(pretrained)
    recorded = offline_ledger(judge, strategy) if offline or (needs_judge and judge == NO_JUDGE) else None
    labels, digest = read_gold(gold)
    shown = {"strategy": strategy, **run_config(prepared, settings, judge if backend else None, None, networks)}
    shown |= {"offline": offline, "gold": digest}
    answers = None
    if from_events:
        answers, shown["feedback"] = _learn_from_events(folder, prepared, settings, feedback_until, judge)
    make_job = partial(
        TrainingJob,
        strategy=strategy,
        config=settings,
        folder=folder,
        pretrained=networks,
        offline=recorded,
        feedback=answers,
        gold=labels,
    )
    size = ActorSize(actor_cpus, actor_gpus, actors, backend.cpus if backend else 0.0)
    with ray_session(address):
        shared = put_cache(prepared.cache)
        prepared = replace(prepared, cache=shared.attach())  # in place of this process's own copy
        if backend and recorded is None:
            backend = usable_judge(judge, backend, prepared, folder, calibrate)
        shown |= {
            "judge_fingerprint": backend.fingerprint if backend else None,
            "judge_model": backend.model if backend else None,
            "told_until": backend.told_until if backend else None,
        }
        open_run(folder, shown, resume=resume)
        keep_gold(folder, labels, prepared)
        result, paid = _train(prepared, shared, backend, make_job, size)
    _report(folder, prepared, qrels, result, paid, as_json)


def _pretrained(folder: str | None) -> Pretrained | None:
    """The networks to start from, after saying so when they fall back to the cosine prior."""
    networks = Pretrained.load(folder) if folder else None
    if networks is not None and networks.falls_back:
        say(f"{folder}: {gain_of(networks)}")
    return networks


def _learn_from_events(
    folder: RunFolder, prepared: Prepared, settings: DynaQConfig, until: str | None, judge: str
) -> tuple[pa.Table, dict[str, Any]]:
    """What applicants answered, and its summary. Raises InputError when there is nothing to learn from."""
    answers, summary = learn_from_events(folder, prepared, settings, until)
    if judge == NO_JUDGE and not answers.num_rows:
        raise InputError(
            f"nothing to learn from: none of the store's {summary['events']} events is about this cohort "
            "and catalogue; collect some with dynaq serve --recommend, or name a --judge"
        )
    describe_feedback(summary)
    return answers, summary


def _train(
    prepared: Prepared,
    shared: CacheRef,
    backend: JudgeBackend | None,
    make_job: Callable[..., TrainingJob],
    size: ActorSize,
) -> tuple[CohortResult, int]:
    """Train on the connected Ray and show the progress. Returns the result and how many pairs the judge answered.

    shared: the cache in the object store. make_job: makes the job of it as `cache` and a `broker`.
    """
    broker: Any = start_broker(prepared.store_uri, backend) if backend else None
    job = make_job(cache=shared, broker=broker)
    rounds = math.ceil(job.config.budget / job.config.slate_size)
    with LiveTable("judgements" if broker else "rounds") as table, RunEvents(job.folder) as events:

        def show(progress: CohortProgress) -> None:
            if broker:
                table.update(job.strategy, progress.judgements, progress.budget, cells(progress))
            else:
                table.update(job.strategy, progress.mean_round, rounds, cells(progress))
            events.progress(progress)

        trainer = CohortTrainer(job, prepared.cohort, size=size, qrels=prepared.qrels, on_progress=show)
        result = trainer.run()
    if broker:
        ray.get(broker.costs.remote())  # writes what an endpoint's calls cost into the run folder
    return result, ray.get(broker.stats.remote()).judged if broker else 0


def _report(
    folder: RunFolder, prepared: Prepared, qrels: str | None, result: CohortResult, paid: int, as_json: bool
) -> None:
    """Write the report and print the summary. Raises DynaqError when an applicant could not be trained."""
    failures = prepared.failures | result.failures
    if len(result.failures) == len(prepared.cohort):  # nothing to report on
        report_failures(failures)
    report = write_report(folder, prepared.store_uri, qrels)
    summary = training_summary(report, failures, paid, result.seconds, Costs.of(folder))
    if as_json:
        print_json(summary)
    else:
        console.print(training_table(summary))
        if remarks := remarks_line(report.health):
            say(remarks)
    report_failures(failures)


def cells(progress: CohortProgress) -> dict[str, str]:
    """The columns after a run's progress bar."""
    left = progress.seconds_left
    found = {"applicants": f"{progress.done}/{progress.applicants}", "mean reward": number(progress.reward)}
    found |= {} if math.isnan(progress.ndcg) else {"nDCG@10": number(progress.ndcg)}
    return found | {"per second": f"{progress.per_second:.1f}"} | ({"seconds left": f"{left:.0f}"} if left else {})


if __name__ == "__main__":
    run_verb("train")
