"""What a judging method asks of a language model, and vLLM's AsyncLLM behind it.

Two questions are enough: how likely is this continuation, token by token, and how likely is each of these letters as
the next token.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

from cachetools import LRUCache

from dynaq.errors import InputError, JudgeError
from reward_service.config import JudgeConfig
from reward_service.errors import JudgeUnavailable
from reward_service.model import resolve_model
from reward_service.prompts import LETTERS, ChatPrompt

BLOCK_SIZE = (
    32  # the smallest on CPU; vLLM's default of 128 is longer than most of our prompts, which then share nothing
)
ASKED_KEPT = 65_536  # continuations known to be in the prefix cache, or to have been
_FIELD = (
    "\ue000{}\ue000"  # stands for a segment while the chat template is rendered; `neutralise` removes this character
)


class PairError(Exception):
    """The engine is well but this one prompt cannot be answered: the pair becomes an abstention."""


class Engine(Protocol):
    """A language model as the judging methods see it. All log-probabilities are natural logarithms."""

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """(start, end) of each token of `text`."""
        ...

    async def continuation(self, prefix: str, text: str) -> list[float]:
        """Log-probability of each token of `text` after `prefix`. Raises PairError, JudgeUnavailable."""
        ...

    async def letters(self, prompt: ChatPrompt) -> dict[str, float]:
        """Log-probability over the whole vocabulary of each letter as the first token of the answer."""
        ...

    async def check_health(self) -> None:
        """Raises JudgeUnavailable when the model cannot answer any more."""
        ...

    def shutdown(self) -> None:
        """Release the model. It answers nothing afterwards."""
        ...


class Tokens:
    """Turns prompts into token ids so that no untrusted text becomes a special token."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._plain = lru_cache(maxsize=65_536)(self._encode_plain)

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """(start, end) of each token of a text, in characters."""
        encoded = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        spans: list[tuple[int, int]] = encoded["offset_mapping"]
        return spans

    def untrusted(self, text: str) -> tuple[int, ...]:
        """Ids of text in which a marker of the chat template is spelled out, never the marker's own id."""
        return self._plain(text)

    def _encode_plain(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def trusted(self, text: str) -> tuple[int, ...]:
        """Ids of our own text, in which a marker of the chat template is that marker."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def chat(self, prompt: ChatPrompt) -> list[int]:
        """The rendered chat template with each untrusted segment encoded on its own."""
        user = "".join(s.text if s.trusted else _FIELD.format(i) for i, s in enumerate(prompt.user))
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": user}]
        rendered = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids: list[int] = []
        for k, piece in enumerate(rendered.split(_FIELD[0])):
            ids += self.trusted(piece) if k % 2 == 0 else self.untrusted(prompt.user[int(piece)].text)
        return ids

    def letter_ids(self, letters: Sequence[str]) -> dict[str, int]:
        """The one token of each letter at the head of the answer.

        Raises InputError when a letter is not one token there, or two letters share one: the model cannot be asked
        for letters then.
        """
        probe = ChatPrompt("s", (), {})
        head = self.chat(probe)
        found: dict[str, int] = {}
        for letter in letters:
            ids = self.trusted(self._render(probe) + letter)
            if list(ids[:-1]) != head or ids[-1] in found.values():
                raise InputError(
                    f"method choice: letter {letter!r} is not one distinct token at the head of this model's answer; "
                    "use method likelihood"
                )
            found[letter] = ids[-1]
        return found

    def _render(self, prompt: ChatPrompt) -> str:
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": ""}]
        rendered: str = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return rendered


class VllmEngine:
    """vLLM in this process's event loop; its core and workers are processes of their own.

    Build it inside a running loop: the engine's output handler lives there.
    """

    def __init__(self, config: JudgeConfig) -> None:
        _set_environment(config)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

        self._llm = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=resolve_model(config.model),
                dtype=config.dtype,  # type: ignore[arg-type]
                quantization=config.quantization,
                tensor_parallel_size=config.tensor_parallel_size,
                distributed_executor_backend="mp" if config.tensor_parallel_size > 1 else None,
                gpu_memory_utilization=config.gpu_memory_utilization,
                max_model_len=config.max_model_len,
                max_num_seqs=config.max_ongoing_requests,
                block_size=BLOCK_SIZE,
                enable_prefix_caching=config.prefix_caching,
                worker_cls="reward_service.vllm_cpu_worker.ScoringWorker" if _on_cpu() else "auto",
                enforce_eager=_on_cpu(),  # compiling costs a CPU a minute and gains a small model nothing
                enable_log_requests=False,
                generation_config="vllm",
            ),
            stat_loggers=[RayPrometheusStatLogger],  # tokens, cache hits and queue beside the judge's own metrics
        )
        self._tokens = Tokens(self._llm.get_tokenizer())
        self._letters = self._tokens.letter_ids(LETTERS) if config.method_name == "choice" else {}
        self._ids = itertools.count()
        self._reads_cache = config.prefix_caching
        self._asked: LRUCache[int, None] = LRUCache(ASKED_KEPT)

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """(start, end) of each token of a text, in characters."""
        return self._tokens.offsets(text)

    async def warm_up(self) -> None:
        """Pay for the first requests, and make sure that cached prefixes leave the continuation's values right.

        Where they do not (another model runner than the one this was written with), the cache is not read.
        """
        before = self._tokens.untrusted("Skills: Java, Python, SQL, project management, first aid, welding. " * 4)[:40]
        after = self._tokens.untrusted(" software developer\n")
        reads, self._reads_cache = self._reads_cache, False
        plain = await self._logprobs(before, after)
        self._reads_cache = reads
        cached = await self._logprobs(before, after)
        if any(abs(a - b) > 0.1 for a, b in zip(plain, cached, strict=True)):
            logging.getLogger(__name__).warning(
                "this engine's cached prefixes change log-probabilities; not reading them"
            )
            self._reads_cache = False

    async def continuation(self, prefix: str, text: str) -> list[float]:
        """Log-probability of each token of `text` after `prefix`. Raises PairError, JudgeUnavailable."""
        return await self._logprobs(self._tokens.untrusted(prefix), self._tokens.untrusted(text))

    async def _logprobs(self, before: Sequence[int], after: Sequence[int]) -> list[float]:
        ids = [*before, *after]
        # vLLM leaves the log-probabilities of cached tokens undefined, and by default reads no cache when they are
        # asked for. Only the continuation's matter here, so the cache may serve the prefix. Where it would serve more
        # (the same pair asked twice), it is not read; where it happened to, the prompt is run again without it.
        skip = not self._reads_cache or self._was_asked(ids)
        output = await self._score(ids, len(before), skip)
        if (output.num_cached_tokens or 0) >= len(before):
            output = await self._score(ids, len(before), skip_cache=True)
        scored = output.prompt_logprobs
        values = [scored.logprobs[scored.start_indices[i]] for i in range(len(before), len(ids))]
        if not all(math.isfinite(value) for value in values):
            raise PairError("the model gave no finite probability to the text")
        return values

    def _was_asked(self, ids: list[int]) -> bool:
        """Whether these very tokens were asked for before; from now on they were."""
        key = hash(tuple(ids))
        known = key in self._asked
        self._asked[key] = None
        return known

    async def _score(self, ids: list[int], start: int, skip_cache: bool) -> Any:
        return await self._run(
            ids,
            prompt_logprobs=0,
            flat_logprobs=True,
            skip_reading_prefix_cache=skip_cache,
            extra_args={"score_from": start},
        )

    async def letters(self, prompt: ChatPrompt) -> dict[str, float]:
        """Log-probability of each letter as the first token. Raises PairError, JudgeUnavailable."""
        self._letters = self._letters or self._tokens.letter_ids(LETTERS)
        ids = list(self._letters.values())
        output = await self._run(self._tokens.chat(prompt), allowed_token_ids=ids, logprob_token_ids=ids)
        row = output.outputs[0].logprobs[0]
        return {letter: row[token].logprob for letter, token in self._letters.items()}

    async def _run(self, ids: list[int], **sampling: Any) -> Any:
        from vllm import SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        params = SamplingParams(temperature=0, max_tokens=1, detokenize=False, **sampling)
        last = None
        try:
            # `type` marks the prompt as rendered: vLLM then does not look for text to tokenise.
            prompt: Any = {"type": "token", "prompt_token_ids": ids}
            async for output in self._llm.generate(prompt, params, request_id=str(next(self._ids))):
                last = output
        except EngineDeadError as error:
            raise JudgeUnavailable("the judge's engine died and is being replaced; ask again") from error
        except EngineGenerateError as error:
            raise JudgeError(f"the judge's engine failed: {error}") from error
        except ValueError as error:  # vLLM's own validation, e.g. a prompt that is too long
            raise PairError(str(error)) from error
        if last is None:
            raise PairError("the engine gave no output")
        return last

    async def check_health(self) -> None:
        """Raises JudgeUnavailable when the engine died."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            await self._llm.check_health()
        except EngineDeadError as error:
            raise JudgeUnavailable("the judge's engine died and is being replaced; ask again") from error

    def shutdown(self) -> None:
        """Stop the engine's processes and free its memory."""
        self._llm.shutdown()


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _set_environment(config: JudgeConfig) -> None:
    """Before vLLM is imported. What a user has set stays."""
    defaults = {
        "HF_HUB_OFFLINE": "1" if config.model is None or os.path.isdir(config.model) else "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_CPU_KVCACHE_SPACE": str(config.kv_cache_gib),
        # vLLM keeps a core free for itself, which is half of a small machine: 1.7 times slower on two cores.
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    }
    if _on_cpu():
        # The engine's process is given these at its start. A prompt's log-probabilities are tensors of many megabytes,
        # and glibc's heap is left with holes where they were: 600 MiB more in a minute of load. Mapped on their own
        # they are given back, and huge pages make mapping cheap (measured: bench/judge.md). Ignored by other libcs.
        defaults["MALLOC_MMAP_THRESHOLD_"] = str(16 << 20)
        defaults["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    if config.replicas > 1 or config.max_replicas:
        defaults["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # bound, every replica would take the same cores
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // (config.max_replicas or config.replicas)))
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("TRANSFORMERS_OFFLINE", os.environ["HF_HUB_OFFLINE"])


async def wait_for_all(coroutines: Sequence[Any]) -> list[Any]:
    """gather that cancels the rest when one raises, so that a failed call leaves no work behind in the engine."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
