"""dynaq tune: strategies, seeds and settings compared as Ray Tune trials."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.session import ray_session
from cluster.trainer import ActorSize
from cluster.tuning.plan import Plan, make_searcher
from cluster.tuning.space import Space, read_space
from cluster.tuning.trackers import trackers
from cluster.tuning.trials import RLLIB_DQN
from dynaq.agent.config import DynaQConfig
from dynaq.errors import InputError
from dynaq.evaluation.run_quality import K
from dynaq.pretraining.prior import Pretrained
from dynaq.runs.folder import REPORT, RunFolder
from jobs.cli import run_verb
from jobs.reporting.judge_health import remarks_line
from jobs.reporting.page import Report, write_report
from jobs.steps.compare import compare
from jobs.steps.judge_backend import quoted_backend
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
from jobs.steps.prepare import check_strategies, prepare, refuse_other_run, report_failures
from jobs.steps.usable_judge import usable_judge
from jobs.terminal.comparison_table import Comparison, report_failed_trials, show_comparison
from jobs.terminal.console import say
from reward_service.costs import Costs, costs_line

DEFAULT_SAMPLES = 10  # when the space has something to draw

Scheduler = Annotated[
    Literal["asha", "none"] | None,
    typer.Option(
        help="asha ends settings that lag behind others of their strategy (default with --space); "
        "none gives every trial the full budget (default without)"
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(help="the report says how many judgements reach it; default: nDCG@10 of 0.9, or a reward of 0.5"),
]


def main(
    store: Store,
    out: Out,
    cohort: Cohort = "all",
    strategies: Annotated[
        str, typer.Option(help="cosine, llm, hybrid or rllib-dqn, separated by commas")
    ] = "cosine,llm,hybrid",
    judge: Annotated[str, typer.Option(help="vllm, vllm:CONFIG.yaml, ledger:PATH or a URL")] = "vllm",
    judge_samples: Samples = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    max_cost: MaxCost = None,
    calibrate: Calibrate = None,
    budget: Budget = None,
    seeds: Annotated[int, typer.Option(min=1, help="runs of every strategy, from --seed on")] = 1,
    qrels: Annotated[str | None, typer.Option(help="relevance file; default: the store's")] = None,
    space: Annotated[str | None, typer.Option(help="YAML: setting -> values to try or to draw from")] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="settings drawn from the space; default: 10 where it has any to draw")
    ] = None,
    search: Annotated[Literal["random", "hyperopt", "optuna"], typer.Option(help="what draws settings")] = "random",
    scheduler: Scheduler = None,
    threshold: Threshold = None,
    layout: Layout = None,
    config: AgentConfig = None,
    seed: Annotated[int | None, typer.Option(help="the first seed")] = None,
    pretrained: PretrainedFolder = None,
    gold: Gold = None,
    actors: Annotated[int | None, typer.Option(min=1, help="per trial; default: one per core in all")] = None,
    actor_cpus: ActorCpus = 1.0,
    actor_gpus: ActorGpus = 0.0,
    concurrent: Annotated[
        int | None, typer.Option(min=1, help="trials at once; default: as CPUs, GPUs and memory allow")
    ] = None,
    mlflow: Annotated[str | None, typer.Option(help="MLflow's tracking URI, such as http://127.0.0.1:5000")] = None,
    wandb: Annotated[str | None, typer.Option(help="project of Weights & Biases; the key is WANDB_API_KEY")] = None,
    address: Address = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue the comparison in --out; only for a folder that you trust")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Compare strategies and settings on one cohort."""
    settings = DynaQConfig.load(config, {"budget": budget, "seed": seed})
    names = _strategies(strategies, settings)
    plan = _plan(names, settings, seeds, read_space(space, settings), samples, search, scheduler)
    callbacks = trackers(mlflow, wandb, Path(out).name or "dynaq")
    prepared = prepare(store, cohort, layout, qrels, settings.candidates)
    folder = RunFolder.at(out)
    refuse_other_run(folder, resume=resume)
    terms = {"samples": judge_samples, "price_in": price_in, "price_out": price_out, "max_cost": max_cost}
    most = len(prepared.cohort) * _most_judgements(plan, names, settings.budget)
    backend = quoted_backend(judge, folder, prepared, most, terms)
    with ray_session(address):
        backend = usable_judge(judge, backend, prepared, folder, calibrate)
        result = compare(
            plan,
            prepared,
            settings,
            folder,
            judge,
            backend,
            pretrained=Pretrained.load(pretrained) if pretrained else None,
            gold=gold,
            size=ActorSize(actor_cpus, actor_gpus, actors, backend.cpus),
            concurrent=concurrent,
            callbacks=callbacks,
            resume=resume,
            threshold=threshold,
        )
    report = write_report(folder, prepared.store_uri, qrels)
    _show(folder, result, report, as_json)


def _show(folder: RunFolder, result: Comparison, report: Report, as_json: bool) -> None:
    """Print the comparison. Raises DynaqError when a trial or an applicant failed."""
    if as_json:
        trials = [{"trial": one.trial.name, "status": one.status, "error": one.error or None} for one in result.results]
        print(json.dumps({"run": folder.uri, "best": result.best, "trials": trials, **result.statistics}))
    else:
        show_comparison(result)
        if costs := Costs.of(folder):
            say(f"Judge's endpoint: {costs_line(costs)}.")
        if remarks := remarks_line(report.health):
            say(remarks)
        say(f"Best by judge reward: {result.best}. Report: {folder.uri}/{REPORT}")
    report_failed_trials(result.results)
    report_failures(result.failures)


def _most_judgements(plan: Plan, names: Sequence[str], budget: int) -> int:
    """Judgements per applicant at most: the budgets of the trials that ask, and the top K of every trial."""
    asking = plan.size * sum(name != "cosine" for name in names) // len(names)
    return budget * asking + K * plan.size


def _strategies(text: str, settings: DynaQConfig) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise InputError(f"--strategies {text!r} names none; use cosine,llm,hybrid,{RLLIB_DQN}")
    check_strategies([name for name in names if name != RLLIB_DQN], settings)
    return names


def _plan(
    names: list[str],
    settings: DynaQConfig,
    seeds: int,
    space: Space,
    samples: int | None,
    search: str,
    scheduler: str | None,
) -> Plan:
    """The plan that the options describe. Raises InputError when they contradict each other."""
    if space.fields and RLLIB_DQN in names:
        raise InputError(
            f"--space changes settings of our own agents, {RLLIB_DQN} has others; search first, then compare the "
            f"winner with {RLLIB_DQN} by --config"
        )
    if not space.fields:
        for option, wrong in (("samples", samples), ("search", search != "random"), ("scheduler", scheduler == "asha")):
            if wrong:
                raise InputError(f"--{option} is about settings to try; name them with --space FILE")
    if search != "random":
        make_searcher(search, settings.seed)  # fails now rather than after everything is loaded
    if samples is None:
        samples = DEFAULT_SAMPLES if space.drawn or search != "random" else 1
    if samples > 1 and not space.drawn and search == "random":
        raise InputError("--samples draws settings, and --space has only lists, which are tried in full; leave it out")
    chosen = scheduler or ("asha" if space.fields else "none")
    firsts = tuple(range(settings.seed, settings.seed + seeds))
    return Plan(tuple(names), firsts, space, samples, search, chosen)


if __name__ == "__main__":
    run_verb("tune")
