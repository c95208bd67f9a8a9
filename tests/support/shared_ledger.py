"""Processes that ask for the same judgements at once, through one database, and can be killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from dynaq.judging.judgement import Judgement, Slate, judgement_from_probabilities
from dynaq.judging.ledger_first import LedgerFirst
from dynaq.records import Candidate, Job
from dynaq.stores import mongo_claims, open_store

JUDGE = "rule-shared"
CLAIM_SECONDS = 1.0  # instead of 20 s, for which a test would wait after each kill
JOB_IDS = tuple(f"j{i:02d}" for i in range(12))
SLATE = 4


@dataclass(frozen=True)
class LoggingJudge:
    """Answers after a while. Every answered pair is a line of `log` with the process that paid for it."""

    log: Path
    delay: float = 0.05

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        await asyncio.sleep(self.delay)
        with self.log.open("a") as log:
            log.write("".join(f"{os.getpid()}\t{applicant.id}\t{job.id}\n" for job in jobs))  # one write: one append
        return [
            judgement_from_probabilities(applicant.id, job.id, [0.25, 0.25, 0.25, 0.25], judge=JUDGE) for job in jobs
        ]


def paid(log: Path) -> dict[tuple[str, str], list[int]]:
    """Pair -> the processes that paid for it, in order."""
    pairs: dict[tuple[str, str], list[int]] = {}
    for line in log.read_text().splitlines():
        process, applicant_id, job_id = line.split("\t")
        pairs.setdefault((applicant_id, job_id), []).append(int(process))
    return pairs


def start_asking(uri: str, log: Path, applicant_ids: Sequence[str]) -> BaseProcess:
    """A process that asks for all jobs of these applicants, slate by slate, and ends with 0 when it has the answers."""
    context = multiprocessing.get_context("forkserver")  # no fork of this process, whose threads a child would lack
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_ask, args=(uri, log, list(applicant_ids)), daemon=True)
    process.start()
    return process


def _ask(uri: str, log: Path, applicant_ids: list[str]) -> None:
    mongo_claims.CLAIM_SECONDS = CLAIM_SECONDS
    asyncio.run(_ask_all(uri, log, applicant_ids))


async def _ask_all(uri: str, log: Path, applicant_ids: list[str]) -> None:
    broker = LedgerFirst(open_store(uri), LoggingJudge(log), JUDGE)
    for applicant_id in applicant_ids:
        for start in range(0, len(JOB_IDS), SLATE):
            await broker.fetch([Slate(applicant_id, JOB_IDS[start : start + SLATE])])
    await broker.close()
