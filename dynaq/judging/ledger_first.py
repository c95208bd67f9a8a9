"""A judge behind its ledger: a pair in the ledger is never paid for again.

`LedgerFirst` is the only implementation, and it is asynchronous. The HTTP service uses it directly, `cluster.broker`
adds what a cluster needs, and `LedgerJudge` wraps it synchronously for a single process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar, overload

import pyarrow as pa
from cachetools import FIFOCache, LRUCache

from dynaq.errors import DynaqError
from dynaq.judging.history import History, history_of, ledger_key, with_history
from dynaq.judging.judgement import AsyncJudge, Judge, Judgement, Slate, UnfinishedJudgements, check_answers
from dynaq.judging.ledger_file import judgements
from dynaq.personal.redaction import judged_candidates
from dynaq.records import Candidate, Job

T = TypeVar("T")
Pair = tuple[str, str]
Whose = tuple[str, str]  # an applicant, and the ledger's key of the judge with what it is told of them
Asked = tuple[str, str, str]  # these and a job
Records = tuple[Candidate | None, dict[str, Job]]  # an applicant, and jobs by id
Known = dict[str, Judgement]  # one applicant's judgements, by job id
Texts = Callable[[str, Sequence[str], History], Awaitable[tuple[Candidate, Sequence[Job]]]]

APPLICANTS_KEPT = 20_000  # judgements and profiles in memory: far more applicants than are in training at once
OTHERS_SECONDS = 0.2  # between two looks whether another process's pairs are in the ledger
JOBS_KEPT = 50_000  # job texts in memory: about 100 MB


class LedgerStore(Protocol):
    """The part of `dynaq.stores.Store` that `LedgerFirst` uses, from one thread at a time."""

    def judgements(self, judge: str | None = None, applicants: Sequence[str] | None = None) -> pa.Table:
        """Judgements of a judge on some applicants' pairs, with the columns of JUDGEMENT_SCHEMA."""
        ...

    def add_judgements(self, judgements: Sequence[Judgement]) -> None:
        """Store judgements; they are on disk when this returns."""
        ...

    def claim(self, applicant_id: str, job_ids: Sequence[str], judge: str) -> tuple[list[str], pa.Table]:
        """Reserve pairs, so that no other process asks the judge about them; returns the jobs of those reserved.

        Also judgements that others have stored meanwhile, with the columns of JUDGEMENT_SCHEMA.
        """
        ...

    def release(self, applicant_id: str, job_ids: Sequence[str], judge: str) -> None:
        """Give up reserved pairs."""
        ...

    @overload
    def records(self, kind: Literal["job"], ids: Sequence[str] | None = None) -> Iterator[Job]: ...
    @overload
    def records(self, kind: Literal["candidate"], ids: Sequence[str] | None = None) -> Iterator[Candidate]: ...
    def meta(self) -> Mapping[str, Any]:
        """Metadata of the store as a whole: here, whether it keeps personal data."""
        ...

    def close(self) -> None:
        """Finish writing and close."""
        ...


class Meter(Protocol):
    """Receives the numbers of pairs that pass through."""

    def from_ledger(self, pairs: int) -> None:
        """Pairs answered from the ledger."""

    def from_judge(self, pairs: int, abstained: int, seconds: float) -> None:
        """One applicant's pairs answered by the judge, and the seconds until the ledger had them."""

    def waiting(self, pairs: int) -> None:
        """Number of pairs now waiting for the judge."""


@dataclass(eq=False)
class _Request:
    """One applicant's pairs on their way through the judge into the ledger.

    key: of the answers in the ledger. history: what the judge is told besides.
    known: receives the answers once they are in the ledger.
    asked: called with the number of pairs about which the judge is asked.
    callers: number of callers waiting for it.
    judged: whether the judge has answered and the answers are being written, which goes on even if no caller waits any
        more, because they are paid for.
    """

    applicant_id: str
    key: str
    history: History
    job_ids: list[str]
    known: Known
    asked: Callable[[int], None] | None
    callers: int = 0
    judged: bool = False
    task: asyncio.Task[dict[str, Judgement]] = field(init=False)


