"""The broker: the one place through which every trainer asks for judgements, and the only writer of the ledger.

It answers from the ledger, lets callers that want the same pair at the same time share one request, asks the judge
for the rest and returns an answer only after the ledger has it. A pair is therefore paid for once, whatever the number
of actors, trials and restarts. The judge is started on the first pair that the ledger lacks: a run that finds
everything in the ledger never starts an engine.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.metrics import BrokerMetrics
from dynaq.errors import DynaqError, InputError
from dynaq.judging.judgement import AsyncJudge, Judgement, Slate, check_answers
from dynaq.judging.ledger_file import judgements
from dynaq.records import Candidate, Job
from dynaq.stores import Store, open_store

T = TypeVar("T")
Pair = tuple[str, str]

MAX_REQUESTS = 64  # applicants whose pairs are with the judge at once; the engine batches, this bounds its queue
RETRY_SECONDS = 2.0
WRITER_PATIENCE = 20.0  # seconds to wait for another process that writes the store
APPLICANTS_KEPT = 20_000  # whose judgements stay in memory; far more than are in training at once
STORE_PATIENCE = 120.0  # seconds for which a database may be away before a run gives up


@dataclass(frozen=True)
class JudgeBackend:
    """How a broker gets its judge.

    Args:
        fingerprint: the judge's name in the ledger, known without starting it.
        start: makes the judge; called at most once, in the broker's process.
        keep: the answers belong in the store's ledger (not so for a judge that only replays another ledger).
        cpus: CPUs of the cluster that it takes when it starts; training actors leave them free.
    """

    fingerprint: str
    start: Callable[[], AsyncJudge]
    keep: bool = True
    cpus: float = 0.0


@dataclass(frozen=True)
class BrokerStats:
    """Pairs answered since the broker started: by the judge, from the ledger; abstained are among the judged."""

    judged: int = 0
    replayed: int = 0
    abstained: int = 0
    judge_started: bool = False


class JudgeBroker:
    """The actor's class; `start_broker` makes the actor. Its methods interleave on one event loop."""

    def __init__(self, store_uri: str, backend: JudgeBackend) -> None:
        self._store_uri = store_uri
        self._opened: Store | None = None
        self._store_thread = ThreadPoolExecutor(1, "store")  # one thread: stores need not be thread-safe
        self._backend = backend
        self._judge: AsyncJudge | None = None
        self._starting = asyncio.Lock()
        self._requests = asyncio.Semaphore(MAX_REQUESTS)
        self._known: dict[str, dict[str, Judgement]] = {}
        self._requested: defaultdict[str, set[str]] = defaultdict(set)
        self._in_flight: dict[Pair, asyncio.Future[Judgement]] = {}
        self._unwritten: list[Judgement] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._jobs: dict[str, Job] = {}
        self._candidates: dict[str, Candidate] = {}
        self._judged = self._replayed = self._abstained = 0
        self._paid: Counter[str] = Counter()
        self._metrics = BrokerMetrics(backend.fingerprint)

    async def fetch(self, slates: Sequence[Slate], payer: str = "") -> list[list[Judgement]]:
        """One judgement per job of each slate, in order. New pairs are put on the bill of `payer`, who asked first.

        Raises JudgeError, in every caller that waits for the pair, when the judge cannot answer.
        """
        await self._load_ledger(slate.applicant_id for slate in slates)
        plan = [self._answers(slate, payer) for slate in slates]
        waiting = [answer for answers in plan for answer in answers if isinstance(answer, asyncio.Future)]
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        return [[a.result() if isinstance(a, asyncio.Future) else a for a in answers] for answers in plan]

    async def warm_up(self) -> None:
        """Start the judge now, for callers who know that the ledger will not do."""
        await self._started_judge()

    async def requested(self, applicant_ids: Sequence[str]) -> set[Pair]:
        """Pairs that anyone has asked this broker for, whoever answered."""
        return {(applicant_id, job_id) for applicant_id in applicant_ids for job_id in self._requested[applicant_id]}

    async def stats(self) -> BrokerStats:
        """What was answered since the broker started, and from where."""
        return BrokerStats(self._judged, self._replayed, self._abstained, self._judge is not None)

    async def bills(self) -> dict[str, int]:
        """Payer -> pairs that the judge was asked for on their bill since the broker started."""
        return dict(self._paid)

    def _answers(self, slate: Slate, payer: str) -> list[Judgement | asyncio.Future[Judgement]]:
        """For each job what the ledger has, else the request that is under way, else a new one."""
        known = self._known[slate.applicant_id]
        pairs = [(slate.applicant_id, job_id) for job_id in dict.fromkeys(slate.job_ids)]
        self._requested[slate.applicant_id].update(slate.job_ids)
        replayed = sum(job_id in known for _, job_id in pairs)
        self._replayed += replayed
        self._metrics.from_ledger(replayed)
        missing = [pair for pair in pairs if pair[1] not in known and pair not in self._in_flight]
        if missing:
            self._paid[payer] += len(missing)
            loop = asyncio.get_running_loop()
            self._in_flight |= {pair: loop.create_future() for pair in missing}
            self._metrics.waiting(len(self._in_flight))
            self._tasks.add(task := asyncio.create_task(self._ask(slate.applicant_id, [pair[1] for pair in missing])))
            task.add_done_callback(self._tasks.discard)
        return [known.get(job_id) or self._in_flight[slate.applicant_id, job_id] for job_id in slate.job_ids]

    async def _ask(self, applicant_id: str, job_ids: list[str]) -> None:
        """Have one applicant's pairs judged and written down, then hand the answers to everyone who waits for them."""
        futures = [self._in_flight[applicant_id, job_id] for job_id in job_ids]
        began = time.monotonic()
        try:
            applicant, jobs = await self._on_store(lambda: self._texts(applicant_id, job_ids))
            answers = await self._judge_pairs(applicant, jobs)
            kept = [answer for answer in answers if not answer.abstained]
            self._judged += len(answers)
            self._abstained += len(answers) - len(kept)
            if self._backend.keep:
                self._unwritten.extend(kept)
                await self._on_store(self._write)
            self._metrics.from_judge(len(answers), len(answers) - len(kept), time.monotonic() - began)
            self._known.setdefault(applicant_id, {}).update({answer.job_id: answer for answer in kept})
            for future, answer in zip(futures, answers, strict=True):
                future.set_result(answer)
        except Exception as error:
            for future in futures:
                future.set_exception(error)
                future.exception()  # a caller that died no longer collects it
        finally:
            for job_id in job_ids:
                del self._in_flight[applicant_id, job_id]
            self._metrics.waiting(len(self._in_flight))

    async def _judge_pairs(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """Ask the judge, which waits out a busy or lost replica by itself. Raises JudgeError."""
        judge = await self._started_judge()
        async with self._requests:
            answers = await judge.judge_async(applicant, jobs)
        check_answers(answers, applicant.id, [job.id for job in jobs])
        return answers

    async def _started_judge(self) -> AsyncJudge:
        async with self._starting:
            if self._judge is None:
                self._judge = await asyncio.to_thread(self._backend.start)
            return self._judge

    async def _load_ledger(self, applicant_ids: Iterable[str]) -> None:
        new = [applicant_id for applicant_id in dict.fromkeys(applicant_ids) if applicant_id not in self._known]
        for oldest in list(self._known)[: max(0, len(self._known) + len(new) - APPLICANTS_KEPT)]:
            del self._known[oldest]
            self._requested.pop(oldest, None)
        if not new:
            return
        rows = await self._on_store(lambda: self._read_ledger(new)) if self._backend.keep else []
        for applicant_id in new:
            self._known.setdefault(applicant_id, {})
        for judgement in rows:
            self._known[judgement.applicant_id].setdefault(judgement.job_id, judgement)

    async def close(self) -> None:
        """Let another process write the store."""
        if self._opened is not None:
            await self._on_store(self._opened.close)

    # What follows runs in the store's thread.

    @property
    def _store(self) -> Store:
        """Opened on first use. A folder has one writer: the broker of a run that was just killed may still be going."""
        deadline = time.monotonic() + WRITER_PATIENCE
        while self._opened is None:
            try:
                self._opened = open_store(self._store_uri, read_only=not self._backend.keep)
            except InputError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)
        return self._opened

    async def _on_store(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._store_thread, call)

    def _read_ledger(self, applicant_ids: list[str]) -> list[Judgement]:
        table = self._patiently(lambda: self._store.judgements(self._backend.fingerprint, applicant_ids))
        return list(judgements(table))

    def _write(self) -> None:
        """Write what has gathered, in one go. Nothing leaves the list before the store has it."""
        batch = list(self._unwritten)
        if batch:
            self._patiently(lambda: self._store.add_judgements(batch))
            del self._unwritten[: len(batch)]

    def _texts(self, applicant_id: str, job_ids: Sequence[str]) -> tuple[Candidate, list[Job]]:
        if applicant_id not in self._candidates:
            found = self._patiently(lambda: list(self._store.records("candidate", [applicant_id])))
            if not found:
                raise DynaqError(f"applicant {applicant_id!r} has no text in the store, so no judge can play them")
            self._candidates[applicant_id] = found[0]
        missing = [job_id for job_id in job_ids if job_id not in self._jobs]
        if missing:
            self._jobs |= {job.id: job for job in self._patiently(lambda: list(self._store.records("job", missing)))}
        lost = [job_id for job_id in job_ids if job_id not in self._jobs]
        if lost:
            raise DynaqError(f"job {lost[0]!r} has no text in the store, so no judge can see it; ingest it again")
        return self._candidates[applicant_id], [self._jobs[job_id] for job_id in job_ids]

    def _patiently(self, call: Callable[[], T]) -> T:
        """Repeat a store call while the database is away."""
        deadline = time.monotonic() + STORE_PATIENCE
        while True:
            try:
                return call()
            except DynaqError as error:
                if isinstance(error, InputError) or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)


class BrokerClient:
    """A JudgementSource over the broker's actor; payer: on whose bill new pairs are put."""

    def __init__(self, broker: ActorHandle[Any], payer: str = "") -> None:
        self._broker, self._payer = broker, payer

    def fetch(self, slates: Sequence[Slate]) -> list[list[Judgement]]:
        """One judgement per job of each slate, in order. Raises the broker's DynaqError as it was."""
        try:
            return ray.get(self._broker.fetch.remote(list(slates), self._payer))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, DynaqError):
                raise error.cause from None
            raise


def start_broker(store_uri: str, backend: JudgeBackend) -> ActorHandle[Any]:
    """Start the broker on this node, beside the store of a laptop. It comes back from the ledger when it dies."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor: Any = ray.remote(JudgeBroker).options(
        num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=1000, scheduling_strategy=here
    )
    broker: ActorHandle[Any] = actor.remote(store_uri, backend)
    return broker
