"""The judge beside what it is built on: `python -m bench.judge` (made for five minutes on two slow cores).

New pairs of ESCO's market go, in alternating rounds, to transformers one pair at a time, to bare vLLM (`LLM.generate`
with the service's arithmetic, executor and prefix cache) and to the service, over HTTP by `likelihood` and through a
Serve handle by `choice`. All are up the whole time, so that whatever else the machine does meets each of them. A round
has as many pairs as the service answers in ROUND_SECONDS. The ratios are of the clock and of CPU time, each the median
over the rounds with the interval that contains it with 95 % (from order statistics); CPU time is listed by process, so
that Ray's share shows. Nothing fails: the figures are printed, with the aims beside them.

Then a single pair, turn by turn: its profile and its job have been met, but not together, so that what is measured is
the engine's work on a new pair on both sides. `--seconds S` adds 200 callers for S seconds, and two replicas where
there are four cores, or a GPU, of which each takes a half. `--model NAME` measures another model, on a GPU if there is
one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import httpx
import psutil
from scipy.stats import binom

from bench.judge_contenders import SHARED_GPU, BareVllm, Pairs, Peer, Transformers, marked, the_pairs
from cluster.session import ray_session
from dynaq.records import Candidate, Job
from reward_service.client import HttpJudge, RewardClient, ServeJudge
from reward_service.config import JudgeConfig

METHODS = ("likelihood", "choice")
FEWEST_PAIRS, MOST_PAIRS = 6, 768  # in a round
COMPARED_ROUNDS = 6  # the fewest whose range is a 95 % interval of the median
ROUND_SECONDS = 5.0
TRANSFORMERS_PAIRS = 3  # in a round
WARM_APPLICANTS, WARM_JOBS = 4, 4
CONCURRENT_CALLERS = 200
PORT = 8713
PARTS = {  # by a word in a process's name or title; the first that fits
    "gcs_server": "gcs",
    "raylet": "raylet",
    "VLLM": "the engine",
    "ServeReplica:judge:judge": "the judge's replica",
    "ServeReplica:judge:api": "the API",
    "Proxy": "Serve's proxy",
    "haproxy": "Serve's proxy",
    "ServeController": "Serve's controller",
}
CALLER, ONE_BY_ONE, BARE = "the caller", "transformers, one pair at a time", "bare vLLM"
PEERS = (ONE_BY_ONE, BARE)
SERVED, KNOWN = "the service", "the service, every job met before"


@dataclass
class Rounds:
    """What one contender needed, round by round: pairs, seconds on the clock, CPU seconds by part (all parts)."""

    own: Callable[[str], bool]  # whether a part's CPU time is this contender's
    pairs: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu: list[Counter[str]] = field(default_factory=list)

    def rates(self) -> list[float]:
        """Judgements per second."""
        return [n / seconds for n, seconds in zip(self.pairs, self.seconds, strict=True)]

    def pairs_per_cpu_second(self) -> list[float]:
        """Judgements per CPU second of its processes."""
        own = [sum(value for part, value in cpu.items() if self.own(part)) for cpu in self.cpu]
        return [n / seconds for n, seconds in zip(self.pairs, own, strict=True)]


class Bench:
    """The contenders, measured in turn.

    Args:
        service: the service over HTTP, asked by `likelihood`.
        choice: the same engine through a Serve handle, asked by `choice`.
        bare, one_by_one: the peers.
    """

    def __init__(self, service: HttpJudge, choice: ServeJudge, bare: Peer, one_by_one: Peer) -> None:
        self._judges: dict[str, RewardClient] = {"likelihood": service, "choice": choice}
        self._bare, self._one_by_one = bare, one_by_one
        self._pairs = the_pairs()
        self._loop = asyncio.Runner()

    def rounds(self, method: str) -> dict[str, Rounds]:
        """COMPARED_ROUNDS rounds of each contender; those of bare vLLM and the service alternate in who is first."""
        judge = self._judges[method]
        found = {name: Rounds(name.__eq__) for name in PEERS}
        served = (SERVED, KNOWN) if method == "likelihood" else (SERVED,)
        found |= {name: Rounds(lambda part: part not in (*PEERS, CALLER)) for name in served}
        warm = marked(self._pairs, f"{method} warm", FEWEST_PAIRS)
        self._bare.seconds(method, warm)
        self._one_by_one.seconds(method, [(warm[0][0], warm[0][1][:1])])
        self._seconds(judge, warm)
        again = marked(self._pairs, f"{method} again", FEWEST_PAIRS)
        fitting = int(FEWEST_PAIRS * ROUND_SECONDS / self._seconds(judge, again))
        count = min(MOST_PAIRS, max(FEWEST_PAIRS, fitting))
        for i in range(COMPARED_ROUNDS):
            pairs = marked(self._pairs, f"{method} {i}", count)
            turns: dict[str, Callable[[], float]] = {
                BARE: lambda pairs=pairs: self._bare.seconds(method, pairs),
                SERVED: lambda pairs=pairs: self._seconds(judge, pairs),
            }
            for name in turns if i % 2 else reversed(turns):
                self._measure(found[name], pairs, turns[name])
            few = [(pairs[0][0], pairs[0][1][:TRANSFORMERS_PAIRS])]
            self._measure(found[ONE_BY_ONE], few, lambda few=few: self._one_by_one.seconds(method, few))
            if KNOWN in found:  # the same jobs, which the service has met, and applicants it has not
                others = marked(self._pairs[1:] + self._pairs[:1], f"{method} {i}, others", count)
                known = [(applicant, jobs) for (applicant, _), (_, jobs) in zip(others, pairs, strict=True)]
                self._measure(found[KNOWN], known, lambda known=known: self._seconds(judge, known))
        return found

    def _seconds(self, judge: RewardClient, pairs: Pairs) -> float:
        """Seconds for the pairs, an applicant per call, all calls at once."""

        async def all_calls() -> float:
            began = time.perf_counter()
            await asyncio.gather(*(judge.judge_async(applicant, jobs) for applicant, jobs in pairs))
            return time.perf_counter() - began

        return self._loop.run(all_calls())

    def _measure(self, rounds: Rounds, pairs: Pairs, call: Callable[[], float]) -> None:
        before = cpu_seconds(self._peers())
        rounds.seconds.append(call())
        rounds.pairs.append(sum(len(jobs) for _, jobs in pairs))
        used = cpu_seconds(self._peers())
        used.subtract(before)
        rounds.cpu.append(used)

    def _peers(self) -> dict[str, set[int]]:
        return {BARE: self._bare.pids(), ONE_BY_ONE: self._one_by_one.pids()}

    def single(self) -> tuple[list[float], list[float]]:
        """Milliseconds of single warm pairs by bare vLLM and by the service over HTTP, in the same order."""
        judge = self._judges["likelihood"]
        met = [(applicant, jobs[:WARM_JOBS]) for applicant, jobs in self._pairs[:WARM_APPLICANTS]]
        self._bare.seconds("likelihood", met)
        self._seconds(judge, met)
        bare, served = list[float](), list[float]()
        for k in range(1, WARM_APPLICANTS):
            for i, (applicant, _) in enumerate(met):
                for job in met[(i + k) % len(met)][1][k % 2 :: 2]:
                    pair = [(applicant, [job])]
                    bare.append(1000 * self._bare.seconds("likelihood", pair, jobs_known=True))
                    served.append(1000 * self._seconds(judge, pair))
        return bare, served

    def rate(self, judge: RewardClient, word: str) -> float:
        """Judgements per second of a quarter of MOST_PAIRS at once, after a few to warm up."""
        self._seconds(judge, marked(self._pairs, f"{word} warm", FEWEST_PAIRS))
        pairs = marked(self._pairs, word, MOST_PAIRS // 4)
        return sum(len(jobs) for _, jobs in pairs) / self._seconds(judge, pairs)

    def load(self, seconds: float, url: str) -> dict[str, Any]:
        """Statuses of 200 callers for so many seconds, and the service's memory."""
        return self._loop.run(load(url, self._pairs, seconds))


