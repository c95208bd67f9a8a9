"""Comparing strategies and settings as Ray Tune trials that share one cache, one broker and one judge.

A trial is the driver of a CohortTrainer and takes almost no CPU itself; its actors share the cluster's CPUs with those
of other trials. The baseline `rllib-dqn` trains inside its trial's process.

A trial has its own run folder. Retried or restored, our own agents continue from it, whatever state Tune kept;
`rllib-dqn` starts over and finds its judgements in the ledger.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

# Ray Tune reads these at import.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_SYNCER", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the command; --resume continues it

import ray
from ray import tune
from ray.tune import Callback, FailureConfig, PlacementGroupFactory, RunConfig

from cluster.block_actor import TrainingJob
from cluster.trainer import TRIAL_CPUS, ActorSize, CohortProgress, CohortResult, CohortTrainer
from cluster.tuning.plan import PROGRESS, SCORE, Plan, param_space, tune_config
from dynaq.agent.config import DynaQConfig
from dynaq.agent.reward_strategy import make_strategy
from dynaq.errors import DynaqError
from dynaq.qrels import Qrels
from dynaq.runs.folder import BILLS, CONFIG, RunFolder
from dynaq.runs.trials import Trial, TrialResult

TUNE_FOLDER = "tune"
BILL_SECONDS = 2.0  # between two readings of the broker's bills
RETRIES = 2  # of a failed trial, and within a trial of applicants whose actors or judge failed
RLLIB_DQN = "rllib-dqn"
TRAINED = "trained"  # only in a trial's last report; Tune sets its `done` for stopped trials as well
PROCESS_BYTES = 1 << 29  # memory assumed for a trial's process, and for each of its actors


def run_trials(
    plan: Plan,
    job: TrainingJob,
    cohort: Sequence[str],
    run_config: dict[str, Any],
    *,
    size: ActorSize,
    qrels: Qrels | None,
    on_progress: Callable[[str, dict[str, Any]], None],
    concurrent: int | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
) -> list[TrialResult]:
    """Run each trial into `job.folder/<trial name>`; results in the order of strategies, seeds and settings.

    Args:
        plan: what differs between the trials.
        job: what they share; strategy, config and folder are replaced per trial. It must have a broker.
        cohort: applicant ids.
        run_config: written to every trial's config.yaml, with the trial's own strategy and config.
        size: resources and number of one trial's actors.
        qrels: relevance for the learning curves.
        on_progress: called with a trial's name and its report after each round.
        concurrent: trials at once; None: as many as the cluster's CPUs, GPUs and memory allow.
        callbacks: of Ray Tune, for trackers such as MLflow.
        resume: continue the comparison in `job.folder`, which must be trusted: Tune keeps its state as pickles.

    Raises DynaqError when no trial finished.
    """
    for name in ("ray.tune", "ray.rllib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    concurrent = concurrent or concurrency(plan, size)
    size = replace(size, trials=concurrent)

    def train_trial(params: dict[str, Any]) -> None:
        trial = plan.trial(params)
        mine = trial_job(job, trial)
        mine.folder.write_yaml(
            CONFIG,
            run_config | {"strategy": trial.strategy, "config": mine.config.model_dump(mode="json")},
        )
        tune.report(_train(mine, cohort, size, qrels))

    def resources(params: dict[str, Any]) -> PlacementGroupFactory:
        inside = plan.trial(params).strategy == RLLIB_DQN
        return PlacementGroupFactory([{"CPU": 1.0 if inside else TRIAL_CPUS}])

    bills = _Bills(job, resume)

    def heard(params: dict[str, Any], report: dict[str, Any]) -> None:
        name = plan.trial(params).name
        bills.note(name)
        on_progress(name, report)

    _Relay.listener = staticmethod(heard)
    trainable = tune.with_resources(train_trial, resources)
    path = job.folder.child(TUNE_FOLDER).uri
    if resume and tune.Tuner.can_restore(path):
        tuner = tune.Tuner.restore(path, trainable=trainable, resume_errored=True)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=param_space(plan),
            tune_config=tune_config(plan, job.config, concurrent),
            run_config=RunConfig(
                name=TUNE_FOLDER,
                storage_path=job.folder.uri,
                verbose=0,
                failure_config=FailureConfig(max_failures=RETRIES),
                callbacks=[_Relay(), *callbacks],
            ),
        )
    grid = tuner.fit()
    found = [_result(plan, grid[i], bills) for i in range(len(grid))]
    if not any(result.status == "done" for result in found):
        reason = next((result.error for result in found if result.error), "the scheduler stopped all of them")
        raise DynaqError(f"no trial finished: {reason}")
    order = {strategy: place for place, strategy in enumerate(plan.strategies)}
    return sorted(found, key=lambda result: (order[result.trial.strategy], result.trial.seed))


def concurrency(plan: Plan, size: ActorSize) -> int:
    """Number of trials that fit into the cluster at once, with the actors asked for or one each; at least one."""
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    actors = size.actors or 1
    room = (have.get("CPU", 1.0) - size.reserved_cpus) / (actors * size.cpus + TRIAL_CPUS)
    room = min(room, have.get("memory", math.inf) / ((1 + actors) * PROCESS_BYTES))
    if size.gpus:
        room = min(room, have.get("GPU", 0.0) / (actors * size.gpus))
    return max(1, min(int(room), plan.size))


def trial_job(job: TrainingJob, trial: Trial) -> TrainingJob:
    """The shared job with the trial's strategy, config and folder; no broker for a strategy that needs no judge.

    Raises InputError for contradictory settings.
    """
    config = DynaQConfig.load(None, job.config.model_dump() | trial.setting | {"seed": trial.seed})
    asks = trial.strategy == RLLIB_DQN or make_strategy(trial.strategy, config).needs_judge
    return replace(
        job,
        strategy=trial.strategy,
        config=config,
        folder=RunFolder.at(job.folder.child(trial.name).uri),
        broker=job.broker if asks else None,
    )


def _train(job: TrainingJob, cohort: Sequence[str], size: ActorSize, qrels: Qrels | None) -> dict[str, Any]:
    """Train in the trial's process, retrying failed applicants and keeping finished blocks. Returns the last report.

    Raises DynaqError when no applicant could be trained, so that Tune retries the trial.
    """
    reporter = _Reporter(job.config, qrels is not None)
    for attempt in range(1 + RETRIES):
        result = _train_once(job, cohort, size, qrels, reporter)
        if set(result.failures) >= set(cohort):
            raise DynaqError(next(iter(result.failures.values())))
        if not result.failures or attempt == RETRIES:
            break
    return {
        **reporter.last,
        PROGRESS: 100.0,
        TRAINED: True,
        "seconds": result.seconds,
        "failures": result.failures,
    }


def _train_once(
    job: TrainingJob, cohort: Sequence[str], size: ActorSize, qrels: Qrels | None, reporter: _Reporter
) -> CohortResult:
    if job.strategy != RLLIB_DQN:
        return CohortTrainer(job, cohort, size=size, qrels=qrels, on_progress=reporter).run()
    from cluster.rllib.trial import train_rllib_dqn  # RLlib takes seconds to import

    return train_rllib_dqn(job, cohort, qrels, reporter)


class _Reporter:
    """Reports to Tune whenever a round or an applicant is done, not on every block's message."""

    def __init__(self, config: DynaQConfig, relevance: bool) -> None:
        self._rounds = math.ceil(config.budget / config.slate_size)
        self._relevance = relevance
        self._seen = (-1, -1)
        self.last: dict[str, Any] = {}

    def __call__(self, progress: CohortProgress) -> None:
        self.last = {
            "applicants": progress.applicants,
            "applicants_done": progress.done,
            "round": progress.round,
            # 100 is for the last report: a scheduler stops a trial that reaches it, before the tables are written.
            PROGRESS: min(99.0, 100.0 * progress.mean_round / self._rounds),
            "judgements": progress.judgements,
            "budget_used": progress.judgements / progress.applicants,
            "per_second": progress.per_second,
            "mean_reward": progress.reward,
            "ndcg@10": progress.ndcg,
            SCORE: progress.ndcg if self._relevance else progress.reward,
        }
        if (progress.round, progress.done) != self._seen:
            self._seen = (progress.round, progress.done)
            tune.report(self.last)


