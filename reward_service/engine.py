"""The engine interface of the judging methods, and its implementation by vLLM's AsyncLLM.

Two queries are enough: the log-probability of a continuation, token by token, and that of each letter as the next
token.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
import math
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import joblib
from cachetools import LRUCache

from dynaq.errors import InputError, JudgeError
from reward_service.config import JudgeConfig
from reward_service.errors import JudgeUnavailable
from reward_service.model import resolve_model
from reward_service.prompts import LETTERS, ChatPrompt
from reward_service.vllm_version import check_vllm

# The smallest block on CPU. Only whole blocks are shared, and vLLM's default of 128 is longer than most of our prompts.
BLOCK_SIZE = 32
ASKED_KEPT = 65_536  # recent continuations, which the prefix cache may hold
# Placeholder of a segment while the chat template is rendered; `neutralise` removes this character from texts.
_FIELD = "\ue000{}\ue000"


class PairError(Exception):
    """The engine works, but cannot answer this prompt; the pair becomes an abstention."""


class Engine(Protocol):
    """A language model as the judging methods see it. All log-probabilities are natural logarithms."""

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """(start, end) of each token of `text`."""
        ...

    async def continuation(self, prefix: str, text: str) -> list[float]:
        """Log-probability of each token of `text` after `prefix`. Raises PairError, JudgeUnavailable."""
        ...

    async def letters(self, prompt: ChatPrompt) -> dict[str, float]:
        """Log-probability, over the whole vocabulary, of each letter as the first token of the answer.

        Raises PairError, JudgeUnavailable.
        """
        ...

    async def check_health(self) -> None:
        """Check that the model can answer. Raises JudgeUnavailable otherwise."""
        ...

    def shutdown(self) -> None:
        """Release the model; the engine cannot be used afterwards."""
        ...


class Tokens:
    """Turns prompts into token ids such that untrusted text never becomes a special token.

    Untrusted text goes to a copy of the tokenizer's Rust part that knows no special tokens: transformers' call around
    it takes several times as long for a short text. Raises InputError for a tokenizer without that part.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise InputError(
                f"the model's tokenizer, {type(tokenizer).__name__}, does not say where in a text its tokens are; use "
                "a model that has a tokenizer.json, or serve this one and give its URL to --judge (docs/judges.md)"
            )
        self._splitter = copy.deepcopy(backend)
        self._splitter.encode_special_tokens = True  # as characters
        self._splitter.no_truncation()
        self._splitter.no_padding()
        self._plain = lru_cache(maxsize=65_536)(self._encode_plain)
        self._marked = lru_cache(maxsize=1024)(self._encode_marked)

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """(start, end) of each token of a text, in characters."""
        spans: list[tuple[int, int]] = self._splitter.encode(text, add_special_tokens=False).offsets
        return spans

    def untrusted(self, text: str) -> tuple[int, ...]:
        """Ids of untrusted text, in which a marker of the chat template is encoded as plain characters."""
        return self._plain(text)

    def _encode_plain(self, text: str) -> tuple[int, ...]:
        return tuple(self._splitter.encode(text, add_special_tokens=False).ids)

    def trusted(self, text: str) -> tuple[int, ...]:
        """Ids of our own text, in which a marker of the chat template is encoded as its special token."""
        return self._marked(text)

    def _encode_marked(self, text: str) -> tuple[int, ...]:
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
        """The token id of each letter at the start of the answer.

        Raises InputError when a letter is not a single token there, or two letters share one; `choice` cannot be used
        with such a model.
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
    """vLLM in this process's event loop; its core is a separate process, and so are workers on several GPUs.

    Create it inside a running event loop, in which the engine's output handler then runs.
    """

    def __init__(self, config: JudgeConfig) -> None:
        check_vllm()
        _set_environment(config)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

        self._llm = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=resolve_model(config.model),
                dtype=compute_dtype(config),  # type: ignore[arg-type]
                quantization=config.quantization,
                tensor_parallel_size=config.tensor_parallel_size,
                distributed_executor_backend=executor(config),
                gpu_memory_utilization=config.gpu_memory_utilization,
                max_model_len=config.max_model_len,
                max_num_seqs=config.max_ongoing_requests,
                block_size=BLOCK_SIZE,
                enable_prefix_caching=config.prefix_caching,
                worker_cls="reward_service.vllm_cpu_worker.ScoringWorker" if _on_cpu() else "auto",
                enforce_eager=_on_cpu(),  # compiling takes a minute on CPU and does not speed up a small model
                enable_log_requests=False,
                generation_config="vllm",
            ),
            stat_loggers=[RayPrometheusStatLogger],  # vLLM's metrics (tokens, cache hits, queue) beside the judge's
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
        """Run the slow first requests, and check that a cached prefix does not change the continuation's values.

        If it does, as another model runner of vLLM might cause, the prefix cache is not read.
        """
        before = self._tokens.untrusted("Skills: Java, Python, SQL, project management, first aid, welding. " * 4)[:40]
        after = self._tokens.untrusted(" software developer\n")
        reads, self._reads_cache = self._reads_cache, False
        plain = await self._logprobs(before, after)
        self._reads_cache = reads
        cached = await self._logprobs(before, after)
        if any(abs(a - b) > 0.1 for a, b in zip(plain, cached, strict=True)):
            logging.getLogger(__name__).warning(
                "cached prefixes change this engine's log-probabilities; the prefix cache is not read"
            )
            self._reads_cache = False

    async def continuation(self, prefix: str, text: str) -> list[float]:
        """Log-probability of each token of `text` after `prefix`. Raises PairError, JudgeUnavailable."""
        return await self._logprobs(self._tokens.untrusted(prefix), self._tokens.untrusted(text))

    async def _logprobs(self, before: Sequence[int], after: Sequence[int]) -> list[float]:
        ids = [*before, *after]
        # vLLM leaves the log-probabilities of cached tokens undefined, and by default does not read the cache when they
        # are requested. Here only the continuation's are needed, so the prefix may come from the cache. If the cache
        # may hold more (the same pair was asked before), it is not read; if it did serve more, the prompt is run again
        # without it.
        skip = not self._reads_cache or self._was_asked(ids)
        output = await self._score(ids, len(before), skip)
        if (output.num_cached_tokens or 0) >= len(before):
            output = await self._score(ids, len(before), skip_cache=True)
        scored = output.prompt_logprobs
        # Counted from the end: vLLM's newer model runner, the usual one on GPUs, leaves cached tokens out of the list.
        values = [scored.logprobs[scored.start_indices[i]] for i in range(-len(after), 0)]
        if not all(math.isfinite(value) for value in values):
            raise PairError("the model gave no finite probability to the text")
        return values

    def _was_asked(self, ids: list[int]) -> bool:
        """Whether exactly these tokens were requested before; remembers them."""
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
            # `type` marks the prompt as token ids, so that vLLM does not look for text to tokenise.
            prompt: Any = {"type": "token", "prompt_token_ids": ids}
            async for output in self._llm.generate(prompt, params, request_id=str(next(self._ids))):
                last = output
        except EngineDeadError as error:
            raise JudgeUnavailable("the judge's engine died and is being replaced; try again") from error
        except EngineGenerateError as error:
            raise JudgeError(f"the judge's engine failed: {error}") from error
        except ValueError as error:  # vLLM's own validation, e.g. a prompt that is too long
            raise PairError(str(error)) from error
        if last is None:
            raise PairError("the engine gave no output")
        return last

    async def check_health(self) -> None:
        """Check that the engine is alive. Raises JudgeUnavailable if it died."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            await self._llm.check_health()
        except EngineDeadError as error:
            raise JudgeUnavailable("the judge's engine died and is being replaced; try again") from error

    def shutdown(self) -> None:
        """Stop the engine's processes and free its memory."""
        self._llm.shutdown()