def cpu_seconds(peers: dict[str, set[int]]) -> Counter[str]:
    """CPU seconds that this process, the peers and the service have used so far, by part."""
    used = Counter[str]()
    this = psutil.Process()
    for process in [this, *this.children(recursive=True)]:
        try:
            times, title = process.cpu_times(), f"{process.name()} {' '.join(process.cmdline())}"
        except psutil.Error:
            continue
        peer = next((name for name, pids in peers.items() if process.pid in pids), None)
        part = next((part for word, part in PARTS.items() if word in title), "other processes of Ray")
        used[peer or (CALLER if process == this else part)] += times.user + times.system
    return used


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


def two_replicas(config: JudgeConfig) -> JudgeConfig | None:
    """Two replicas with cores or a GPU of their own, or half of the only GPU each; None where there is neither."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus == 1:
        return config.model_copy(update={"replicas": 2, "num_gpus": 0.5})
    return config.model_copy(update={"replicas": 2}) if gpus or (os.cpu_count() or 1) >= 4 else None


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and the interval that contains the distribution's with at least 95 %, from order statistics.

    Six values or more (Conover 1999, Practical Nonparametric Statistics, 3.2).
    """
    rank = max(1, int(binom.ppf(0.025, len(values), 0.5)))
    ordered = sorted(values)
    return statistics.median(ordered), ordered[rank - 1], ordered[-rank]


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def report(method: str, found: dict[str, Rounds]) -> None:
    """The table of one method, with the aims beside it."""
    served, bare, alone = found[SERVED], found[BARE], found[ONE_BY_ONE]
    print(f"\n{method}: {COMPARED_ROUNDS} rounds of {served.pairs[0]} pairs; median (95 % interval)\n")

    def row(name: str, values: Sequence[float], digits: int) -> None:
        middle, low, high = (f"{value:.{digits}f}" for value in median_interval(values))
        print(f"  {name:52}{middle:>8}  ({low} to {high})")

    for name, contender in found.items():
        row(f"{name}, judgements/s", contender.rates(), 1)
    row("service / bare vLLM, clock (aim 0.95)", ratios(served.rates(), bare.rates()), 2)
    row("service / bare vLLM, CPU time", ratios(served.pairs_per_cpu_second(), bare.pairs_per_cpu_second()), 2)
    row("service / transformers, clock (aim 5)", ratios(served.rates(), alone.rates()), 1)
    if KNOWN in found:
        row("  every job met before", ratios(found[KNOWN].rates(), alone.rates()), 1)
    print("\n  CPU time of a judgement in ms, and % of a core while another contender is asked:")
    each, idle = sum(served.cpu, Counter[str]()), sum(bare.cpu, Counter[str]())
    print(f"  {BARE:28}{1000 * idle[BARE] / sum(bare.pairs):8.1f}")
    for part, seconds in each.most_common():
        if part not in PEERS:
            share = "" if part == CALLER else f"{100 * idle[part] / sum(bare.seconds):8.1f} %"
            print(f"  {part:28}{1000 * seconds / sum(served.pairs):8.1f}{share}")


