"""What `bench.judge` sets beside the service, in processes of their own: transformers and bare vLLM."""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import cycle
from multiprocessing import get_context
from typing import Any

import psutil

from dynaq.markets import esco_market
from dynaq.records import Candidate, Job
from reward_service.config import JudgeConfig

APPLICANTS, JOBS_EACH = 8, 12
SHARED_GPU = 0.4  # of a GPU's memory, for bare vLLM and for the service beside it

Pairs = list[tuple[Candidate, list[Job]]]


def the_pairs() -> Pairs:
    """Every applicant with the same number of jobs, spread over the catalogue."""
    market = esco_market(applicants=APPLICANTS)
    jobs = market.jobs
    return [
        (applicant, [jobs[(i * 37 + k * 11) % len(jobs)] for k in range(JOBS_EACH)])
        for i, applicant in enumerate(market.applicants)
    ]


def marked(pairs: Pairs, word: str, count: int) -> Pairs:
    """So many pairs in calls of an applicant each, with other texts: one word heads every profile and title.

    The amount of work stays the same, and nothing that an earlier round left behind, prefix cache or baseline, answers
    a part of it.
    """
    calls: Pairs = []
    for i, (applicant, jobs) in enumerate(cycle(pairs)):
        if count <= 0:
            break
        head = f"{word}.{i // len(pairs)}"
        some = [job.model_copy(update={"title": f"{head} {job.title}"}) for job in jobs[:count]]
        calls.append((applicant.model_copy(update={"bio": f"{head}. {applicant.bio}"}), some))
        count -= len(some)
    return calls


def prompts(config: JudgeConfig, tokens: Any, pairs: Pairs) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of every pair's prompt, and for `likelihood` of every job's baseline."""
    from reward_service.prompts import CONTENT_FREE, configured_prompt, job_text, likelihood_prefix, likelihood_suffix
    from reward_service.prompts import profile_text as profile_of

    given: list[list[int]] = []
    baseline: dict[str, list[int]] = {}
    for applicant, jobs in pairs:
        profile = profile_of(applicant, config.profile_limit, tokens.offsets)
        for job in jobs:
            text = job_text(job, config.job_limit, tokens.offsets, description=config.method_name == "choice")
            if config.method_name == "likelihood":
                suffix = likelihood_suffix(text)
                given.append([*tokens.untrusted(likelihood_prefix(profile)), *tokens.untrusted(suffix)])
                baseline[suffix] = [*tokens.untrusted(CONTENT_FREE), *tokens.untrusted(suffix)]
            else:
                given.append(tokens.chat(configured_prompt(config, profile, text)))
    return given, list(baseline.values())


class Transformers:
    """One pair at a time: a generated letter, or the likelihood by two forward passes."""

    def __init__(self, model_name: str | None) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from reward_service.engine import Tokens, compute_dtype
        from reward_service.model import resolve_model

        path, self._device = resolve_model(model_name), "cuda" if torch.cuda.is_available() else "cpu"
        dtype = getattr(torch, compute_dtype(JudgeConfig(model=model_name)))
        self._model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(self._device)
        self._tokens = Tokens(AutoTokenizer.from_pretrained(path))

    def seconds(self, method: Any, pairs: Pairs) -> float:
        """Seconds for the pairs, without their tokenisation."""
        import torch

        given, baselines = prompts(JudgeConfig(method=method), self._tokens, pairs)
        began = time.perf_counter()
        with torch.inference_mode():
            for ids in given + baselines:
                each = torch.tensor([ids], device=self._device)
                if method == "likelihood":
                    self._model(each).logits.float().log_softmax(-1).cpu()
                else:
                    mask = torch.ones_like(each)
                    self._model.generate(each, max_new_tokens=1, do_sample=False, attention_mask=mask)
        return time.perf_counter() - began


class BareVllm:
    """`LLM.generate` on the prompts of the service."""

    def __init__(self, model_name: str | None) -> None:
        from reward_service.engine import BLOCK_SIZE, Tokens, _on_cpu, _set_environment, compute_dtype, executor
        from reward_service.model import resolve_model

        config = JudgeConfig(model=model_name, method="likelihood")
        _set_environment(config)
        from vllm import LLM

        self._llm = LLM(
            resolve_model(model_name),
            dtype=compute_dtype(config),
            distributed_executor_backend=executor(config),
            gpu_memory_utilization=SHARED_GPU,
            max_model_len=config.max_model_len,
            max_num_seqs=config.max_ongoing_requests,
            block_size=BLOCK_SIZE,
            enable_prefix_caching=True,
            enforce_eager=_on_cpu(),
        )
        self._tokens = Tokens(self._llm.get_tokenizer())
        self._letters = list(self._tokens.letter_ids("ABCD").values())

    def seconds(self, method: Any, pairs: Pairs, *, jobs_known: bool = False) -> float:
        """Seconds for the pairs, without their tokenisation; without the jobs' baselines where they are known."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        given, baselines = prompts(JudgeConfig(method=method), self._tokens, pairs)
        ask: dict[str, Any] = {"logprob_token_ids": self._letters}
        if method == "likelihood":
            ask = {"prompt_logprobs": 0, "skip_reading_prefix_cache": False}
        params = SamplingParams(temperature=0, max_tokens=1, detokenize=False, **ask)
        ids = given if jobs_known else given + baselines
        began = time.perf_counter()
        self._llm.generate([TokensPrompt(prompt_token_ids=each) for each in ids], params, use_tqdm=False)
        return time.perf_counter() - began


class Peer:
    """One of the two above in a process of its own. Its calls are `seconds`."""

    def __init__(self, kind: type, model_name: str | None) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_answer, args=(theirs, kind, model_name))
        self._process.start()
        theirs.close()  # so that its death ends our recv
        self._pipe.recv()

    def seconds(self, method: str, pairs: Pairs, **options: Any) -> float:
        """Seconds for the pairs, as measured there."""
        self._pipe.send((method, pairs, options))
        return float(self._pipe.recv())

    def pids(self) -> set[int]:
        """The processes of this peer."""
        return {self._process.pid or 0, *(child.pid for child in psutil.Process(self._process.pid).children(True))}

    def close(self) -> None:
        """End it, and its engine with it; nothing if that was done before."""
        self._pipe.close()
        if self._process.is_alive():
            # Left to itself it waits at its end for vLLM's engine, which nobody has told to end.
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(self._process.pid).children(True):
                    child.kill()
            self._process.kill()
        self._process.join()


def _answer(pipe: Any, kind: type, model_name: str | None) -> None:
    peer = kind(model_name)
    pipe.send("ready")
    while True:
        method, pairs, options = pipe.recv()
        pipe.send(peer.seconds(method, pairs, **options))
