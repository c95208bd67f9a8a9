"""Brokers on one MongoDB ledger: pairs per second against their number, and what each process spends on them.

    python -m bench.brokers [--applicants 400] [--brokers 1 2 4]

Blocks of 16 applicants ask for slates of 10, from several processes at once, as training actors do. The judge answers
at once, so that what is measured is claiming, judging and writing: every pair is new. On a machine with fewer cores
than processes the brokers take turns. The CPU seconds per 1,000 pairs then say what they would do with cores of their
own: a broker is one thread, and mongod has as many as it needs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import ray

from bench.scale import InstantJudge
from cluster.broker import BrokerClient, JudgeBackend, start_broker
from cluster.session import ray_session, real_cores
from dynaq.judging.judgement import Slate
from dynaq.records import Candidate, Job
from dynaq.stores import open_store
from tests.support.mongod import running_mongod

JOBS, SLATE_JOBS, BLOCK_APPLICANTS, SLATES, CLIENTS = 100, 10, 16, 5, 4
BACKEND = JudgeBackend("instant-0", InstantJudge, divisible=True)
PROCESSES = {
    "ray::JudgeBroker": "broker",
    "ray::Trainer": "trainer",
    "mongod": "mongod",
}  # in a process's name -> in the table


class Trainer:
    """Asks as a training actor does, without training."""

    def __init__(self, broker: Any) -> None:
        self._client = BrokerClient(broker)

    def fetch(self, applicant_ids: Sequence[str]) -> int:
        """Ask for SLATES slates of each applicant; the number of pairs."""
        pairs = 0
        for start in range(0, len(applicant_ids), BLOCK_APPLICANTS):
            for round_ in range(SLATES):
                jobs = tuple(f"j{i}" for i in range(round_ * SLATE_JOBS, (round_ + 1) * SLATE_JOBS))
                slates = [Slate(one, jobs) for one in applicant_ids[start : start + BLOCK_APPLICANTS]]
                pairs += sum(len(answers) for answers in self._client.fetch(slates))
        return pairs


def cpu_seconds() -> Counter[str]:
    """CPU seconds so far by kind of process, among this process's descendants."""
    seconds: Counter[str] = Counter()
    for process in psutil.Process().children(recursive=True):
        try:
            name, times = "".join(process.cmdline()[:1]) + process.name(), process.cpu_times()
        except psutil.Error:
            continue
        kind = next((kind for part, kind in PROCESSES.items() if part in name), None)
        if kind is not None:
            seconds[kind] += times.user + times.system
    return seconds


def measure(store: str, applicants: int, brokers: int) -> tuple[float, Counter[str], int]:
    """Seconds, CPU seconds by kind of process, and pairs."""
    ids = [f"a{i}" for i in range(applicants)]
    with open_store(store, create=True) as opened:
        opened.put_records("job", [Job(id=f"j{i}", title=f"j{i}") for i in range(JOBS)])
        opened.put_records("candidate", [Candidate(id=one) for one in ids])
    broker = start_broker(store, BACKEND, brokers=brokers)
    trainers = [ray.remote(Trainer).options(num_cpus=0).remote(broker) for _ in range(CLIENTS)]
    ray.get([trainer.fetch.remote([f"a{i}"]) for i, trainer in enumerate(trainers)])  # starts and connects everything
    before, began = cpu_seconds(), time.monotonic()
    pairs = sum(ray.get([trainer.fetch.remote(ids[CLIENTS + i :: CLIENTS]) for i, trainer in enumerate(trainers)]))
    seconds, spent = time.monotonic() - began, cpu_seconds()
    spent.subtract(before)
    for actor in (broker, *trainers):
        ray.kill(actor)
    with open_store(store, read_only=True) as opened:
        stored = opened.judgements("instant-0").num_rows
    if stored != applicants * SLATES * SLATE_JOBS:
        raise SystemExit(f"{stored} judgements in the ledger, {applicants * SLATES * SLATE_JOBS} pairs")
    return seconds, spent, pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--applicants", type=int, default=400)
    parser.add_argument("--brokers", type=int, nargs="+", default=(1, 2, 4))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_mongod(Path(folder)) as server, ray_session():
        print(f"{real_cores():g} cores; CPU seconds per 1,000 pairs", flush=True)
        print("| brokers | pairs/s | cores used | a broker's | brokers' | trainers' | mongod's |")
        for count in arguments.brokers:
            seconds, spent, pairs = measure(f"{server}/brokers{count}", arguments.applicants, count)
            of = {kind: 1000 * spent[kind] / pairs for kind in PROCESSES.values()}
            print(f"| {count} | {pairs / seconds:.0f} | {sum(spent.values()) / seconds:.2f} ", end="")
            print(
                f"| {of['broker'] / count:.2f} | {of['broker']:.2f} | {of['trainer']:.2f} | {of['mongod']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
