"""A judge whose calls cost money: no pair begins past the limit, and what was answered before a failure is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dynaq.errors import JudgeError
from dynaq.judging.judgement import Judgement, UnfinishedJudgements
from dynaq.records import Candidate, Job
from reward_service.config import JudgeConfig
from reward_service.engine import Engine
from reward_service.llm_judge import LLMJudge
from reward_service.openai_engine import OpenAIEngine, characters
from reward_service.prompts import CONTENT_FREE, Text, likelihood_prefix, likelihood_suffix


class PaidJudge(LLMJudge):
    """LLMJudge on an endpoint."""

    def __init__(self, config: JudgeConfig, engine: OpenAIEngine) -> None:
        super().__init__(config, engine)
        self._endpoint = engine

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """As `LLMJudge.judge_async`, but no pair under way is given up because another one fails.

        Raises UnfinishedJudgements with the answers of the others, or the failure itself when there are none.
        """
        profile = self.applicant_text(applicant)
        found = await asyncio.gather(*(self._pair(applicant, profile, job) for job in jobs), return_exceptions=True)
        answers = [one for one in found if isinstance(one, Judgement)]
        failures = [one for one in found if isinstance(one, BaseException)]
        if not failures:
            return answers
        first = failures[0]
        if isinstance(first, JudgeError) and answers:
            raise UnfinishedJudgements(str(first), answers) from first
        raise first

    def lengths(self, applicant: Candidate, job: Job) -> list[int]:
        """Characters of each prompt that a pair needs; none for one without text."""
        return self._lengths(self.applicant_text(applicant), self._job_text(job))

    async def _pair(self, applicant: Candidate, profile: Text, job: Job) -> Judgement:
        async with self._endpoint.paying(self._lengths(profile, self._job_text(job))):
            return await super()._pair(applicant, profile, job)

    def _lengths(self, profile: Text, job: Text) -> list[int]:
        if profile.empty or job.empty:
            return []
        if self.config.method_name == "likelihood":
            suffix = likelihood_suffix(job)
            return [len(likelihood_prefix(profile) + suffix), len(CONTENT_FREE + suffix)]
        return [characters(self._prompt(profile, job, 0))] * self.config.rotations


def judge_on(config: JudgeConfig, engine: Engine) -> LLMJudge:
    """The judge of an engine."""
    return PaidJudge(config, engine) if isinstance(engine, OpenAIEngine) else LLMJudge(config, engine)