def report_single(bare: list[float], served: list[float]) -> None:
    """What the service adds to a warm pair."""
    added, low, high = median_interval([a - b for a, b in zip(served, bare, strict=True)])
    print(
        f"\none warm pair of {len(bare)}: HTTP {statistics.median(served):.1f} ms, bare vLLM "
        f"{statistics.median(bare):.1f} ms; added {added:.1f} ms ({low:.1f} to {high:.1f}; aim 5)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or hub name; default: the packaged SmolLM2-135M-Instruct")
    parser.add_argument("--seconds", type=float, default=0.0, help="of the load by many callers; none if not given")
    arguments = parser.parse_args()
    from reward_service.app import running_judge, start_service, stop_judge

    config = JudgeConfig(model=arguments.model, method="likelihood", gpu_memory_utilization=SHARED_GPU)
    print(f"{config.model_name}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}", flush=True)
    with (
        ray_session(),
        closing(Peer(BareVllm, arguments.model)) as bare,  # on an error, too, or this process would wait for them
        closing(Peer(Transformers, arguments.model)) as one_by_one,
    ):
        url = start_service(config, port=PORT)
        judge = running_judge()
        assert judge is not None
        bench = Bench(HttpJudge(url), judge.variant(config, method="choice"), bare, one_by_one)
        for method in METHODS:
            report(method, bench.rounds(method))
        report_single(*bench.single())
        bare.close()
        one_by_one.close()
        one = 0.0
        if arguments.seconds:
            print(f"\n{CONCURRENT_CALLERS} callers for {arguments.seconds:g} s: {bench.load(arguments.seconds, url)}")
            one = bench.rate(HttpJudge(url), "one")
        stop_judge()
        if arguments.seconds and (two := two_replicas(config)):
            rate = bench.rate(HttpJudge(start_service(two, port=PORT)), "two")
            print(f"judgements/s: one replica {one:.1f}, two {rate:.1f}")
            stop_judge()


if __name__ == "__main__":
    main()
