"""The broker: the one place through which every trainer asks for judgements, and the only writer of the ledger.

It is `dynaq.judging.ledger_first` in an actor, with what a cluster needs: a judge that starts on the first pair that
the ledger lacks (a run that finds everything in the ledger never starts an engine), patience while the database is
away, bills, and metrics. A pair is paid for once, whatever the number of actors, trials and restarts.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

import pyarrow as pa
import ray
from cachetools import FIFOCache
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.metrics import BrokerMetrics
from dynaq.errors import DynaqError, InputError
from dynaq.judging.judgement import AsyncJudge, Judgement, Slate
from dynaq.judging.ledger_first import APPLICANTS_KEPT, LedgerFirst, Pair
from dynaq.records import Candidate, Job
from dynaq.stores import Kind, Store, open_store

T = TypeVar("T")

MAX_REQUESTS = 64  # applicants whose pairs are with the judge at once; the engine batches, this bounds its queue
RETRY_SECONDS = 2.0
WRITER_PATIENCE = 20.0  # seconds to wait for another process that writes the store
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
        self._judge = LazyJudge(backend.start)
        self._ledger_first = LedgerFirst(
            PatientStore(store_uri, read_only=not backend.keep),
            self._judge,
            backend.fingerprint,
            keep=backend.keep,
            meter=BrokerMetrics(backend.fingerprint),
        )
        self._requested: FIFOCache[str, set[str]] = FIFOCache(APPLICANTS_KEPT)
        self._paid: Counter[str] = Counter()

    async def fetch(self, slates: Sequence[Slate], payer: str = "") -> list[list[Judgement]]:
        """One judgement per job of each slate, in order. New pairs are put on the bill of `payer`, who asked first.

        Raises JudgeError, in every caller that waits for the pair, when the judge cannot answer.
        """
        for slate in slates:
            self._requested.setdefault(slate.applicant_id, set()).update(slate.job_ids)

        def bill(pairs: int) -> None:
            self._paid[payer] += pairs

        return await self._ledger_first.fetch(slates, bill)

    async def warm_up(self) -> None:
        """Start the judge now, for callers who know that the ledger will not do."""
        await self._judge.start()

    async def requested(self, applicant_ids: Sequence[str]) -> set[Pair]:
        """Pairs that anyone has asked this broker for, whoever answered."""
        return {(one, job_id) for one in applicant_ids for job_id in self._requested.get(one, ())}

    async def stats(self) -> BrokerStats:
        """What has been answered so far."""
        counts = self._ledger_first
        return BrokerStats(counts.judged, counts.replayed, counts.abstained, self._judge.started)

    async def bills(self) -> dict[str, int]:
        """Payer -> pairs that the judge was asked for on their bill since the broker started."""
        return dict(self._paid)

    async def close(self) -> None:
        """Let another process write the store."""
        await self._ledger_first.close()


class LazyJudge:
    """A judge that is started when it is first asked, and is asked about MAX_REQUESTS applicants at once at most.

    start: makes the judge, called once; may take minutes.
    """

    def __init__(self, start: Callable[[], AsyncJudge]) -> None:
        self._start = start
        self._judge: AsyncJudge | None = None
        self._starting = asyncio.Lock()
        self._requests = asyncio.Semaphore(MAX_REQUESTS)

    @property
    def started(self) -> bool:
        """Whether anyone needed it."""
        return self._judge is not None

    async def start(self) -> AsyncJudge:
        """The judge, running."""
        async with self._starting:
            if self._judge is None:
                self._judge = await asyncio.to_thread(self._start)
            return self._judge

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """One judgement per job, in order. The judge waits out a busy or lost replica by itself. Raises JudgeError."""
        judge = await self.start()
        async with self._requests:
            return await judge.judge_async(applicant, jobs)


class PatientStore:
    """A store as the ledger needs it: opened on first use, and asked again while the database is away.

    A folder has one writer: the broker of a run that was just killed may still be going, and is waited for.
    """

    def __init__(self, uri: str, read_only: bool) -> None:
        self._uri, self._read_only = uri, read_only
        self._opened: Store | None = None

    def judgements(self, judge: str | None = None, applicants: Sequence[str] | None = None) -> pa.Table:
        """As `Store.judgements`."""
        return self._patiently(lambda store: store.judgements(judge, applicants))

    def add_judgements(self, judgements: Sequence[Judgement]) -> None:
        """As `Store.add_judgements`."""
        self._patiently(lambda store: store.add_judgements(judgements))

    @overload
    def records(self, kind: Literal["job"], ids: Sequence[str] | None = None) -> Iterator[Job]: ...
    @overload
    def records(self, kind: Literal["candidate"], ids: Sequence[str] | None = None) -> Iterator[Candidate]: ...
    def records(self, kind: Kind, ids: Sequence[str] | None = None) -> Iterator[Job] | Iterator[Candidate]:
        """As `Store.records`."""
        if kind == "job":
            return self._patiently(lambda store: iter(list(store.records("job", ids))))
        return self._patiently(lambda store: iter(list(store.records("candidate", ids))))

    def close(self) -> None:
        """Let another process write the store; it is opened again on the next use."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _patiently(self, call: Callable[[Store], T]) -> T:
        deadline = time.monotonic() + STORE_PATIENCE
        while True:
            try:
                return call(self._open())
            except DynaqError as error:
                if isinstance(error, InputError) or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)

    def _open(self) -> Store:
        deadline = time.monotonic() + WRITER_PATIENCE
        while self._opened is None:
            try:
                self._opened = open_store(self._uri, read_only=self._read_only)
            except InputError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)
        return self._opened


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
