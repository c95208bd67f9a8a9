"""The judge beside what it is built on, in one run: `python -m bench.judge` (about six minutes on two cores).

The same pairs of ESCO's market go through transformers one at a time, through bare vLLM (`LLM.generate`) with and
without its prefix cache, and through the service over HTTP; then latency of a single warm pair and 200 callers for
`--seconds`; two replicas where there are four cores, or a GPU, of which each takes a half. Nothing fails: the figures
are printed, with the aims beside them. Each rate is the best of REPETITIONS, with empty caches. `--model NAME` measures
another model, on a GPU if there is one.

A single pair is warm when its profile and its job have been met, but not together: what is measured is the engine's
work on a new pair, on both sides.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import httpx
import psutil

from cluster.session import ray_session
from dynaq.markets import esco_market
from dynaq.records import Candidate, Job
from reward_service.check import METHODS
from reward_service.config import JudgeConfig

APPLICANTS, JOBS_EACH = 8, 12
TRANSFORMERS_PAIRS = 16
CONCURRENT_CALLERS = 200
REPETITIONS = 3
PORT = 8713
ROLES = {  # by a word in a process's title
    "VLLM": "vLLM's engine",
    "ServeReplica:judge:judge": "the judge's replica",
    "ServeReplica:judge:api": "the API",
    "ProxyActor": "Serve's proxy",
    "ServeController": "Serve's controller",
}

Pairs = list[tuple[Candidate, list[Job]]]


def the_pairs() -> Pairs:
    """Every applicant with the same number of jobs, spread over the catalogue."""
    market = esco_market(applicants=APPLICANTS)
    jobs = market.jobs
    return [
        (applicant, [jobs[(i * 37 + k * 11) % len(jobs)] for k in range(JOBS_EACH)])
        for i, applicant in enumerate(market.applicants)
    ]


def new_pairs(pairs: Pairs) -> list[tuple[Candidate, Job]]:
    """Pairs of applicants and jobs that have been met, each for the first time together."""
    shifted = [(pairs[i][0], pairs[(i + k) % APPLICANTS][1]) for k in (1, 2, 3) for i in range(APPLICANTS)]
    return [(applicant, job) for n, (applicant, jobs) in enumerate(shifted) for job in jobs[n % 6 : n % 6 + 2]]


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


def with_transformers(model_name: str | None) -> dict[str, float]:
    """Pairs per second, one at a time: a generated letter, and the likelihood by two forward passes."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from reward_service.engine import Tokens, compute_dtype
    from reward_service.model import resolve_model

    path, device = resolve_model(model_name), "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, compute_dtype(JudgeConfig(model=model_name)))
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device)
    tokens = Tokens(AutoTokenizer.from_pretrained(path))
    pairs = [(applicant, jobs[: TRANSFORMERS_PAIRS // APPLICANTS]) for applicant, jobs in the_pairs()]
    rates = {}
    with torch.inference_mode():
        letters, _ = prompts(JudgeConfig(method="choice"), tokens, pairs)

        def generate(ids: list[int]) -> None:
            given = torch.tensor([ids], device=device)
            model.generate(given, max_new_tokens=1, do_sample=False, attention_mask=torch.ones_like(given))

        rates["choice"] = rate(generate, letters)
        given, baselines = prompts(JudgeConfig(method="likelihood"), tokens, pairs)

        def both(ids: tuple[list[int], list[int]]) -> None:
            for each in ids:
                model(torch.tensor([each], device=device)).logits.float().log_softmax(-1).cpu()

        rates["likelihood"] = rate(both, list(zip(given, cycle(baselines), strict=False)))
    return rates


def rate(call: Callable[[Any], None], items: list[Any]) -> float:
    """Items per second after one to warm up."""
    call(items[0])
    began = time.perf_counter()
    for item in items:
        call(item)
    return len(items) / (time.perf_counter() - began)


def bare_vllm(model_name: str | None, *, as_served: bool = False) -> dict[str, float]:
    """Pairs per second of `LLM.generate` on the same prompts, with and without reading the prefix cache.

    as_served: with the service's executor instead of the one that vLLM chooses.
    """
    from reward_service.engine import BLOCK_SIZE, Tokens, _on_cpu, _set_environment, compute_dtype, executor
    from reward_service.model import resolve_model

    config = JudgeConfig(model=model_name, method="likelihood")
    _set_environment(config)
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    llm = LLM(
        resolve_model(model_name),
        dtype=compute_dtype(config),
        distributed_executor_backend=executor(config) if as_served else None,
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_ongoing_requests,
        block_size=BLOCK_SIZE,
        enable_prefix_caching=True,
        enforce_eager=_on_cpu(),
    )
    tokens = Tokens(llm.get_tokenizer())
    pairs = the_pairs()
    letters = list(tokens.letter_ids("ABCD").values())

    def run(ids: list[list[int]], **sampling: Any) -> float:
        params = SamplingParams(temperature=0, max_tokens=1, detokenize=False, **sampling)
        began = time.perf_counter()
        llm.generate([TokensPrompt(prompt_token_ids=each) for each in ids], params, use_tqdm=False)
        return time.perf_counter() - began

    found = {}
    for method in METHODS:
        given, baselines = prompts(JudgeConfig(method=method), tokens, marked(pairs, "0"))
        ask = {"prompt_logprobs": 0} if method == "likelihood" else {"logprob_token_ids": letters}
        run(given[:8], **ask)
        for name, skip in (("cached", False), ("uncached", True)):
            times = []
            for _ in range(REPETITIONS):
                llm.reset_prefix_cache()
                times.append(run(given + baselines, skip_reading_prefix_cache=skip, **ask))
            found[f"{method} {name}"] = len(given) / min(times)
    # The profiles are in the cache; each pair of them is new.
    singles, _ = prompts(config, tokens, [(applicant, [job]) for applicant, job in new_pairs(pairs)])
    llm.reset_prefix_cache()
    run(prompts(config, tokens, pairs)[0], prompt_logprobs=0, skip_reading_prefix_cache=False)
    each = [run([ids], prompt_logprobs=0, skip_reading_prefix_cache=False) for ids in singles]
    found["single ms"] = 1000 * statistics.median(each)
    return found


def service(model_name: str | None, seconds: float) -> dict[str, Any]:
    """Pairs per second over HTTP, latency of one, and many callers for `seconds`."""
    from reward_service.app import running_judge, start_service, stop_judge
    from reward_service.client import HttpJudge

    pairs = the_pairs()
    found: dict[str, Any] = {}
    with ray_session():
        config = JudgeConfig(model=model_name, method="likelihood")
        url = start_service(config, port=PORT)
        judge = running_judge()
        assert judge is not None
        client = HttpJudge(url)
        client.judge(pairs[0][0], [Job(id="warm", title="warm up")])
        before = cpu_seconds()
        cold = [asyncio.run(all_of(client, marked(pairs, str(i)))) for i in range(REPETITIONS)]
        found["CPU seconds"] = dict((cpu_seconds() - before).most_common())
        found["likelihood"] = max(cold)
        # Every job's baseline is known then; the pairs are new, and others than those of `new_pairs`.
        known = [[(pairs[i][0], pairs[(i + k) % APPLICANTS][1]) for i in range(APPLICANTS)] for k in (4, 5, 6)]
        asyncio.run(all_of(client, pairs))
        found["likelihood, jobs known"] = max(asyncio.run(all_of(client, some)) for some in known)
        found["single ms"] = single_call(client, pairs)
        found["load"] = asyncio.run(load(url, pairs, seconds))
        choice = judge.variant(config, method="choice")
        found["choice"] = max(asyncio.run(all_of(choice, marked(pairs, str(i)))) for i in range(REPETITIONS))
        stop_judge()
        if two := two_replicas(config):
            url = start_service(two, port=PORT)
            client = HttpJudge(url)
            asyncio.run(all_of(client, pairs))
            found["two replicas"] = max(asyncio.run(all_of(client, marked(pairs, str(i)))) for i in range(REPETITIONS))
            stop_judge()
    return found


def two_replicas(config: JudgeConfig) -> JudgeConfig | None:
    """Two replicas with cores or a GPU of their own, or half of the only GPU each; None where there is neither."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus == 1:
        return config.model_copy(update={"replicas": 2, "num_gpus": 0.5, "gpu_memory_utilization": 0.4})
    return config.model_copy(update={"replicas": 2}) if gpus or (os.cpu_count() or 1) >= 4 else None


def marked(pairs: Pairs, word: str) -> Pairs:
    """The same amount of work with other texts: one word at the head of every profile and title is another one.

    Nothing that an earlier round left behind, prefix cache or baseline, answers a part of it.
    """
    return [
        (
            applicant.model_copy(update={"bio": f"{word}. {applicant.bio}"}),
            [job.model_copy(update={"title": f"{word} {job.title}"}) for job in jobs],
        )
        for applicant, jobs in pairs
    ]


async def all_of(judge: Any, pairs: Pairs) -> float:
    """Pairs per second, an applicant per call, all calls at once."""
    began = time.perf_counter()
    await asyncio.gather(*(judge.judge_async(applicant, jobs) for applicant, jobs in pairs))
    return APPLICANTS * JOBS_EACH / (time.perf_counter() - began)


def single_call(client: Any, pairs: Pairs) -> float:
    """Median milliseconds of a call with one warm pair."""
    times = []
    for applicant, job in new_pairs(pairs):
        began = time.perf_counter()
        client.judge(applicant, [job])
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


async def load(url: str, pairs: Pairs, seconds: float) -> dict[str, Any]:
    """One pair per call from every caller, for `seconds`; memory of its processes at the start and the end."""
    statuses: dict[int | str, int] = {}
    everything: Iterator[tuple[Candidate, Job]] = cycle([(a, j) for a, jobs in pairs for j in jobs])
    deadline = time.monotonic() + seconds

    async def caller(client: httpx.AsyncClient) -> None:
        while time.monotonic() < deadline:
            applicant, job = next(everything)
            body = {"applicant": applicant.model_dump(mode="json"), "jobs": [job.model_dump(mode="json")]}
            try:
                response = await client.post(f"{url}/v1/judgements", json=body)
                status: int | str = response.status_code
                if status == 200 and len(response.json()["judgements"]) != 1:
                    status = "unanswered"
                if status == 429:
                    await asyncio.sleep(float(response.headers["Retry-After"]))
            except httpx.HTTPError as error:
                status = type(error).__name__
            statuses[status] = statuses.get(status, 0) + 1

    limits = httpx.Limits(max_connections=CONCURRENT_CALLERS)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        callers = [asyncio.ensure_future(caller(client)) for _ in range(CONCURRENT_CALLERS)]
        await asyncio.sleep(seconds / 4)
        early = service_memory()
        await asyncio.gather(*callers)
    return {"statuses": statuses, "MiB after a quarter": early, "MiB at the end": service_memory()}


def service_memory() -> int:
    """Resident MiB of the replicas, the API and the engine."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            if "VLLM" in process.name() or "ServeReplica" in " ".join(process.cmdline()):
                total += process.memory_info().rss >> 20
        except psutil.Error:
            continue
    return total


def cpu_seconds() -> Counter[str]:
    """CPU seconds that this process, its engine and Ray have used so far, by the process's part in a judgement."""
    used = Counter[str]()
    this = psutil.Process()
    for process in [this, *this.children(recursive=True)]:
        try:
            times, title = process.cpu_times(), f"{process.name()} {' '.join(process.cmdline())}"
        except psutil.Error:
            continue
        of_ray = next((role for word, role in ROLES.items() if word in title), "other processes of Ray")
        used["this bench" if process == this else of_ray] += times.user + times.system
    return used


def in_a_process(part: str, model: str | None, seconds: float) -> dict[str, Any]:
    """Run one part in a process of its own, so that the next one has the machine for itself."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as out:
        command = [sys.executable, "-m", "bench.judge", "--part", part, "--out", out.name]
        command += ["--seconds", str(seconds)]
        subprocess.run(command + (["--model", model] if model else []), check=True)
        result: dict[str, Any] = json.load(out)
    return result


def report(
    alone: dict[str, Any],
    bare: dict[str, Any],
    within: dict[str, Any],
    served: dict[str, Any],
    model: str,
    seconds: float,
) -> None:
    """The table, with the aims beside it. within: bare vLLM with the model in the engine's process, as the service."""
    print(f"\n{APPLICANTS * JOBS_EACH} pairs, {model}, {os.cpu_count()} cores; judgements/s, best of {REPETITIONS}\n")
    print(f"{'':38}{'likelihood':>12}{'choice':>12}")

    def row(name: str, values: list[float], form: str = "12.1f") -> None:
        print(f"{name:38}" + "".join(f"{value:{form}}" for value in values))

    row("transformers, one pair at a time", [alone[m] for m in METHODS])
    row("bare vLLM, prefix cache not read", [bare[f"{m} uncached"] for m in METHODS])
    row("bare vLLM, prefix cache", [bare[f"{m} cached"] for m in METHODS])
    row("  the same, in the engine's process", [within[f"{m} cached"] for m in METHODS])
    row("the service", [served[m] for m in METHODS])
    row("the service, every job met before", [served["likelihood, jobs known"]])
    if "two replicas" in served:
        row("two replicas", [served["two replicas"]])
    row("service / bare vLLM        (aim 0.95)", [served[m] / bare[f"{m} cached"] for m in METHODS], "12.2f")
    row("  in the engine's process", [served[m] / within[f"{m} cached"] for m in METHODS], "12.2f")
    row("service / transformers     (aim 5)", [served[m] / alone[m] for m in METHODS], "12.1f")
    row("  every job met before", [served["likelihood, jobs known"] / alone["likelihood"]], "12.1f")
    row("prefix cache gain", [bare[f"{m} cached"] / bare[f"{m} uncached"] for m in METHODS], "12.2f")
    added = served["single ms"] - bare["single ms"]
    print(
        f"\none warm pair: HTTP {served['single ms']:.1f} ms, bare engine {bare['single ms']:.1f} ms, "
        f"added {added:.1f} ms (aim 5)"
    )
    total = sum(served["CPU seconds"].values())
    shares = ", ".join(f"{role} {value / total:.1%}" for role, value in served["CPU seconds"].items())
    each = 1000 * total / (REPETITIONS * APPLICANTS * JOBS_EACH)
    print(f"CPU time of a likelihood judgement over HTTP: {each:.1f} ms, {shares}")
    print(f"{CONCURRENT_CALLERS} callers for {seconds:g} s: {served['load']}")
    if "two replicas" not in served:
        print("two replicas: not measured, they would share the cores of one")


PARTS: dict[str, Callable[[str | None, float], dict[str, Any]]] = {
    "transformers": lambda model, _: with_transformers(model),
    "bare": lambda model, _: bare_vllm(model),
    "bare, as served": lambda model, _: bare_vllm(model, as_served=True),
    "service": service,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or hub name; default: the packaged SmolLM2-135M-Instruct")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the load by many callers")
    parser.add_argument("--part", choices=PARTS, help="one part only; needs --out")
    parser.add_argument("--out", help="file for the part's figures, as JSON")
    arguments = parser.parse_args()
    if arguments.part:
        with open(arguments.out, "w") as file:
            json.dump(PARTS[arguments.part](arguments.model, arguments.seconds), file)
        return
    alone, bare, within, served = (in_a_process(part, arguments.model, arguments.seconds) for part in PARTS)
    report(alone, bare, within, served, arguments.model or "SmolLM2-135M-Instruct", arguments.seconds)


if __name__ == "__main__":
    main()