class _Bills:
    """The number of judgements that each trial paid for, over all sessions of a comparison."""

    def __init__(self, job: TrainingJob, resume: bool) -> None:
        self._job, self._looked = job, 0.0
        found: Any = job.folder.read_json(BILLS) if resume and job.folder.exists(BILLS) else {}
        self._before: dict[str, int] = found
        self._trials: set[str] = set(found)

    def note(self, name: str) -> None:
        """Save the bills every few seconds, so that an interruption loses almost nothing."""
        self._trials.add(name)
        if time.monotonic() - self._looked > BILL_SECONDS:
            self.paid(name)

    def paid(self, name: str) -> int:
        """Number of judgements on a trial's bill. Saves all bills."""
        self._trials.add(name)
        self._looked = time.monotonic()
        now: Any = ray.get(self._job.broker.bills.remote()) if self._job.broker else {}
        totals: dict[str, int] = {
            one: self._before.get(one, 0) + now.get(RunFolder.at(self._job.folder.child(one).uri).uri, 0)
            for one in sorted(self._trials)
        }
        self._job.folder.write_json(BILLS, totals)
        return totals[name]


def _result(plan: Plan, outcome: Any, bills: _Bills) -> TrialResult:
    trial = plan.trial(outcome.config)
    last: dict[str, Any] = outcome.metrics or {}
    error = "" if outcome.error is None else str(outcome.error).strip().splitlines()[-1]
    return TrialResult(
        trial,
        "failed" if error else "done" if last.get(TRAINED) else "stopped",
        seconds=last.get("seconds", last.get("time_total_s", math.nan)),
        per_second=last.get("per_second", math.nan),
        judgements=last.get("judgements", 0),
        paid=bills.paid(trial.name),
        score=last.get(SCORE, math.nan),
        failures=last.get("failures", {}),
        error=error,
    )


class _Relay(Callback):
    """Passes each trial's reports to the caller, in the driver.

    Tune pickles its callbacks with the experiment and restores them from there. The caller's terminal cannot be
    pickled, so the listener is an attribute of the class.
    """

    listener: Callable[[dict[str, Any], dict[str, Any]], Any] = staticmethod(lambda params, report: None)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "applicants" in result:
            type(self).listener(trial.config, result)
