"""Judges for the broker's and the trainer's tests: real answers by rule, every request written to a file."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.broker import JudgeBackend
from dynaq.errors import JudgeError
from dynaq.judging.judgement import Judgement, abstention, judgement_from_probabilities
from dynaq.records import Candidate, Job

FINGERPRINT = "rule-000000000000"


def rule(applicant_id: str, job_id: str) -> list[float]:
    """A distribution that depends on the pair alone."""
    x = (sum(map(ord, applicant_id)) * 31 + sum(map(ord, job_id)) * 17) % 97 / 97
    return [x, (1 - x) / 2, (1 - x) / 3, (1 - x) / 6]


@dataclass
class RuleJudge:
    """Answers by rule after `delay` seconds. Every answered pair is a line of `log`, flushed before the answer.

    failing, failing_applicants: ids on which it raises; abstaining: job ids on which it abstains.
    """

    log: Path
    delay: float = 0.0
    failing: tuple[str, ...] = ()
    abstaining: tuple[str, ...] = ()
    failing_applicants: tuple[str, ...] = ()

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        await asyncio.sleep(self.delay)
        if applicant.id in self.failing_applicants:
            raise JudgeError(f"the judge refuses applicant {applicant.id!r}")
        for job in jobs:
            if job.id in self.failing:
                raise JudgeError(f"the judge refuses job {job.id!r}")
        with self.log.open("a") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            log.writelines(f"{applicant.id}\t{job.id}\n" for job in jobs)
            log.flush()
            os.fsync(log.fileno())
        return [
            abstention(applicant.id, job.id, judge=FINGERPRINT, note="told to")
            if job.id in self.abstaining
            else judgement_from_probabilities(applicant.id, job.id, rule(applicant.id, job.id), judge=FINGERPRINT)
            for job in jobs
        ]

    def backend(self) -> JudgeBackend:
        return JudgeBackend(FINGERPRINT, lambda: self)

    @property
    def answered(self) -> list[tuple[str, ...]]:
        """Every (applicant, job) that was answered, in order, repetitions included."""
        return [tuple(line.split("\t")) for line in self.log.read_text().splitlines()] if self.log.exists() else []
