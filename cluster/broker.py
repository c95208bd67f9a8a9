"""The broker: the one place through which every trainer asks for judgements, and the only writer of the ledger.

An actor around `dynaq.judging.ledger_first` that adds what a cluster needs: the judge starts only when the ledger lacks
a pair, an unreachable database is retried, new pairs are billed to whoever asked first, and metrics are exported. A
pair is paid for once, however many actors, trials and restarts there are.

On MongoDB several brokers share the work, each with the applicants that a hash of their id gives it. The first one
starts the others and answers for all where totals are asked. Which broker has an applicant only spreads the load: that
a pair is paid for once is the ledger's doing (`dynaq.stores.mongo_claims`), also among the brokers of several runs.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, TypeVar, overload, runtime_checkable

import pyarrow as pa
import ray
from cachetools import FIFOCache
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.metrics import BrokerMetrics
from cluster.session import real_cores
from dynaq.errors import DynaqError, InputError
from dynaq.judging.history import History
from dynaq.judging.judgement import AsyncJudge, Judgement, Slate
from dynaq.judging.ledger_first import APPLICANTS_KEPT, LedgerFirst, Pair
from dynaq.records import Candidate, Job
from dynaq.stores import Claimed, Kind, Store, is_mongo, open_store

T = TypeVar("T")

MAX_REQUESTS = 64  # applicants judged at once; the engine batches by itself, this bounds its queue
CORES_PER_BROKER = 32  # whose training asks for 2,600 pairs a second, by arithmetic (docs/scaling.md)
RETRY_SECONDS = 2.0
WRITER_PATIENCE = 20.0  # seconds to wait for another process to release the store
STORE_PATIENCE = 120.0  # seconds that a database may be unreachable before a run gives up


@dataclass(frozen=True)
class JudgeBackend:
    """How a broker gets its judge.

    Args:
        fingerprint: the judge's name in the ledger, known without starting it.
        start: creates the judge; called at most once, in the broker's process.
        keep: whether to write the answers into the store's ledger; False for a judge that replays another ledger.
        cpus: CPUs that the judge takes once it has started; training actors leave them free.
        divisible: whether several brokers may each start one; not for a judge that counts costs in its own process.
        model: name of its model, for people; None if it is not known.
        histories: applicant -> what a judge with memory is told that they did before.
        told_until: ISO time before which that was; None for a judge without memory.
    """

    fingerprint: str
    start: Callable[[], AsyncJudge]
    keep: bool = True
    cpus: float = 0.0
    divisible: bool = False
    model: str | None = None
    histories: Mapping[str, History] = field(default_factory=dict)
    told_until: str | None = None


@dataclass(frozen=True)
class BrokerStats:
    """Pairs answered since the broker started: judged (abstentions included) or replayed from the ledger."""

    judged: int = 0
    replayed: int = 0
    abstained: int = 0
    judge_started: bool = False


@runtime_checkable
class Metered(Protocol):
    """A judge whose calls cost money."""

    def costs(self) -> dict[str, Any]:
        """The totals so far."""
        ...


class JudgeBroker:
    """Class of the broker's actor, which `start_broker` starts. Its methods interleave on one event loop.

    others: number of further brokers that it starts, which end with it.
    """

    def __init__(self, store_uri: str, backend: JudgeBackend, others: int = 0) -> None:
        self._others: list[ActorHandle[Any]] = _start_others(store_uri, backend, others) if others else []
        self._judge = LazyJudge(backend.start)
        self._histories = backend.histories
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
        """One judgement per job of each slate, in order. A new pair is billed to the first `payer` who asks for it.

        The judge is told the backend's histories, if it has any, in place of those of the slates.

        Raises JudgeError, in every caller that waits for the pair, when the judge cannot answer.
        """
        for slate in slates:
            self._requested.setdefault(slate.applicant_id, set()).update(slate.job_ids)

        def bill(pairs: int) -> None:
            self._paid[payer] += pairs

        if self._histories:
            slates = [replace(slate, history=self._histories.get(slate.applicant_id, ())) for slate in slates]
        return await self._ledger_first.fetch(slates, bill)

    async def warm_up(self) -> None:
        """Start the judge now, for callers who know that the ledger lacks some of their pairs."""
        await self._judge.start()

    async def brokers(self) -> list[ActorHandle[Any]]:
        """All brokers, in the order in which applicants are divided among them; this one is the first."""
        if not self._others:
            return []
        return [ray.get_runtime_context().current_actor, *self._others]

    async def requested(self, applicant_ids: Sequence[str]) -> set[Pair]:
        """Pairs of these applicants that the brokers were asked for, whether the judge or the ledger answered."""
        own = {(one, job_id) for one in applicant_ids for job_id in self._requested.get(one, ())}
        return own.union(*await self._of_others("requested", applicant_ids))

    async def stats(self) -> BrokerStats:
        """What has been answered so far."""
        counts = self._ledger_first
        own = BrokerStats(counts.judged, counts.replayed, counts.abstained, self._judge.started)
        every = [own, *await self._of_others("stats")]
        return BrokerStats(
            sum(one.judged for one in every),
            sum(one.replayed for one in every),
            sum(one.abstained for one in every),
            any(one.judge_started for one in every),
        )

    async def bills(self) -> dict[str, int]:
        """Payer -> number of new pairs billed since the broker started."""
        return dict(sum(map(Counter, await self._of_others("bills")), self._paid))

    async def costs(self) -> dict[str, Any] | None:
        """The totals of a metered judge, which are then in the run folder too; None for others."""
        return self._judge.costs()

    async def _of_others(self, method: str, *arguments: Any) -> list[Any]:
        return list(await asyncio.gather(*(getattr(one, method).remote(*arguments) for one in self._others)))

    async def close(self) -> None:
        """Let another process write the store."""
        await self._of_others("close")
        await self._ledger_first.close()


class LazyJudge:
    """A judge that starts on the first request and judges at most MAX_REQUESTS applicants at once.

    start: creates the judge; called once, may take minutes.
    """

    def __init__(self, start: Callable[[], AsyncJudge]) -> None:
        self._start = start
        self._judge: AsyncJudge | None = None
        self._starting = asyncio.Lock()
        self._requests = asyncio.Semaphore(MAX_REQUESTS)

    @property
    def started(self) -> bool:
        """Whether the judge is running."""
        return self._judge is not None

    def costs(self) -> dict[str, Any] | None:
        """The totals of a metered judge that has started."""
        return self._judge.costs() if isinstance(self._judge, Metered) else None

    async def start(self) -> AsyncJudge:
        """The judge, running."""
        async with self._starting:
            if self._judge is None:
                self._judge = await asyncio.to_thread(self._start)
            return self._judge

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """One judgement per job, in order. Raises JudgeError; the judge has already retried a busy or lost replica."""
        judge = await self.start()
        async with self._requests:
            return await judge.judge_async(applicant, jobs)


class PatientStore:
    """The part of a store that the ledger uses: opened on first use, and retried while the database is unreachable.

    A folder has one writer. The broker of a run that was just killed may still hold it, so opening waits for that one.
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

    def claim(self, applicant_id: str, job_ids: Sequence[str], judge: str) -> Claimed:
        """As `Store.claim`."""
        return self._patiently(lambda store: store.claim(applicant_id, job_ids, judge))

    def release(self, applicant_id: str, job_ids: Sequence[str], judge: str) -> None:
        """As `Store.release`."""
        self._patiently(lambda store: store.release(applicant_id, job_ids, judge))

    @overload
    def records(self, kind: Literal["job"], ids: Sequence[str] | None = None) -> Iterator[Job]: ...
    @overload
    def records(self, kind: Literal["candidate"], ids: Sequence[str] | None = None) -> Iterator[Candidate]: ...
    def records(self, kind: Kind, ids: Sequence[str] | None = None) -> Iterator[Job] | Iterator[Candidate]:
        """As `Store.records`."""
        if kind == "job":
            return self._patiently(lambda store: iter(list(store.records("job", ids))))
        return self._patiently(lambda store: iter(list(store.records("candidate", ids))))

    def meta(self) -> Mapping[str, Any]:
        """As `Store.meta`."""
        return self._patiently(lambda store: store.meta())

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
    """A JudgementSource that asks the brokers, of which `broker` is the first; payer: who is billed for new pairs."""

    def __init__(self, broker: ActorHandle[Any], payer: str = "") -> None:
        self._first, self._payer = broker, payer
        self._brokers: list[ActorHandle[Any]] | None = None

    def fetch(self, slates: Sequence[Slate]) -> list[list[Judgement]]:
        """One judgement per job of each slate, in order. Raises the broker's own DynaqError."""
        while True:
            brokers = self._brokers or ray.get(self._first.brokers.remote()) or [self._first]
            parts = divided(slates, len(brokers))
            calls = [brokers[i].fetch.remote([slates[place] for place in p], self._payer) for i, p in parts.items()]
            try:
                answers: list[list[list[Judgement]]] = ray.get(calls)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, DynaqError):
                    raise error.cause from None
                raise
            except ray.exceptions.RayActorError:
                if len(brokers) == 1:
                    raise
                self._brokers = None  # the first one died and came back, with others
                time.sleep(RETRY_SECONDS)
                continue
            self._brokers = brokers
            by_place = {
                place: one
                for places, part in zip(parts.values(), answers, strict=True)
                for place, one in zip(places, part, strict=True)
            }
            return [by_place[place] for place in range(len(slates))]


