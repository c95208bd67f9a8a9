"""Trains a cohort in blocks of applicants, on as many actors as the cluster's resources allow.

The result depends on the cohort's order and the config, never on the number of actors or nodes or on which of them
died: blocks follow the cohort's order, every agent has its own seed, and a lost block resumes from its last checkpoint
and finds its judgements in the ledger.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import ray
from ray.actor import ActorHandle
from ray.autoscaler.sdk import request_resources

from cluster.block_actor import (
    LEARNING_METRICS,
    RECOMMENDATION_SCHEMA,
    Block,
    BlockActor,
    BlockProgress,
    TrainingJob,
)
from cluster.metrics import RunMetrics
from cluster.session import real_cores
from dynaq.errors import DynaqError
from dynaq.qrels import Qrels
from dynaq.runs.folder import COHORT_BLOCKS, METRICS, RECOMMENDATIONS, RunFolder, read_blocks
from dynaq.runs.judge_tables import JUDGE_TABLES
from dynaq.runs.q_table import write_serving

TRIAL_CPUS = 0.01  # of a Tune trial's own process, which only waits
MANY_BLOCKS = 1000  # from here on blocks report and callers hear every few seconds, not every round
REPORT_SECONDS = 5.0
PARTITIONED_ABOVE = 5_000  # applicants, above which tables are in parts, so that reports need not hold all of them
PART_BLOCKS = 256  # whose rows are in memory at once when parts are written
DEATHS_ALLOWED = 5  # actor deaths in the same round of a block; more are an error rather than bad luck
ACTOR_DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OutOfMemoryError,
)


@dataclass(frozen=True)
class ActorSize:
    """Resources of one training actor, and how many actors there may be.

    Args:
        cpus, gpus: of one actor; GPUs may be a fraction.
        actors: upper limit; None: as many as there are cores, since more only take turns (docs/scaling.md).
        reserved_cpus: kept free for the judge; actors that took its CPUs would wait for it forever.
        trials: runs that share the cluster equally.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    actors: int | None = None
    reserved_cpus: float = 0.0
    trials: int = 1

    def count(self, blocks: int) -> int:
        """Number of actors to run now: as many as the cluster has room for, within the limits; at least one."""
        have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        room = float(blocks)
        if self.cpus:
            slots = have.get("CPU", 1.0) - self.reserved_cpus - TRIAL_CPUS * self.trials
            room = (slots if self.actors else min(slots, real_cores())) / self.trials / self.cpus
        if self.gpus:
            room = min(room, have.get("GPU", 0.0) / self.trials / self.gpus)
        return max(1, min(int(room), blocks, self.actors or blocks))


@dataclass(frozen=True)
class CohortProgress:
    """Progress of a run.

    Args:
        applicants, done: number of applicants in the cohort, and of those trained to the end.
        round: rounds completed by the block that is furthest ahead.
        judgements, budget: pairs spent and allowed, over the cohort.
        reward, ndcg: means over the newest round of every block; NaN before the first.
        seconds: since this process started the run or resumed it.
        spent_before: judgements spent before this process resumed the run.
        mean_round: rounds completed per applicant; unlike `judgements` it also advances when no judge is asked.
        learning: means over the blocks of `BlockProgress.learning`.
    """

    applicants: int
    done: int
    round: int
    judgements: int
    budget: int
    reward: float
    ndcg: float
    seconds: float
    spent_before: int = 0
    mean_round: float = 0.0
    learning: Mapping[str, float] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Judgements used per second since this process began; 0 at the start."""
        return (self.judgements - self.spent_before) / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds to the end; None until judgements are spent."""
        return (self.budget - self.judgements) / self.per_second if self.per_second > 0 else None


@dataclass
class CohortResult:
    """A run's folder, whose tables are read when they are asked for, and failures: applicant -> reason."""

    folder: RunFolder
    failures: dict[str, str]
    seconds: float

    @cached_property
    def metrics(self) -> pa.Table:
        """A row per applicant and round."""
        return self.folder.read_table(METRICS)

    @cached_property
    def recommendations(self) -> pa.Table:
        """With the columns of RECOMMENDATION_SCHEMA."""
        return self.folder.read_table(RECOMMENDATIONS)


@dataclass
class _Work:
    """A block that is running or runs again, and how often its actor died since its last round."""

    block: Block
    deaths: int = 0


class _Totals:
    """The cohort's progress as sums, so that a block's report costs the same in a cohort of any size."""

    def __init__(self) -> None:
        self.done = self.round = self.judgements = self.weighted_rounds = 0
        self._sums: dict[str, float] = {}
        self._known: Counter[str] = Counter()
        self._newest: dict[int, tuple[BlockProgress, int]] = {}  # of blocks that are not done

    def take(self, progress: BlockProgress, applicants: int) -> None:
        """Replace what a block of so many applicants reported before."""
        if before := self._newest.pop(progress.index, None):
            self._add(*before, sign=-1)
        self._add(progress, applicants, sign=1)
        self.round = max(self.round, progress.round)
        if not progress.done:
            self._newest[progress.index] = progress, applicants

    def mean(self, name: str) -> float:
        """Mean of `reward`, `ndcg` or one of LEARNING_METRICS over the blocks that know it; NaN if none does."""
        return self._sums[name] / self._known[name] if self._known[name] else float("nan")

    def _add(self, progress: BlockProgress, applicants: int, sign: int) -> None:
        self.done += sign * applicants * progress.done
        self.judgements += sign * progress.judgements
        self.weighted_rounds += sign * progress.round * applicants
        for name, value in {**progress.learning, "reward": progress.reward, "ndcg": progress.ndcg}.items():
            if value is not None and not math.isnan(value):
                self._sums[name] = self._sums.get(name, 0.0) + sign * value
                self._known[name] += sign


