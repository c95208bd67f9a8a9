"""A judge by its URL: our reward service, or an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from dynaq.errors import InputError, JudgeError
from dynaq.judging.judgement import AsyncJudge, Judgement
from dynaq.records import Candidate, Job
from dynaq.runs.folder import RunFolder
from dynaq.stores import mask_uri
from reward_service.client import HttpJudge, RewardClient
from reward_service.config import ENDPOINT_FIELDS, JudgeConfig
from reward_service.costs import Costs
from reward_service.openai_engine import PATIENCE, Capabilities, OpenAIEngine, served_model
from reward_service.paid_judge import PaidJudge

SEND_KEY = "send the API key as `Authorization: Bearer KEY`"  # what reward_service.api answers without one


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server that was asked what it can do; called, it is a judge on it.

    Args:
        config: names server, model, method and prices.
        capabilities: what the server can do.
        costs: of finding that out; they are on the run's bill.
        tokens_per_character: as the server counted them.
        folder: run folder that keeps the costs.
    """

    config: JudgeConfig
    capabilities: Capabilities
    costs: Costs
    tokens_per_character: float
    folder: RunFolder | None = None

    @classmethod
    def probed(cls, config: JudgeConfig, folder: RunFolder | None = None) -> Endpoint:
        """Ask the server once. Raises JudgeError when it cannot judge."""
        config = config.with_secrets()  # a broker on another node has no such variables

        async def ask() -> Endpoint:
            engine = OpenAIEngine(config, patience=10.0)
            found = await engine.probe()
            return cls(config, found, engine.bill.costs, engine.bill.tokens_per_character, folder)

        return asyncio.run(ask())

    def engine(self) -> OpenAIEngine:
        """An engine for the running event loop."""
        engine = OpenAIEngine(
            self.config, capabilities=self.capabilities, patience=PATIENCE, folder=self.folder, costs=self.costs
        )
        engine.bill.tokens_per_character = self.tokens_per_character
        return engine

    def quote(self, pairs: Sequence[tuple[Candidate, Job]], judgements: int) -> str:
        """What so many judgements cost at most, in words.

        pairs: some of those that may be asked, for the length of the prompts.
        """
        c, engine = self.config, self.engine()
        lengths = [length for pair in pairs for length in PaidJudge(c, engine).lengths(*pair)]
        if not lengths:
            return "no applicant and job with text to ask about"
        calls, tokens = engine.calls_and_tokens(lengths)
        calls, tokens_in, tokens_out = (round(judgements * x / len(pairs)) for x in (calls, *tokens))
        line = f"at most {judgements:,} judgements, {calls:,} calls to {c.model} at {mask_uri(str(c.endpoint))}: "
        line += f"about {tokens_in:,} tokens in and {tokens_out:,} out"
        if c.price_in is not None:
            line += f", cost {engine.bill.price(tokens_in, tokens_out):.4g}"
            line += f" (stops at {c.max_cost:g})" if c.max_cost else ""
        return f"{line}; what the ledger knows costs nothing"

    def __call__(self) -> EndpointJudge:
        """A judge on it."""
        return EndpointJudge(self)


class EndpointJudge(RewardClient):
    """An OpenAI-compatible server as a judge, called from this process without a Serve replica in between.

    The engine repeats each request that is refused for the moment. Repeating whole calls would pay twice for the pairs
    that were answered.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(patience=0.0)
        self._endpoint = endpoint
        self._judge: PaidJudge | None = None
        self._engine: OpenAIEngine | None = None

    @property
    def fingerprint(self) -> str:
        """The judge's key in the ledger, which depends on the model, method and the endpoint's address."""
        return self._endpoint.config.fingerprint

    def costs(self) -> dict[str, Any]:
        """What the calls have cost so far (fields of `Costs`); also writes it into the run folder."""
        if self._engine is None:
            return asdict(self._endpoint.costs)
        self._engine.bill.save()
        return asdict(self._engine.bill.costs)

    async def _ask(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        if self._judge is None:  # created in the event loop that uses it, to which its connections are bound
            self._engine = self._endpoint.engine()
            self._judge = PaidJudge(self._endpoint.config, self._engine)
        return await self._judge.judge_async(applicant, jobs)


def judge_at(url: str, folder: RunFolder | None = None, **fields: Any) -> tuple[str, Callable[[], AsyncJudge]]:
    """The fingerprint of the judge at a URL, and a factory of clients for it.

    url: of a reward service, or the base URL of an OpenAI-compatible server, with `#MODEL` where it serves several.
    folder: run folder that keeps the costs. fields: of JudgeConfig, such as `samples`.
    Keys are read from $DYNAQ_API_KEY (a reward service) and $DYNAQ_ENDPOINT_KEY (an OpenAI-compatible server).
    Raises InputError when nothing at the URL can judge.
    """
    url, _, model = url.partition("#")
    try:
        # Our service names its judge, or says how to send the key; other servers do not know this path.
        answer = httpx.get(f"{url.rstrip('/')}/v1/judge", timeout=10, follow_redirects=False)
        if '"judge"' in answer.text or SEND_KEY in answer.text:
            if given := [name for name in ENDPOINT_FIELDS if fields.get(name)]:
                raise InputError(
                    f"{', '.join(given)}: {mask_uri(url)} is a reward service, whose own configuration counts"
                )
            service = HttpJudge(url)
            return service.fingerprint, lambda: HttpJudge(url)
        model = model or asyncio.run(served_model(url))
        config = JudgeConfig.load(None, endpoint=url, model=model, **({"method": "choice", "condense": True} | fields))
        endpoint = Endpoint.probed(config, folder)
    except httpx.HTTPError as error:
        raise InputError(f"no judge answers at {mask_uri(url)} ({error or type(error).__name__})") from error
    except JudgeError as error:
        raise InputError(f"{mask_uri(url)} is no judge: {error}") from error
    return config.fingerprint, endpoint
