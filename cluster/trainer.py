"""Trains a cohort in blocks of applicants, on as many actors as the cluster's resources allow.

The result depends on the cohort's order and the config, never on the number of actors or nodes or on which of them
died: blocks follow the cohort's order, every agent has its own seed, and a lost block resumes from its last checkpoint
and finds its judgements in the ledger.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from dynaq.means import mean_known
from dynaq.qrels import Qrels
from dynaq.runs.folder import COHORT_BLOCKS, METRICS, RECOMMENDATIONS, RunFolder, read_blocks
from dynaq.runs.judge_tables import JUDGE_TABLES
from dynaq.runs.q_table import write_serving

TRIAL_CPUS = 0.01  # of a Tune trial's own process, which only waits
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
    """metrics: a row per applicant and round; recommendations: RECOMMENDATION_SCHEMA; failures: applicant -> reason."""

    metrics: pa.Table
    recommendations: pa.Table
    failures: dict[str, str]
    seconds: float


@dataclass
class _Work:
    """A block that is waiting or running, and how often its actor died since its last round."""

    block: Block
    deaths: int = 0
    progress: BlockProgress | None = field(default=None)


class CohortTrainer:
    """Runs one training job over a cohort.

    Args:
        job: cache, strategy, config, broker and run folder.
        cohort: applicant ids, all of them in the cache.
        size: resources and number of the actors.
        qrels: relevance for learning curves, or None.
        on_progress: called after every round of every block, and once at the start of a resumed run.
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
        self._blocks = {block.index: block for block in run_blocks(job.folder, cohort, job.config.block_size, qrels)}
        self._progress: dict[int, BlockProgress] = {}
        self._failures: dict[str, str] = {}
        self._spent_before = 0
        self._metrics = RunMetrics(job.folder.name, job.strategy)

    def run(self) -> CohortResult:
        """Train what is not trained yet, write metrics and recommendations, return them."""
        began = time.monotonic()
        pending = deque(_Work(block) for block in self._blocks.values() if not self._finished(block))
        self._spent_before = sum(progress.judgements for progress in self._progress.values())
        if self._progress:  # a resumed run with nothing left to train reports its progress only here
            self._on_progress(self._cohort_progress(0.0))
        if self._size.actors and pending:
            # Ask an autoscaler for nodes for all wanted actors; the loop below starts actors as nodes join.
            wanted = min(self._size.actors, len(pending))
            request_resources(bundles=[{"CPU": self._size.cpus, "GPU": self._size.gpus}] * wanted)
        idle: list[ActorHandle[Any]] = []
        running: dict[Any, tuple[ActorHandle[Any], _Work]] = {}
        try:
            while pending or running:
                limit = self._size.count(len(pending) + len(running))
                while pending and len(running) < limit:
                    actor = idle.pop() if idle else self._start_actor()
                    work = pending.popleft()
                    running[actor.train.remote(work.block)] = (actor, work)
                ready, _ = ray.wait(list(running), num_returns=1, timeout=5.0, fetch_local=False)
                for stream in ready:
                    actor, work = running[stream]
                    outcome = self._next(stream, work)
                    if outcome is _RUNNING:
                        progress = self._cohort_progress(time.monotonic() - began)
                        left = progress.applicants - progress.done
                        trust = progress.learning.get("trust", float("nan"))
                        self._metrics.progress(progress.done, left, progress.reward, progress.ndcg, trust)
                        self._metrics.queue(len(running), len(pending))
                        self._on_progress(progress)
                        continue
                    del running[stream]
                    if outcome is _LOST:
                        pending.appendleft(work)
                    else:
                        idle.append(actor)
        finally:
            self._metrics.queue(0, len(pending))
            request_resources(bundles=[])
            for actor in [*idle, *(actor for actor, _ in running.values())]:
                ray.kill(actor)
        return self._collect(time.monotonic() - began)

    def _start_actor(self) -> ActorHandle[Any]:
        # An explicit strategy also keeps the actors of a Tune trial out of the trial's own small placement group.
        actor: Any = ray.remote(BlockActor).options(
            num_cpus=self._size.cpus, num_gpus=self._size.gpus, scheduling_strategy="SPREAD"
        )
        handle: ActorHandle[Any] = actor.remote(replace(self._job, device="cuda" if self._size.gpus else "cpu"))
        return handle

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
            self._progress[block.index] = progress
            self._failures |= progress.failures
            return _RUNNING
        self._failures |= dict.fromkeys(block.applicant_ids, reason)
        return _FAILED

    def _finished(self, block: Block) -> bool:
        """Whether an earlier run finished the block. The progress that it recorded is taken over."""
        if not self._job.folder.exists(block.pointer):
            return False
        progress = BlockProgress(**self._job.folder.read_json(block.pointer))
        self._progress[block.index] = progress
        self._failures |= progress.failures
        return progress.done

    def _cohort_progress(self, seconds: float) -> CohortProgress:
        newest = list(self._progress.values())
        return CohortProgress(
            applicants=len(self._cohort),
            done=sum(len(self._blocks[progress.index].applicant_ids) for progress in newest if progress.done),
            round=max((progress.round for progress in newest), default=0),
            judgements=sum(progress.judgements for progress in newest),
            budget=self._job.config.budget * len(self._cohort),
            reward=mean_known([progress.reward for progress in newest]),
            ndcg=mean_known([progress.ndcg for progress in newest]),
            seconds=seconds,
            spent_before=self._spent_before,
            mean_round=sum(p.round * len(self._blocks[p.index].applicant_ids) for p in newest) / len(self._cohort),
            learning={
                name: mean_known([progress.learning.get(name) for progress in newest]) for name in LEARNING_METRICS
            },
        )

    def _collect(self, seconds: float) -> CohortResult:
        folder = self._job.folder
        metrics, recommendations, tables, blocks = [], [], [], []
        for progress in sorted(self._progress.values(), key=lambda progress: progress.index):
            if progress.done:
                name = progress.place(self._blocks[progress.index])
                blocks.append(name)
                metrics.append(folder.read_table(f"{name}/{METRICS}"))
                recommendations.append(folder.read_table(f"{name}/{RECOMMENDATIONS}"))
                if folder.exists(f"{name}/{JUDGE_TABLES}"):  # not in what an earlier version trained
                    tables.append(folder.read_table(f"{name}/{JUDGE_TABLES}"))
        result = CohortResult(
            pa.concat_tables(metrics, promote_options="permissive") if metrics else pa.table({}),
            pa.concat_tables(recommendations) if recommendations else RECOMMENDATION_SCHEMA.empty_table(),
            self._failures,
            seconds,
        )
        folder.write_table(METRICS, result.metrics)
        folder.write_table(RECOMMENDATIONS, result.recommendations)
        if any(table.num_rows for table in tables):
            folder.write_table(JUDGE_TABLES, pa.concat_tables(tables))
        cache = self._job.cache.attach()
        write_serving(folder, cache.layout.name, cache.job_ids, blocks)
        return result


_RUNNING, _ENDED, _LOST, _FAILED = object(), object(), object(), object()


def run_blocks(folder: RunFolder, cohort: Sequence[str], block_size: int, qrels: Qrels | None) -> list[Block]:
    """Consecutive blocks of `block_size` applicants, the last one shorter, or as the run recorded them at its start.

    A run from which applicants were forgotten (`dynaq forget`) has shorter blocks than the cohort alone would give.
    """
    cut = {i: list(cohort[i * block_size : (i + 1) * block_size]) for i in range(-(-len(cohort) // block_size))}
    recorded = {int(index): ids for index, ids in read_blocks(folder).items()}
    if [one for ids in recorded.values() for one in ids] == list(cohort):
        cut = recorded
    else:
        folder.write_json(COHORT_BLOCKS, cut)
    blocks = []
    for index, members in cut.items():
        applicant_ids = tuple(members)
        grades: Mapping[str, Mapping[str, float]] = (
            {applicant_id: qrels.grades(applicant_id) for applicant_id in applicant_ids} if qrels else {}
        )
        blocks.append(Block(index, applicant_ids, grades))
    return blocks


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