class CohortTrainer:
    """Runs one training job over a cohort.

    Args:
        job: cache, strategy, config, broker and run folder.
        cohort: applicant ids, all of them in the cache.
        size: resources and number of the actors.
        qrels: relevance for learning curves, or None.
        on_progress: called after every round of every block (every few seconds in cohorts of MANY_BLOCKS or more), and
            once at the start of a resumed run.
    """

    def __init__(
        self,
        job: TrainingJob,
        cohort: Sequence[str],
        *,
        size: ActorSize | None = None,
        qrels: Qrels | None = None,
        on_progress: Callable[[CohortProgress], None] = lambda progress: None,
    ) -> None:
        self._job = job
        self._cohort = tuple(cohort)
        self._size = size or ActorSize()
        self._on_progress = on_progress
        self._qrels = qrels
        self._places = block_places(job.folder, self._cohort, job.config.block_size)
        self._many = len(self._places) >= MANY_BLOCKS
        self._told = -math.inf
        self._totals = _Totals()
        self._trained: dict[int, str] = {}  # block -> its final checkpoint
        self._failures: dict[str, str] = {}
        self._spent_before = 0
        self._metrics = RunMetrics(job.folder.name, job.strategy)

    def run(self) -> CohortResult:
        """Train what is not trained yet, write metrics and recommendations, return them."""
        began = time.monotonic()
        if self._take_finished():  # a resumed run with nothing left to train reports its progress only here
            self._on_progress(self._cohort_progress(0.0))
        self._spent_before = self._totals.judgements
        waiting = (index for index in self._places if index not in self._trained)
        lost: deque[_Work] = deque()
        left = len(self._places) - len(self._trained)  # blocks that do not run now
        if self._size.actors and left:
            # Ask an autoscaler for nodes for all wanted actors; the loop below starts actors as nodes join.
            wanted = min(self._size.actors, left)
            request_resources(bundles=[{"CPU": self._size.cpus, "GPU": self._size.gpus}] * wanted)
        idle: list[ActorHandle[Any]] = []
        running: dict[Any, tuple[ActorHandle[Any], _Work]] = {}
        try:
            while left or running:
                limit = self._size.count(left + len(running))
                while left and len(running) < limit:
                    actor = idle.pop() if idle else self._start_actor()
                    work = lost.popleft() if lost else _Work(self._block(next(waiting)))
                    left -= 1
                    running[actor.train.remote(work.block)] = (actor, work)
                ready, _ = ray.wait(list(running), num_returns=1, timeout=5.0, fetch_local=False)
                for stream in ready:
                    actor, work = running[stream]
                    outcome = self._next(stream, work)
                    if outcome is _RUNNING:
                        self._tell(time.monotonic() - began, len(running), left)
                        continue
                    del running[stream]
                    if outcome is _LOST:
                        lost.append(work)
                        left += 1
                    else:
                        idle.append(actor)
            if self._many:
                self._tell(time.monotonic() - began, 0, 0)
        finally:
            self._metrics.queue(0, left)
            request_resources(bundles=[])
            for actor in [*idle, *(actor for actor, _ in running.values())]:
                ray.kill(actor)
        return self._collect(time.monotonic() - began)

    def _start_actor(self) -> ActorHandle[Any]:
        # An explicit strategy also keeps the actors of a Tune trial out of the trial's own small placement group.
        actor: Any = ray.remote(BlockActor).options(
            num_cpus=self._size.cpus, num_gpus=self._size.gpus, scheduling_strategy="SPREAD"
        )
        device, seconds = "cuda" if self._size.gpus else "cpu", REPORT_SECONDS if self._many else 0.0
        handle: ActorHandle[Any] = actor.remote(replace(self._job, device=device, report_seconds=seconds))
        return handle

    def _block(self, index: int) -> Block:
        applicant_ids = self._cohort[self._places[index]]
        grades: Mapping[str, Mapping[str, float]] = (
            {applicant_id: self._qrels.grades(applicant_id) for applicant_id in applicant_ids} if self._qrels else {}
        )
        return Block(index, applicant_ids, grades)

    def _tell(self, seconds: float, running: int, waiting: int) -> None:
        """Export metrics and call `on_progress`; in a large cohort at most every second, and at the end."""
        if self._many and seconds - self._told < 1.0 and running + waiting:
            return
        self._told = seconds
        progress = self._cohort_progress(seconds)
        left = progress.applicants - progress.done
        trust = progress.learning.get("trust", float("nan"))
        self._metrics.progress(progress.done, left, progress.reward, progress.ndcg, trust)
        self._metrics.queue(running, waiting)
        self._on_progress(progress)

    def _next(self, stream: Any, work: _Work) -> object:
        """Process a block's next message. Returns _RUNNING, _ENDED, _FAILED, or _LOST when its actor died."""
        block = work.block
        try:
            progress: BlockProgress = ray.get(next(stream))
        except StopIteration:
            return _ENDED
        except ACTOR_DEATHS as error:
            if getattr(error, "actor_init_failed", False):
                raise DynaqError(f"training actors do not start: {str(error).strip().splitlines()[-1]}") from error
            work.deaths += 1
            self._metrics.actor_died()
            if work.deaths <= DEATHS_ALLOWED:
                return _LOST
            reason = f"its actor died {work.deaths} times in the same round: {_first_line(error)}"
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            reason = _first_line(cause) if isinstance(cause, DynaqError) else f"{type(cause).__name__}: {cause}"
        else:
            work.deaths = 0
            self._take(progress, block)
            return _RUNNING
        self._failures |= dict.fromkeys(block.applicant_ids, reason)
        return _FAILED

    def _take(self, progress: BlockProgress, block: Block) -> None:
        if progress.index in self._trained:  # its actor died after the last report, and another one repeats it
            return
        self._totals.take(progress, len(block.applicant_ids))
        self._failures |= progress.failures
        if progress.done:
            self._trained[progress.index] = progress.place(block)

    def _take_finished(self) -> bool:
        """Take over the progress that an earlier run recorded. Returns whether there is any."""
        recorded = set(self._job.folder.names("agents"))
        found = False
        for index in self._places if recorded else ():
            block = self._block(index)
            if block.pointer.rpartition("/")[2] in recorded:
                self._take(BlockProgress(**self._job.folder.read_json(block.pointer)), block)
                found = True
        return found

    def _cohort_progress(self, seconds: float) -> CohortProgress:
        totals = self._totals
        return CohortProgress(
            applicants=len(self._cohort),
            done=totals.done,
            round=totals.round,
            judgements=totals.judgements,
            budget=self._job.config.budget * len(self._cohort),
            reward=totals.mean("reward"),
            ndcg=totals.mean("ndcg"),
            seconds=seconds,
            spent_before=self._spent_before,
            mean_round=totals.weighted_rounds / len(self._cohort),
            learning={name: totals.mean(name) for name in LEARNING_METRICS},
        )

    def _collect(self, seconds: float) -> CohortResult:
        folder = self._job.folder
        blocks = [place for _, place in sorted(self._trained.items())]
        if len(self._cohort) > PARTITIONED_ABOVE or folder.in_parts(METRICS):
            parts = [blocks[start : start + PART_BLOCKS] for start in range(0, len(blocks), PART_BLOCKS)]
            for name in (METRICS, RECOMMENDATIONS):
                folder.write_parts(name, (_table(folder, name, some) for some in parts))
        else:
            folder.write_table(METRICS, _table(folder, METRICS, blocks))
            folder.write_table(RECOMMENDATIONS, _table(folder, RECOMMENDATIONS, blocks))
        # Not in what an earlier version trained.
        tables = _table(folder, JUDGE_TABLES, [name for name in blocks if folder.exists(f"{name}/{JUDGE_TABLES}")])
        if tables.num_rows:
            folder.write_table(JUDGE_TABLES, tables)
        cache = self._job.cache.attach()
        write_serving(folder, cache.layout.name, cache.job_ids, blocks)
        return CohortResult(folder, self._failures, seconds)