class LedgerFirst:
    """Answers from the ledger, and asks the judge for the rest. An AsyncJudge.

    The judge's answers are returned only after they are in the ledger. Pairs are claimed before the judge is asked, so
    that of several processes on one store one pays for each. Concurrent callers of the same pair share one
    request, which goes on as long as at least one of them waits: cancelling one caller does not affect the others. An
    abstention is passed on but not written. All calls must come from one event loop at a time.

    Args:
        store: holds the ledger, and the records for `fetch`.
        judge: asked for the pairs that the ledger lacks.
        fingerprint: the judge's key in the ledger.
        keep: False, for a judge that replays another ledger, neither reads nor writes this one, and `fetch` reads no
            texts.
        applicants_kept: number of applicants whose judgements stay in memory. 0 reads the ledger in every call, and so
            sees what other processes wrote to it.
        meter: receives the numbers of pairs.
    """

    def __init__(
        self,
        store: LedgerStore,
        judge: AsyncJudge,
        fingerprint: str,
        *,
        keep: bool = True,
        applicants_kept: int = APPLICANTS_KEPT,
        meter: Meter | None = None,
    ) -> None:
        self.judged = self.replayed = self.abstained = 0  # pairs; `judged` includes the abstained
        self._store, self._judge, self._fingerprint = store, judge, fingerprint
        self._keep, self._meter = keep, meter
        self._thread = ThreadPoolExecutor(1, "store")  # one thread: stores need not be thread-safe
        self._known: FIFOCache[Whose, Known] = FIFOCache(applicants_kept)
        self._in_flight: dict[Asked, _Request] = {}
        self._unwritten: dict[Asked, Judgement] = {}
        # Accessed from the store's thread only:
        self._applicants: LRUCache[str, Candidate] = LRUCache(APPLICANTS_KEPT)
        self._jobs: LRUCache[str, Job] = LRUCache(JOBS_KEPT)

    async def fetch(self, slates: Sequence[Slate], asked: Callable[[int], None] | None = None) -> list[list[Judgement]]:
        """One judgement per job of each slate, in order, on the texts in the store.

        asked: called with the number of pairs of each request to the judge.
        Raises what the judge or the store raised, in every caller that waits for the pair and after all requests of the
        call have ended; DynaqError when the store lacks a text; InputError for a history that the judge does not read.
        """
        # A judge that replays another ledger needs no texts.
        return await self._answers(slates, self._stored_texts if self._keep else _ids_alone, asked)

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """One judgement per job, in order, on texts that the caller has read from the store. Raises as `fetch`.

        The history that comes with the applicant is told to the judge.

        Pass only texts from the store: the ledger is keyed by ids, and a record from elsewhere may have another text
        under the same id.
        """
        given = {job.id: job for job in jobs}

        async def texts(_: str, job_ids: Sequence[str], __: History) -> tuple[Candidate, Sequence[Job]]:
            return applicant, [given[job_id] for job_id in job_ids]

        slate = Slate(applicant.id, tuple(job.id for job in jobs), history_of(applicant))
        [answers] = await self._answers([slate], texts, None)
        return answers

    async def records(self, applicant_id: str | None, job_ids: Sequence[str]) -> Records:
        """The current records of the store. Those that it lacks are left out."""
        return await self._on_store(lambda: self._read_records(applicant_id, job_ids))

    async def close(self) -> None:
        """Close the store after pending writes."""
        await self._on_store(self._store.close)

    async def _answers(
        self, slates: Sequence[Slate], texts: Texts, asked: Callable[[int], None] | None
    ) -> list[list[Judgement]]:
        keys = [ledger_key(self._fingerprint, slate.history) for slate in slates]
        whose = [(slate.applicant_id, key) for slate, key in zip(slates, keys, strict=True)]
        known = await self._ledger(whose)
        # No await between reading the ledger and planning, so that no pair is asked for twice: a pair that the ledger
        # did not have yet, because its write was queued behind our read in the store's single thread, is still in
        # flight here, since the event loop resumes tasks in the order of those calls.
        plan = [
            self._planned(slate, key, known[slate.applicant_id, key], texts, asked)
            for slate, key in zip(slates, keys, strict=True)
        ]
        requests = list(dict.fromkeys(step for steps in plan for step in steps if isinstance(step, _Request)))
        for request in requests:
            request.callers += 1
        try:
            if requests:
                await asyncio.wait([request.task for request in requests])
        finally:
            for request in requests:
                request.callers -= 1
                if not request.callers and not request.judged:
                    self._forget(request)  # at once: a caller that comes before the task has ended must not wait for it
                    request.task.cancel()
        return [
            [
                step.task.result()[job_id] if isinstance(step, _Request) else step
                for step, job_id in zip(steps, slate.job_ids, strict=True)
            ]
            for steps, slate in zip(plan, slates, strict=True)
        ]

    def _planned(
        self, slate: Slate, key: str, known: Known, texts: Texts, asked: Callable[[int], None] | None
    ) -> list[Judgement | _Request]:
        """For each job the judgement in the ledger, else the request in flight, else a new request."""
        applicant_id, job_ids = slate.applicant_id, list(dict.fromkeys(slate.job_ids))
        replayed = sum(job_id in known for job_id in job_ids)
        self.replayed += replayed
        if self._meter:
            self._meter.from_ledger(replayed)
        missing = [one for one in job_ids if one not in known and (applicant_id, key, one) not in self._in_flight]
        if missing:
            request = _Request(applicant_id, key, slate.history, missing, known, asked)
            # In its own context: Ray Serve cancels calls made in the context of a caller that disconnects, and other
            # callers may wait for this request.
            request.task = asyncio.create_task(self._ask(request, texts), context=Context())
            request.task.add_done_callback(lambda _: self._forget(request))
            self._in_flight |= {(applicant_id, key, job_id): request for job_id in missing}
            self._show_waiting()
        return [known.get(job_id) or self._in_flight[applicant_id, key, job_id] for job_id in slate.job_ids]

    async def _ask(self, request: _Request, texts: Texts) -> dict[str, Judgement]:
        """Have one applicant's pairs judged and written. Returns job id -> judgement, including abstentions.

        Pairs about which another process is asking the judge just now are waited for.
        """
        answers: dict[str, Judgement] = {}
        waiting = request.job_ids
        while True:
            mine, stored = await self._claim(request, waiting)
            answers |= stored
            if mine:
                answers |= await self._judged(request, mine, texts)
            waiting = [job_id for job_id in waiting if job_id not in answers]
            if not waiting:
                return answers
            await asyncio.sleep(OTHERS_SECONDS)

    async def _claim(self, request: _Request, job_ids: list[str]) -> tuple[list[str], Known]:
        """The pairs to ask the judge about, and the judgements of those that another process had judged meanwhile."""
        if not self._keep:
            return job_ids, {}
        claim = (request.applicant_id, job_ids, request.key)
        mine, table = await self._on_store(lambda: self._store.claim(*claim))
        stored = {row.job_id: row for row in judgements(table)}
        self.replayed += len(stored)
        if self._meter:
            self._meter.from_ledger(len(stored))
        self._remember(request, stored)
        return mine, stored

    async def _judged(self, request: _Request, job_ids: list[str], texts: Texts) -> dict[str, Judgement]:
        """Have claimed pairs judged and written. Returns job id -> judgement, including abstentions."""
        began = time.monotonic()
        try:
            if request.asked:
                request.asked(len(job_ids))
            applicant, jobs = await texts(request.applicant_id, job_ids, request.history)
            try:
                answers = await self._judge.judge_async(applicant, jobs)
            except UnfinishedJudgements as error:  # the caller gets the error; what was paid for stays
                await self._take(request, error.answers, began)
                raise
            check_answers(answers, request.applicant_id, job_ids)
            return await self._take(request, answers, began)
        finally:
            request.judged = False
            if self._keep:
                # Not awaited, since the task may be cancelled; the store's one thread does it after the write.
                self._thread.submit(self._store.release, request.applicant_id, job_ids, request.key)

    async def _take(self, request: _Request, answers: Sequence[Judgement], began: float) -> dict[str, Judgement]:
        """Write a request's answers and remember them. Returns job id -> judgement."""
        request.judged = True
        if request.key != self._fingerprint:  # of a judge with memory, which need not know how the ledger goes by that
            answers = [replace(answer, judge=request.key) for answer in answers]
        fresh = {answer.job_id: answer for answer in answers if not answer.abstained}
        self.judged += len(answers)
        self.abstained += len(answers) - len(fresh)
        if self._keep and fresh:
            own = {(request.applicant_id, request.key, job_id): answer for job_id, answer in fresh.items()}
            self._unwritten |= own
            await self._on_store(lambda: self._write(own))
        if self._meter:
            self._meter.from_judge(len(answers), len(answers) - len(fresh), time.monotonic() - began)
        self._remember(request, fresh)
        return {answer.job_id: answer for answer in answers}

    def _remember(self, request: _Request, answers: Known) -> None:
        request.known.update(answers)
        # Not the same dict as `request.known` if the applicant was evicted and read again meanwhile.
        self._known.get((request.applicant_id, request.key), {}).update(answers)

    def _forget(self, request: _Request) -> None:
        """Remove a request that has ended, or for which no caller waits any more."""
        for job_id in request.job_ids:
            asked = (request.applicant_id, request.key, job_id)
            if self._in_flight.get(asked) is request:
                del self._in_flight[asked]
        if request.task.done() and not request.task.cancelled():
            request.task.exception()  # retrieved here, or asyncio would log it when every caller was cancelled
        self._show_waiting()

    def _show_waiting(self) -> None:
        if self._meter:
            self._meter.waiting(len(self._in_flight))

    async def _ledger(self, whose: Iterable[Whose]) -> dict[Whose, Known]:
        """Each applicant's judgements in the ledger, from memory or the store."""
        found = {one: self._known.get(one) for one in whose}
        new = [one for one, known in found.items() if known is None]
        rows = await self._on_store(lambda: self._read_ledger(new)) if new and self._keep else []
        read: dict[Whose, Known] = {one: {} for one in new}
        for row in rows:
            read[row.applicant_id, row.judge].setdefault(row.job_id, row)
        if self._known.maxsize:
            for one in new:
                known = self._known.setdefault(one, {})  # filled already if another call has read it meanwhile
                known.update({job_id: row for job_id, row in read[one].items() if job_id not in known})
                read[one] = known
        return {one: read[one] if known is None else known for one, known in found.items()}

    async def _stored_texts(
        self, applicant_id: str, job_ids: Sequence[str], history: History
    ) -> tuple[Candidate, Sequence[Job]]:
        return await self._on_store(lambda: self._read_texts(applicant_id, job_ids, history))

    def _on_store(self, call: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call)

    # The methods below run in the store's thread.

    def _read_ledger(self, whose: list[Whose]) -> list[Judgement]:
        keys = {key for _, key in whose}
        # What an applicant did makes a key of its own. One look for all is faster than one for each.
        key = keys.pop() if len(keys) == 1 else None
        wanted = set(whose)
        table = self._store.judgements(key, list(dict.fromkeys(applicant_id for applicant_id, _ in whose)))
        return [row for row in judgements(table) if (row.applicant_id, row.judge) in wanted]

    def _write(self, own: dict[Asked, Judgement]) -> None:
        """Write the pending judgements of all requests in one batch; a failed batch is not retried.

        A failure raises only in the request that made this call; the other requests of the batch raise in their own.
        """
        batch = dict(self._unwritten)
        try:
            if batch:
                self._store.add_judgements(list(batch.values()))
        except BaseException:
            batch = own
            raise
        finally:
            for pair in batch:
                self._unwritten.pop(pair, None)

    def _read_records(self, applicant_id: str | None, job_ids: Sequence[str]) -> Records:
        applicant = None if applicant_id is None else next(judged_candidates(self._store, [applicant_id]), None)
        return applicant, {job.id: job for job in self._store.records("job", list(job_ids))} if job_ids else {}

    def _read_texts(self, applicant_id: str, job_ids: Sequence[str], history: History) -> tuple[Candidate, list[Job]]:
        applicant = self._applicants.get(applicant_id)
        needed = list(dict.fromkeys([*job_ids, *(one.job_id for one in history if not one.title)]))
        jobs = {job_id: self._jobs[job_id] for job_id in needed if job_id in self._jobs}
        found, new = self._read_records(
            applicant_id if applicant is None else None, [job_id for job_id in needed if job_id not in jobs]
        )
        applicant = applicant or found
        if applicant is None:
            raise DynaqError(f"applicant {applicant_id!r} has no text in the store, so no judge can read it; ingest it")
        self._applicants[applicant_id] = applicant
        self._jobs.update(new)
        jobs |= new
        lost = [job_id for job_id in needed if job_id not in jobs]
        if lost:
            raise DynaqError(f"job {lost[0]!r} has no text in the store, so no judge can read it; ingest it again")
        return with_history(applicant, history, jobs), [jobs[job_id] for job_id in job_ids]


