"""A judge with the store's ledger in front: asked first, written once, one call for a pair that many want at once.

For the HTTP service. Trainers have `cluster.broker`, which also bounds and retries their calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dynaq.errors import InputError
from dynaq.judging.judgement import Judgement
from dynaq.records import Candidate, Job
from dynaq.stores import open_store
from reward_service.client import RewardClient

T = TypeVar("T")


class _Abandoned(Exception):
    """The call that was to answer this pair was cancelled."""


class LedgeredJudge:
    """Answers from the store's ledger, asks `judge` for the rest, and answers only after the ledger has it.

    The ledger is keyed by ids, so only the store's own texts may come here: a record sent whole may say something else
    under the same id.
    """

    def __init__(self, store_uri: str, judge: RewardClient) -> None:
        self._store = open_store(store_uri)
        self._thread = ThreadPoolExecutor(1, "store")  # stores need not be thread-safe
        self._judge = judge
        self._in_flight: dict[tuple[str, str], asyncio.Future[Judgement]] = {}

    async def texts(self, applicant_id: str | None, job_ids: Sequence[str]) -> tuple[Candidate | None, dict[str, Job]]:
        """The store's records. Raises InputError naming the first id that is not there."""

        def read() -> tuple[list[Candidate], dict[str, Job]]:
            candidates = list(self._store.records("candidate", [applicant_id])) if applicant_id is not None else []
            return candidates, {job.id: job for job in self._store.records("job", list(job_ids))} if job_ids else {}

        candidates, jobs = await self._on_store(read)
        if applicant_id is not None and not candidates:
            raise InputError(f"applicant {applicant_id!r} is not in the store; send the whole record or ingest it")
        lost = [job_id for job_id in job_ids if job_id not in jobs]
        if lost:
            raise InputError(f"job {lost[0]!r} is not in the store; send the whole record or ingest it")
        return (candidates[0] if candidates else None), jobs

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """One judgement per job, in order. Raises JudgeError; then nothing of this call is written."""
        known = await self._on_store(lambda: self._read(applicant, jobs))
        missing = {job.id: job for job in jobs if job.id not in known}
        shared = {job_id: f for job_id in missing if (f := self._in_flight.get((applicant.id, job_id)))}
        mine = [job for job_id, job in missing.items() if job_id not in shared]
        if mine:
            known |= await self._ask(applicant, mine)
        for job_id, future in shared.items():
            try:
                known[job_id] = await asyncio.shield(future)
            except _Abandoned:  # the caller that had asked went away
                known[job_id] = (await self.judge_async(applicant, [missing[job_id]]))[0]
        return [known[job.id] for job in jobs]

    async def _ask(self, applicant: Candidate, jobs: list[Job]) -> dict[str, Judgement]:
        loop = asyncio.get_running_loop()
        futures: dict[str, asyncio.Future[Judgement]] = {job.id: loop.create_future() for job in jobs}
        self._in_flight |= {(applicant.id, job_id): future for job_id, future in futures.items()}
        try:
            answers = await self._judge.judge_async(applicant, jobs)
            await self._on_store(lambda: self._store.add_judgements([a for a in answers if not a.abstained]))
        except BaseException as error:
            for future in futures.values():
                future.set_exception(error if isinstance(error, Exception) else _Abandoned())
                future.exception()  # nobody may be waiting for it
            raise
        finally:
            for job_id in futures:
                del self._in_flight[applicant.id, job_id]
        for answer in answers:
            futures[answer.job_id].set_result(answer)
        return {answer.job_id: answer for answer in answers}

    def _read(self, applicant: Candidate, jobs: Sequence[Job]) -> dict[str, Judgement]:
        rows = self._store.judgements(self._judge.fingerprint, [applicant.id]).to_pylist()
        ids = {job.id for job in jobs}
        return {row["job_id"]: Judgement(**row) for row in rows if row["job_id"] in ids}

    async def _on_store(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
