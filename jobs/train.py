"""dynaq train: one agent per applicant, trained in blocks by Ray actors, into a run folder."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.block_actor import TrainingJob
from cluster.broker import start_broker
from cluster.cache import put_cache
from cluster.runfolder import RunFolder
from cluster.session import ray_session
from cluster.trainer import ActorSize, CohortProgress, CohortTrainer
from dynaq.config import DynaQConfig
from dynaq.errors import InputError
from dynaq.pretrain import Pretrained
from jobs.cli import run_verb
from jobs.console import Bars, say
from jobs.events import describe_feedback, learn_from_events
from jobs.judges import NO_JUDGE, check_feedback, judge_backend, offline_ledger
from jobs.report import write_report
from jobs.training import check_strategies, open_run, prepare, report_failures, run_config


def main(
    store: Annotated[str, typer.Option(help="folder or mongodb:// URI")],
    out: Annotated[str, typer.Option(help="run folder: a path, s3:// or gs:// URI")],
    cohort: Annotated[str, typer.Option(help="all, a file with ids, or id,id")] = "all",
    strategy: Annotated[str, typer.Option(help="cosine, llm or hybrid")] = "hybrid",
    judge: Annotated[
        str, typer.Option(help="vllm, vllm:CONFIG.yaml, ledger:PATH or a URL; none: learn from --feedback alone")
    ] = "vllm",
    budget: Annotated[int | None, typer.Option(min=1, help="judgements per applicant")] = None,
    layout: Annotated[str | None, typer.Option(help="classic or extended; default: the store's")] = None,
    config: Annotated[str | None, typer.Option(help="YAML with the agents' settings")] = None,
    seed: Annotated[int | None, typer.Option(help="of all agents")] = None,
    qrels: Annotated[str | None, typer.Option(help="relevance file for the learning curves")] = None,
    pretrained: Annotated[str | None, typer.Option(help="folder that dynaq pretrain wrote")] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="no acting: learn from the pairs of --judge ledger:PATH")
    ] = False,
    feedback: Annotated[
        bool, typer.Option("--feedback", help="learn from what people did, too; it outranks the judge")
    ] = False,
    feedback_until: Annotated[
        str | None,
        typer.Option(help="only events before this time, e.g. 2026-03-01T12:00:00Z; later ones test the run"),
    ] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="default: as many as fit")] = None,
    actor_cpus: Annotated[float, typer.Option(min=0, help="CPUs per actor")] = 1.0,
    actor_gpus: Annotated[float, typer.Option(min=0, help="GPUs per actor, may be a fraction")] = 0.0,
    address: Annotated[
        str | None, typer.Option(help="running Ray cluster; default: RAY_ADDRESS, else a local one")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in --out")] = False,
) -> None:
    """Train one Dyna-Q agent per applicant."""
    settings = DynaQConfig.load(config, {"budget": budget, "seed": seed})
    needs_judge = check_strategies([strategy], settings)
    prepared = prepare(store, cohort, layout, qrels)
    check_feedback(strategy, judge, feedback or feedback_until is not None)
    backend = judge_backend(judge) if needs_judge and judge != NO_JUDGE else None
    folder = RunFolder.at(out)
    fingerprint = backend.fingerprint if backend else None
    networks = Pretrained.load(pretrained) if pretrained else None
    recorded = offline_ledger(judge, strategy) if offline or (needs_judge and judge == NO_JUDGE) else None
    shown = run_config(prepared, settings, judge if backend else None, fingerprint, networks)
    shown["offline"] = offline
    answers = None
    if feedback or feedback_until is not None:
        answers, shown["feedback"] = learn_from_events(folder, prepared, settings, feedback_until)
        if judge == NO_JUDGE and not answers.num_rows:
            raise InputError(
                f"nothing to learn from: none of the store's {shown['feedback']['events']} events is about this cohort "
                "and catalogue; collect some with dynaq serve --recommend, or name a --judge"
            )
        describe_feedback(shown["feedback"])
    open_run(folder, {"strategy": strategy, **shown}, resume=resume)
    with ray_session(address), Bars() as bars:
        broker = start_broker(prepared.store_uri, backend) if backend else None
        job = TrainingJob(
            put_cache(prepared.cache),
            strategy,
            settings,
            broker,
            folder,
            pretrained=networks,
            offline=recorded,
            feedback=answers,
        )
        trainer = CohortTrainer(
            job,
            prepared.cohort,
            size=ActorSize(actor_cpus, actor_gpus, actors, backend.cpus if backend else 0.0),
            qrels=prepared.qrels,
            on_progress=lambda progress: bars.update(
                strategy, progress.judgements, progress.budget, describe(progress)
            ),
        )
        result = trainer.run()
    write_report(folder, prepared.store_uri)
    say(f"{len(prepared.cohort) - len(result.failures)} applicants trained in {result.seconds:.0f} s: {folder.uri}")
    report_failures(prepared.failures | result.failures)


def describe(progress: CohortProgress) -> str:
    """The note behind a bar."""
    left = progress.seconds_left
    return (
        f"judgements, {progress.done}/{progress.applicants} applicants, {progress.per_second:.1f}/s, "
        f"mean reward {progress.reward:.3f}" + (f", {left:.0f} s left" if left is not None else "")
    )


if __name__ == "__main__":
    run_verb("train")
