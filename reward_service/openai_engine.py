"""An OpenAI-compatible server as the engine: vLLM, SGLang, llama.cpp, Ollama, or a hosted service.

`choice` needs /chat/completions with `top_logprobs`, or draws `samples` answers from a server that has none.
`likelihood` needs /completions with `echo`, which vLLM and SGLang offer. Servers differ, and several ignore silently
what they do not know, so the first call asks what there is (`probe`). The server's tokenizer is unknown here, so token
limits count words, and pieces of long words.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import httpx

from dynaq.errors import InputError, JudgeError
from dynaq.records import Candidate, Job
from dynaq.runs.folder import RunFolder
from dynaq.stores import mask_uri
from reward_service.client import LONGEST_PAUSE, checked, problem
from reward_service.config import JudgeConfig
from reward_service.costs import Bill, Costs
from reward_service.engine import PairError
from reward_service.errors import JudgeBusy, JudgeUnavailable, MethodUnsupported
from reward_service.prompts import CONTENT_FREE, LETTERS, ChatPrompt, configured_prompt, job_text, profile_text

TOP_LOGPROBS = 20  # the API's maximum; a letter that is not among them counts as 0, which lowers label_mass
LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
SAMPLE_TOKENS = 4  # of a drawn answer: "**A**" is three
PATIENCE = 180.0  # seconds without any answer after which a request is given up
_PIECES = re.compile(r"\w{1,6}|[^\w\s]")
_LETTER = re.compile(r"[\W_]*([A-D])(?![A-Za-z])")  # at the head of a drawn answer: "A", "(A)", "**A** because"
_REFUSED = (400, 422)  # the request itself is refused: a wrong field, or a prompt that is too long

PROBE_APPLICANT = Candidate(
    id="probe", bio="Backend engineer with five years of Java and SQL.", hard_skills=("Java", "SQL")
)
PROBE_JOB = Job(id="probe", title="software developer", technical_skills=("Java", "SQL"), description="Web services.")


@dataclass(frozen=True)
class Capabilities:
    """How a server wants to be asked.

    Args:
        top_logprobs: how many of the likeliest tokens it lists.
        limit_field: its name for the most tokens of an answer; OpenAI's newer models refuse the older one.
        several: whether one request may draw several answers (`n`), whose prompt is then paid for once.
    """

    top_logprobs: int = TOP_LOGPROBS
    limit_field: str = "max_tokens"
    several: bool = False


class OpenAIEngine:
    """Sends up to `max_ongoing_requests` concurrent requests, and leaves batching to the server.

    A request that is refused for the moment (429, 5xx, no connection) is repeated, and all others wait as long as the
    server's Retry-After asks, until `patience` seconds have passed without any answer.

    Args:
        config: names the endpoint.
        capabilities: as an earlier `probe` found them.
        patience: seconds; 0 repeats nothing.
        folder: run folder in which the costs are kept.
        costs: of earlier calls that belong to the same bill, such as those of a probe.
    """

    def __init__(
        self,
        config: JudgeConfig,
        *,
        capabilities: Capabilities | None = None,
        patience: float = 0.0,
        folder: RunFolder | None = None,
        costs: Costs | None = None,
    ) -> None:
        assert config.endpoint is not None
        self._key = config.with_secrets().endpoint_key
        self._who = f"the endpoint {mask_uri(config.endpoint)}"
        self._config = config
        self.capabilities = capabilities or Capabilities()
        self.bill = Bill(config, folder, costs)
        self.patience = patience
        self._replied = False  # whether `limit_field` is what the server wants
        self._answered = self._resume_at = -math.inf  # on the monotonic clock
        self._limit = asyncio.Semaphore(config.max_ongoing_requests)
        self._client = httpx.AsyncClient(
            base_url=config.endpoint.rstrip("/"),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(300.0, connect=10.0),
        )

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """(start, end) of pieces of up to six letters, in place of the server's unknown tokens."""
        return pieces(text)

    async def probe(self) -> Capabilities:
        """Ask once, with a prompt of our own, whether the server gives what the method needs, and how.

        Raises MethodUnsupported when it does not, JudgeError when it refuses the request for another reason.
        """
        if self._config.method_name == "likelihood":
            await self._probe_echo()
        elif self._config.samples:
            await self._probe_samples()
        else:
            await self._probe_letters()
        return self.capabilities

    async def _probe_letters(self) -> None:
        refusals = []
        for top in (TOP_LOGPROBS, 5):  # some servers list five at most
            for field in LIMIT_FIELDS:
                self.capabilities = replace(self.capabilities, top_logprobs=top, limit_field=field)
                try:
                    await self.letters(probe_prompt(self._config))
                    return
                except _Refused as error:
                    refusals.append(str(error))
                except PairError as error:  # logprobs are there, the letters are not
                    raise MethodUnsupported(
                        f"{self._who}: {error}. A model that thinks before it answers must be told not to: set "
                        "`request` in the judge's configuration, e.g. {reasoning_effort: none} or "
                        "{chat_template_kwargs: {enable_thinking: false}}"
                    ) from error
        await self._probe_samples()  # raises its own error where the server refuses any chat
        raise MethodUnsupported(f"{self._who} refuses log-probabilities: {_distinct(refusals)}. {USE_SAMPLES}")

    async def _probe_samples(self) -> None:
        refusals = []
        wanted = self._config.samples or 1
        for n in dict.fromkeys((wanted, 1)):
            for field in LIMIT_FIELDS:
                self.capabilities = replace(self.capabilities, limit_field=field)
                try:
                    texts = await self._draw(probe_prompt(self._config), n)
                except _Refused as error:
                    refusals.append(str(error))
                    continue
                self.capabilities = replace(self.capabilities, several=len(texts) == wanted > 1)
                return
        raise JudgeError(f"{self._who} refuses chat completions: {_distinct(refusals)}")

    async def _probe_echo(self) -> None:
        try:
            await self.continuation(CONTENT_FREE, " software developer\n")
        except PairError as error:
            raise MethodUnsupported(f"{self._who}: {error}; use method choice with it") from error

    async def continuation(self, prefix: str, text: str) -> list[float]:
        """Log-probability of each token of `text` after `prefix`, by completion with echo."""
        prompt = prefix + text
        body = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        logprobs = self._choices(await self._post("/completions", body, len(prompt), 1))[0].get("logprobs")
        if not logprobs or not logprobs.get("token_logprobs"):
            raise MethodUnsupported(f"{self._who} returns no logprobs with echo; use method choice with it")
        offsets = logprobs.get("text_offset") or []
        if not offsets or min(offsets) < 0:  # SGLang sends -1 for every token
            offsets = _offsets(logprobs.get("tokens") or [], prompt)
            if offsets is None:
                raise MethodUnsupported(f"{self._who} returns no prompt with echo; use method choice with it")
        rows = list(zip(offsets, logprobs["token_logprobs"], strict=True))
        values = [value for offset, value in rows if len(prefix) <= offset < len(prompt)]
        if not values or any(value is None or not math.isfinite(value) for value in values):
            raise PairError("the endpoint gave no finite probability to the text")
        return values

    async def letters(self, prompt: ChatPrompt) -> dict[str, float]:
        """Log-probability of each letter as the first token, or the logarithm of its share among drawn answers."""
        if self._config.samples:
            return await self._sampled_letters(prompt, self._config.samples)
        body = {"temperature": 0, "logprobs": True, "top_logprobs": self.capabilities.top_logprobs}
        [choice] = (await self._chat(prompt, body, 1))[:1]
        content = (choice.get("logprobs") or {}).get("content")
        if not content:
            raise MethodUnsupported(f"{self._who} returns no logprobs. {USE_SAMPLES}")
        tokens = [(entry["token"], entry["logprob"]) for entry in content[0].get("top_logprobs") or []]
        if len(tokens) < 2:
            raise MethodUnsupported(f"{self._who} returns only the likeliest token's logprob. {USE_SAMPLES}")
        # The bare letters, or where there are none the letters as some tokenizers show them, after a space.
        found = _best(tokens) or _best([(token.strip(" ▁"), logprob) for token, logprob in tokens])
        if not found:
            raise PairError(f"none of {', '.join(LETTERS)} is among the model's {len(tokens)} likeliest answers")
        return found

    async def _sampled_letters(self, prompt: ChatPrompt, samples: int) -> dict[str, float]:
        if self.capabilities.several:
            texts: list[str] = []
            while len(texts) < samples:  # a server may give fewer than it is asked for
                texts += await self._draw(prompt, samples - len(texts))
        else:
            drawn = await asyncio.gather(*(self._draw(prompt, 1) for _ in range(samples)), return_exceptions=True)
            if failed := [one for one in drawn if isinstance(one, BaseException)]:
                raise failed[0]
            texts = [text for one in drawn if not isinstance(one, BaseException) for text in one]
        counts = Counter(match[1] for text in texts if (match := _LETTER.match(text)))
        if not counts:
            raise PairError(f"none of {len(texts)} answers is one of {', '.join(LETTERS)}")
        return {letter: math.log(count / len(texts)) for letter, count in counts.items()}

    async def _draw(self, prompt: ChatPrompt, n: int) -> list[str]:
        """Up to `n` answers, drawn from the model's own distribution."""
        body: dict[str, Any] = {"temperature": 1, "top_p": 1} | ({"n": n} if n > 1 else {})
        choices = await self._chat(prompt, body, self._sample_tokens, n)
        return [str((choice.get("message") or {}).get("content") or "") for choice in choices[:n]]

    async def reply(self, prompt: ChatPrompt, tokens: int) -> str:
        """The model's likeliest answer in free text.

        Raises PairError when the server refuses the prompt, or when the answer has more than so many tokens.
        """
        before = self.capabilities
        try:
            choice = await self._reply(prompt, tokens)
        except _Refused as refusal:
            if self._replied:  # then it is the prompt that is refused, not the request's form
                raise
            self.capabilities = replace(before, limit_field=LIMIT_FIELDS[1])
            try:
                choice = await self._reply(prompt, tokens)
            except _Refused:
                self.capabilities = before
                raise refusal from None
        self._replied = True
        if choice.get("finish_reason") == "length":
            raise PairError(f"the model's answer is longer than {tokens:,} tokens")
        return str((choice.get("message") or {}).get("content") or "")

    async def _reply(self, prompt: ChatPrompt, tokens: int) -> Any:
        # The models that want the newer name for the limit refuse every temperature but their own, too.
        body = {"temperature": 0} if self.capabilities.limit_field == LIMIT_FIELDS[0] else {}
        return (await self._chat(prompt, body, tokens))[0]

    @property
    def _sample_tokens(self) -> int:
        """Most tokens of a drawn answer; `request` may allow more, for a model that must think."""
        given = [self._config.request.get(name, 0) for name in LIMIT_FIELDS]
        return max(SAMPLE_TOKENS, *(value for value in given if isinstance(value, int)))

    async def _chat(self, prompt: ChatPrompt, body: Mapping[str, Any], tokens: int, n: int = 1) -> list[Any]:
        user = "".join(segment.text for segment in prompt.user)
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": user}]
        body = {"messages": messages, self.capabilities.limit_field: tokens, **body}
        return self._choices(await self._post("/chat/completions", body, characters(prompt), tokens * n))

    def _choices(self, answer: Any) -> list[Any]:
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not choices:
            raise JudgeError(f"{self._who} answered without choices: {str(answer)[:200]}")
        return list(choices)

    def calls_and_tokens(self, prompt_characters: Sequence[int]) -> tuple[int, tuple[int, int]]:
        """Calls, and prompt and completion tokens at most, for prompts of these lengths."""
        samples = self._config.samples or 1
        repeated = 1 if self.capabilities.several else samples
        prompts = sum(map(self.bill.estimate, prompt_characters)) * repeated
        answers = len(prompt_characters) * samples * (self._sample_tokens if self._config.samples else 1)
        return len(prompt_characters) * repeated, (prompts, answers)

    def paying(self, prompt_characters: Sequence[int]) -> AbstractAsyncContextManager[None]:
        """Set aside what a pair may cost, whose prompts have these lengths. Raises CostLimit."""
        return self.bill.hold(self.bill.price(*self.calls_and_tokens(prompt_characters)[1]))

    async def check_health(self) -> None:
        """Check that the server answers. Raises JudgeUnavailable otherwise."""
        await self._call("GET", "/models")

    async def models(self) -> list[str]:
        """Names of the models that the server lists."""
        return [str(one["id"]) for one in (await self._call("GET", "/models")).get("data") or []]

    def shutdown(self) -> None:
        """Keep the bill; the connections close with the process."""
        self.bill.save()

    async def _post(self, path: str, body: Mapping[str, Any], length: int, completion: int) -> Any:
        """The answer of a paid request, repeated while the server is busy. length: of its prompt, in characters."""
        body = {"model": self._config.model, **body, **self._config.request}
        began, pause = time.monotonic(), 0.25
        async with self._limit:
            while True:
                await asyncio.sleep(max(0.0, self._resume_at - time.monotonic()))
                try:
                    answer = await self._call("POST", path, body)
                except asyncio.CancelledError:
                    self.bill.charge(length, completion, None)  # the server has it and may bill it, as below
                    raise
                except _AnswerLost as error:
                    self.bill.charge(length, completion, None)
                    failure: JudgeBusy | JudgeUnavailable = error
                except (JudgeBusy, JudgeUnavailable) as error:
                    failure = error
                else:
                    self._answered = time.monotonic()
                    self.bill.charge(length, completion, answer.get("usage") if isinstance(answer, dict) else None)
                    return answer
                # Half of the pause is random, so that requests refused together do not return together.
                wait = failure.retry_after + pause * (0.5 + random.random() / 2)
                now = time.monotonic()
                if now + wait > max(began, self._answered) + self.patience:
                    raise failure
                self._resume_at = max(self._resume_at, now + failure.retry_after)
                await asyncio.sleep(wait)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            response = await self._client.request(method, path, json=body)
        except httpx.ReadTimeout as error:
            raise _AnswerLost(f"{self._who} did not answer in time") from error
        except httpx.TransportError as error:
            raise JudgeUnavailable(f"{self._who} does not answer ({error or type(error).__name__})") from error
        if response.status_code in _REFUSED:  # the server knows the model, but refused this prompt
            refusal = problem(response)
            shown = refusal.replace(self._key, "***") if self._key else refusal
            raise _Refused(f"the endpoint refused the prompt: {shown}")
        return checked(response, self._who, self._key)