_RUNNING, _ENDED, _LOST, _FAILED = object(), object(), object(), object()


def block_places(folder: RunFolder, cohort: Sequence[str], block_size: int) -> dict[int, slice]:
    """Number of each block -> which part of the cohort it is.

    They are consecutive blocks of `block_size` applicants, the last one shorter, or as the run recorded them at its
    start: a run from which applicants were forgotten (`dynaq forget`) has shorter blocks than its cohort would give.
    """
    recorded: Mapping[str, Sequence[str]] = read_blocks(folder)
    if [one for ids in recorded.values() for one in ids] != list(cohort):
        starts = range(0, len(cohort), block_size)
        recorded = {str(index): cohort[start : start + block_size] for index, start in enumerate(starts)}
        folder.write_json(COHORT_BLOCKS, recorded)
    places, start = {}, 0
    for index, ids in recorded.items():
        places[int(index)] = slice(start, start + len(ids))
        start += len(ids)
    return places


def _table(folder: RunFolder, name: str, blocks: Sequence[str]) -> pa.Table:
    """A table of some blocks' folders, one after the other."""
    if not blocks:
        return RECOMMENDATION_SCHEMA.empty_table() if name == RECOMMENDATIONS else pa.table({})
    return pa.concat_tables([folder.read_table(f"{block}/{name}") for block in blocks], promote_options="permissive")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