def divided(slates: Sequence[Slate], brokers: int) -> dict[int, list[int]]:
    """Broker -> places of its slates. An applicant always has the same one."""
    parts: dict[int, list[int]] = {}
    for place, slate in enumerate(slates):
        parts.setdefault(zlib.crc32(slate.applicant_id.encode()) % brokers, []).append(place)
    return parts


def start_broker(store_uri: str, backend: JudgeBackend, brokers: int | None = None) -> ActorHandle[Any]:
    """Start the brokers; returns the first one. Ray restarts a dead one, which reads the ledger again.

    The first is on this node, where a folder store is, and alone for a folder, which has one writer.

    brokers: their number on MongoDB; None: one for every CORES_PER_BROKER cores of the cluster.
    """
    if not is_mongo(store_uri) or not backend.divisible:
        brokers = 1
    elif brokers is None:
        brokers = max(1, round(real_cores() / CORES_PER_BROKER))
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    broker: ActorHandle[Any] = _broker_class(here).remote(store_uri, backend, brokers - 1)
    return broker


def _broker_class(where: NodeAffinitySchedulingStrategy | str) -> Any:
    return ray.remote(JudgeBroker).options(
        num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=1000, scheduling_strategy=where
    )


def _start_others(store_uri: str, backend: JudgeBackend, count: int) -> list[ActorHandle[Any]]:
    """Further brokers, started by the first one, in whose process this runs."""
    first = ray.get_runtime_context().current_actor
    theirs = replace(backend, start=partial(_started_by, first, backend.start))
    return [_broker_class("SPREAD").remote(store_uri, theirs) for _ in range(count)]


def _started_by(first: ActorHandle[Any], start: Callable[[], AsyncJudge]) -> AsyncJudge:
    """The judge that the first broker has started, or one like it: an engine must not be started by several at once."""
    ray.get(first.warm_up.remote())
    return start()