def executor(config: JudgeConfig) -> str | None:
    """vLLM's executor: workers in processes of their own only where there are several of them.

    On CPU vLLM starts one even for a single worker, replacing "uni" by "mp": 0.8 GiB and 15 s of CPU time more, and
    threads bound to cores, which on a busy machine wait for them (bench/judge.md). A path is not replaced.
    """
    if config.tensor_parallel_size > 1:
        return "mp"
    return "vllm.v1.executor.uniproc_executor.UniProcExecutor" if _on_cpu() else None


def compute_dtype(config: JudgeConfig) -> str:
    """As configured, but float32 on a CPU without bfloat16 instructions, where it is five times faster and as exact.

    The weights are the configured ones; only the arithmetic differs, as it does between any two devices.
    """
    import torch

    slow = _on_cpu() and not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return "float32" if slow and config.dtype == "bfloat16" else config.dtype


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _set_environment(config: JudgeConfig) -> None:
    """Set vLLM's environment variables, before vLLM is imported. Values set by the user are kept."""
    defaults = {
        "HF_HUB_OFFLINE": "1" if config.model is None or os.path.isdir(config.model) else "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_CPU_KVCACHE_SPACE": str(config.kv_cache_gib),
        # By default vLLM keeps a core free, which makes it 1.7 times slower on two cores.
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    }
    if _on_cpu():
        # Inherited by the engine's process. A prompt's log-probabilities are tensors of many megabytes, which fragment
        # glibc's heap: it grew by 600 MiB in a minute of load. With a mapping of its own, each tensor's memory is
        # returned, and huge pages make mapping cheap (measured in bench/judge.md). Other libcs ignore these.
        defaults["MALLOC_MMAP_THRESHOLD_"] = str(16 << 20)
        defaults["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        # Ray allows a replica one thread for each of its `num_cpus`.
        cores = joblib.cpu_count(only_physical_cores=True)
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores // (config.max_replicas or config.replicas)))
    if config.replicas > 1 or config.max_replicas:
        defaults["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # with binding, all replicas would use the same cores
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("TRANSFORMERS_OFFLINE", os.environ["HF_HUB_OFFLINE"])


async def wait_for_all(coroutines: Sequence[Any]) -> list[Any]:
    """`asyncio.gather` that cancels the rest when one raises, so that a failed call leaves no work in the engine."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
