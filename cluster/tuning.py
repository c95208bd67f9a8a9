"""Comparing strategies as Ray Tune trials that share one cache, one broker and one judge.

A trial is the driver of a CohortTrainer and takes next to no CPU of its own; its actors compete for the cluster's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

# Read when ray.tune is imported.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_SYNCER", "1")

from ray import tune
from ray.tune import Callback, RunConfig, TuneConfig

from cluster.block_actor import TrainingJob
from cluster.runfolder import CONFIG, RunFolder
from cluster.trainer import TRIAL_CPUS, ActorSize, CohortProgress, CohortTrainer
from dynaq.errors import DynaqError
from dynaq.qrels import Qrels
from dynaq.rewards import make_strategy

TUNE_FOLDER = "tune"


@dataclass(frozen=True)
class Trial:
    """One strategy with changes to the config; its run folder is a subfolder of that name."""

    name: str
    strategy: str
    overrides: dict[str, Any]


@dataclass(frozen=True)
class TrialResult:
    """seconds: of training; failures: applicant -> why it could not be trained."""

    trial: Trial
    seconds: float
    failures: dict[str, str]


def run_trials(
    trials: Sequence[Trial],
    job: TrainingJob,
    cohort: Sequence[str],
    run_config: dict[str, Any],
    *,
    size: ActorSize,
    qrels: Qrels | None,
    on_progress: Callable[[str, dict[str, Any]], None],
) -> list[TrialResult]:
    """Run each trial into `job.folder/<trial name>` and return them in the order given.

    Args:
        trials: what differs between them.
        job: what they share; strategy and folder are replaced per trial.
        cohort: applicant ids.
        run_config: written to every trial's config.yaml, with the trial's own strategy and overrides.
        size: of the actors of one trial.
        qrels: relevance for the learning curves.
        on_progress: called with a trial's name and its report after each round.

    Raises DynaqError when a trial ends with an error.
    """
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    by_name = {trial.name: trial for trial in trials}

    def train_trial(params: dict[str, Any]) -> None:
        trial = by_name[params["trial"]]
        mine = trial_job(job, trial)
        mine.folder.write_yaml(
            CONFIG, run_config | {"strategy": trial.strategy, "config": mine.config.model_dump(mode="json")}
        )
        trainer = CohortTrainer(mine, cohort, size=size, qrels=qrels, on_progress=_reporter())
        result = trainer.run()
        tune.report({"trial": trial.name, "seconds": result.seconds, "failures": result.failures})

    results = tune.Tuner(
        tune.with_resources(train_trial, {"cpu": TRIAL_CPUS}),
        param_space={"trial": tune.grid_search(list(by_name))},
        tune_config=TuneConfig(max_concurrent_trials=len(trials), trial_dirname_creator=_directory),
        run_config=RunConfig(name=TUNE_FOLDER, storage_path=job.folder.uri, verbose=0, callbacks=[_Relay(on_progress)]),
    ).fit()
    found = {}
    for result in (results[i] for i in range(len(results))):
        if result.error is not None:
            raise DynaqError(f"a trial failed: {str(result.error).strip().splitlines()[-1]}") from result.error
        last = result.metrics or {}
        found[last["trial"]] = TrialResult(by_name[last["trial"]], last["seconds"], last["failures"])
    return [found[trial.name] for trial in trials]


def trial_job(job: TrainingJob, trial: Trial) -> TrainingJob:
    """The shared job with the trial's strategy, config and folder; no broker for a strategy that asks no judge."""
    config = job.config.model_copy(update=trial.overrides)
    asks = make_strategy(trial.strategy, config).needs_judge
    return replace(
        job,
        strategy=trial.strategy,
        config=config,
        folder=RunFolder.at(job.folder.child(trial.name).uri),
        broker=job.broker if asks else None,
    )


def _reporter() -> Callable[[CohortProgress], None]:
    """Report to Tune whenever a round or an applicant is done, not on every block's message."""
    seen = (-1, -1)

    def report(progress: CohortProgress) -> None:
        nonlocal seen
        if (progress.round, progress.done) != seen:
            seen = (progress.round, progress.done)
            tune.report(
                {
                    "applicants": progress.applicants,
                    "applicants_done": progress.done,
                    "round": progress.round,
                    "judgements": progress.judgements,
                    "budget_used": progress.judgements / progress.applicants,
                    "mean_reward": progress.reward,
                    "ndcg@10": progress.ndcg,
                }
            )

    return report


def _directory(trial: Any) -> str:
    return str(trial.config["trial"])


class _Relay(Callback):
    """Hands each trial's reports to the caller, in the driver."""

    def __init__(self, on_progress: Callable[[str, dict[str, Any]], None]) -> None:
        self._on_progress = on_progress

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its callbacks with the experiment; a terminal cannot be saved

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "applicants" in result:
            self._on_progress(trial.config["trial"], result)