class _Refused(PairError):
    """The server refused the request itself."""


class _AnswerLost(JudgeUnavailable):
    """The request was sent and no answer came."""


USE_SAMPLES = (
    "Draw answers instead with --judge-samples 10 (`samples` in the judge's configuration), at ten times the calls, "
    "or name a server that gives log-probabilities"
)


def pieces(text: str) -> list[tuple[int, int]]:
    """(start, end) of what stands for a token of an unknown tokenizer."""
    return [piece.span() for piece in _PIECES.finditer(text)]


def probe_prompt(config: JudgeConfig) -> ChatPrompt:
    """A prompt like the real ones."""
    profile = profile_text(PROBE_APPLICANT, config.profile_limit, pieces)
    posting = job_text(PROBE_JOB, config.job_limit, pieces)
    return configured_prompt(config, profile, posting)


def characters(prompt: ChatPrompt) -> int:
    """Length of a prompt."""
    return len(prompt.system) + sum(len(segment.text) for segment in prompt.user)


def _distinct(refusals: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(refusals))


def _best(tokens: Sequence[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for token, logprob in tokens:
        if token in LETTERS and math.isfinite(logprob):
            found[token] = max(logprob, found.get(token, -math.inf))
    return found


def _offsets(tokens: Sequence[str], prompt: str) -> list[int] | None:
    """Where each token begins in the prompt, from the tokens' texts; None when they are not the prompt's."""
    start = "".join(tokens).find(prompt)  # a start-of-text token may precede it
    if start < 0:
        return None
    ends = accumulate(map(len, tokens))
    return [end - len(token) - start for token, end in zip(tokens, ends, strict=True)]


async def served_model(endpoint: str) -> str:
    """The only model that the server lists. Raises InputError when it lists none, or several."""
    engine = OpenAIEngine(JudgeConfig(endpoint=endpoint, model="?"))
    listed = await engine.models()
    if not listed:
        raise InputError(f"{engine._who} serves no model")
    if len(listed) > 1:
        some = ", ".join(listed[:5]) + (", …" if len(listed) > 5 else "")
        raise InputError(
            f"{engine._who} serves {len(listed)} models ({some}); name one after a #: {mask_uri(endpoint)}#MODEL"
        )
    return listed[0]
