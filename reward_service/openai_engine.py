"""An OpenAI-compatible server as the engine: vLLM's, or any other that returns log-probabilities.

`choice` needs /chat/completions with `top_logprobs`; `likelihood` needs /completions with `echo`, which few servers
besides vLLM still offer. The server's tokenizer is unknown here, so token limits count words, and pieces of long words.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from typing import Any

import httpx

from dynaq.errors import InputError, JudgeError
from dynaq.stores import mask_uri
from reward_service.client import checked
from reward_service.config import JudgeConfig
from reward_service.engine import PairError
from reward_service.errors import JudgeUnavailable
from reward_service.prompts import LETTERS, ChatPrompt

TOP_LOGPROBS = 20  # the API's maximum; a letter that is not among them counts as 0, which lowers label_mass
_PIECES = re.compile(r"\w{1,6}|[^\w\s]")


class OpenAIEngine:
    """Sends up to `max_ongoing_requests` concurrent requests, and leaves batching to the server."""

    def __init__(self, config: JudgeConfig) -> None:
        assert config.endpoint is not None
        key = config.with_secrets().endpoint_key
        self._who = f"the endpoint {mask_uri(config.endpoint)}"
        self._model = config.model
        self._limit = asyncio.Semaphore(config.max_ongoing_requests)
        self._client = httpx.AsyncClient(
            base_url=config.endpoint.rstrip("/"),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(300.0, connect=10.0),
        )

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """(start, end) of pieces of up to six letters, in place of the server's unknown tokens."""
        return [piece.span() for piece in _PIECES.finditer(text)]

    async def continuation(self, prefix: str, text: str) -> list[float]:
        """Log-probability of each token of `text` after `prefix`, by completion with echo."""
        body = {"prompt": prefix + text, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        logprobs = (await self._post("/completions", body))["choices"][0].get("logprobs")
        if not logprobs or not logprobs.get("text_offset"):
            raise JudgeError(f"{self._who} returns no logprobs with echo; use method choice with it")
        rows = zip(logprobs["text_offset"], logprobs["token_logprobs"], strict=True)
        end = len(prefix) + len(text)
        values = [value for offset, value in rows if len(prefix) <= offset < end]
        if not values or any(value is None or not math.isfinite(value) for value in values):
            raise PairError("the endpoint gave no finite probability to the text")
        return values

    async def letters(self, prompt: ChatPrompt) -> dict[str, float]:
        """Log-probability of each letter as the first token, by chat completion with logprobs."""
        user = "".join(segment.text for segment in prompt.user)
        body = {
            "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": user}],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": TOP_LOGPROBS,
        }
        choice = (await self._post("/chat/completions", body))["choices"][0]
        content = (choice.get("logprobs") or {}).get("content")
        if not content:
            raise JudgeError(f"{self._who} returns no logprobs; this judge needs them")
        found: dict[str, float] = {}
        for entry in content[0]["top_logprobs"]:
            if entry["token"] in LETTERS and math.isfinite(entry["logprob"]):
                found[entry["token"]] = max(entry["logprob"], found.get(entry["token"], -math.inf))
        if not found:
            raise PairError(f"none of {', '.join(LETTERS)} is among the model's {TOP_LOGPROBS} likeliest answers")
        return found

    async def check_health(self) -> None:
        """Check that the server answers. Raises JudgeUnavailable otherwise."""
        await self._call("GET", "/models")

    def shutdown(self) -> None:
        """Does nothing: the connections close with the process."""

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        async with self._limit:
            return await self._call("POST", path, {"model": self._model, **body})

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            response = await self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            raise JudgeUnavailable(f"{self._who} does not answer ({error or type(error).__name__})") from error
        if response.status_code == 400:  # the server knows the model, but refused this prompt
            raise PairError(f"the endpoint refused the prompt: {response.text[:200]}")
        return checked(response, self._who)


async def served_model(endpoint: str) -> str:
    """The first model that the server lists. Raises InputError when it lists none."""
    engine = OpenAIEngine(JudgeConfig(endpoint=endpoint, model="?"))
    listed = (await engine._call("GET", "/models")).get("data") or []
    if not listed:
        raise InputError(f"{engine._who} serves no model")
    return str(listed[0]["id"])
