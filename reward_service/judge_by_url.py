"""A judge by its URL: our reward service, or an OpenAI-compatible server that returns log-probabilities."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import httpx

from dynaq.errors import InputError, JudgeError
from dynaq.judging.judgement import AsyncJudge, Judgement
from dynaq.records import Candidate, Job
from dynaq.stores import mask_uri
from reward_service.client import HttpJudge, RewardClient
from reward_service.config import JudgeConfig
from reward_service.llm_judge import LLMJudge
from reward_service.openai_engine import OpenAIEngine, served_model


class EndpointJudge(RewardClient):
    """An OpenAI-compatible server as a judge, called from this process without a Serve replica in between."""

    def __init__(self, config: JudgeConfig, patience: float = 180.0) -> None:
        super().__init__(patience)
        self.config = config
        self._judge: LLMJudge | None = None

    @property
    def fingerprint(self) -> str:
        """The judge's key in the ledger, which depends on the model, method and the endpoint's address."""
        return self.config.fingerprint

    async def _ask(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        if self._judge is None:  # created in the event loop that uses it, to which its connections are bound
            self._judge = LLMJudge(self.config, OpenAIEngine(self.config))
        return await self._judge.judge_async(applicant, jobs)


def judge_at(url: str) -> tuple[str, Callable[[], AsyncJudge]]:
    """The fingerprint of the judge at a URL, and a factory of clients for it.

    Keys are read from $DYNAQ_API_KEY (a reward service) and $DYNAQ_ENDPOINT_KEY (an OpenAI-compatible server).
    Raises InputError when nothing at the URL can judge.
    """
    try:
        answer = httpx.get(f"{url.rstrip('/')}/v1/judge", timeout=10, follow_redirects=False)
        # Our service names its judge, or says how to send the key; other servers do not know this path.
        if '"judge"' in answer.text or "Authorization: Bearer" in answer.text:
            service = HttpJudge(url)
            return service.fingerprint, lambda: HttpJudge(url)
        config = JudgeConfig(endpoint=url, model=asyncio.run(served_model(url)), method="choice")
    except httpx.HTTPError as error:
        raise InputError(f"no judge answers at {mask_uri(url)} ({error or type(error).__name__})") from error
    except JudgeError as error:
        raise InputError(f"{mask_uri(url)} is no judge: {error}") from error
    return config.fingerprint, lambda: EndpointJudge(config)