async def _ids_alone(applicant_id: str, job_ids: Sequence[str], _: History) -> tuple[Candidate, Sequence[Job]]:
    return Candidate(id=applicant_id), [Job(id=job_id, title=job_id) for job_id in job_ids]


class LedgerJudge:
    """`LedgerFirst` for one process without an event loop. A JudgementSource.

    used: number of pairs requested, from the ledger or the judge.
    """

    def __init__(self, store: LedgerStore, judge: Judge) -> None:
        self._judge = LedgerFirst(store, InlineJudge(judge), judge.fingerprint)
        self._thread = ThreadPoolExecutor(1, "judge")  # a notebook's main thread already runs an event loop
        self.used = 0

    @property
    def paid(self) -> int:
        """Number of pairs for which the judge was paid."""
        return self._judge.judged

    def fetch(self, slates: Sequence[Slate]) -> list[list[Judgement]]:
        """One judgement per job of each slate, in order. Raises as `LedgerFirst.fetch`."""
        answers = self._thread.submit(lambda: asyncio.run(self._judge.fetch(slates))).result()
        self.used += sum(len(slate.job_ids) for slate in slates)
        return answers


class InlineJudge:
    """A Judge as an AsyncJudge: called in the event loop, one call at a time, because it need not be thread-safe."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """One judgement per job, in order. Raises as the judge does."""
        return self._judge.judge(applicant, jobs)
