"""The recommendation service under load, and under SIGKILL.

    python -m bench.recommend latency     [--jobs 100000] [--agents 1000] [--rate 50] [--seconds 120]
    python -m bench.recommend durability  [--events 100000] [--kills 10]
    python -m bench.recommend replicas    [--events 100000] [--kills 10]

All start `dynaq serve --recommend` as a person does, on synthetic vectors, and talk HTTP to it from the same machine.

Latency counts from the moment at which a request was due, not from when it could be sent: requests come at random times
(Poisson) at the given rate whether or not the ones before were answered. Every applicant is as likely as any other,
and fewer agents are kept in memory than there are, so that most lists begin on disk.

Durability sends batches of events from several clients while the process that takes them is killed again and again.
A client repeats a batch under its Idempotency-Key until it is acknowledged. In the end every acknowledged event must be
in the store once.

Replicas does so with two replicas on a mongod that is a replica set, one of which is killed again and again while the
stream of events goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import yaml

from dynaq.agent.config import DynaQConfig
from dynaq.encoder import Encoder
from dynaq.layout import BLOCK_DIM, CANDIDATE_BLOCKS, JOB_BLOCKS
from dynaq.records import Candidate, Job
from dynaq.runs.folder import RunFolder
from dynaq.runs.q_table import write_q_values, write_serving
from dynaq.stores import FloatArray, open_store
from tests.support.mongod import running_mongod

WRITTEN_AT_ONCE = 10_000
BLOCK = 16  # agents of one file
MIB = 1 << 20
DUE = {"p50": 30.0, "p99": 150.0}  # ms
WISHES = ("outdoors, with animals", "remote", "nachts arbeiten", "près de la mer", "with children", "no travel")
SEEDS = {"vectors": 0, "requests": 1, "events": 2}
FIRST_EVENT = datetime(2026, 1, 1, tzinfo=UTC)


def make_store(uri: Path | str, jobs: int, applicants: int) -> None:
    """Jobs j0… and applicants a0… with random unit vectors, said to be those of the packaged encoder."""
    rng = np.random.default_rng(SEEDS["vectors"])
    encoder = Encoder()
    with open_store(uri, create=True) as store:
        for start in range(0, jobs, WRITTEN_AT_ONCE):
            ids = [f"j{i}" for i in range(start, min(jobs, start + WRITTEN_AT_ONCE))]
            text = "What is done here. " * 30
            postings = (Job(id=i, title=f"Job {i}", description=text, technical_skills=("Python",)) for i in ids)
            store.put_records("job", postings)
            store.put_vectors("job", ids, {block: _unit(rng, len(ids)) for block in JOB_BLOCKS}, ids)
        ids = [f"a{i}" for i in range(applicants)]
        store.put_records("candidate", (Candidate(id=id_, bio="Someone.", hard_skills=("Python",)) for id_ in ids))
        store.put_vectors("candidate", ids, {block: _unit(rng, len(ids)) for block in CANDIDATE_BLOCKS}, ids)
        store.put_meta(encoder=encoder.name, encoder_revision=encoder.revision, layout="extended")


def make_run(folder: Path, store: Path | str, agents: int) -> None:
    """A run folder with a random Q for each of the first `agents` applicants, over as many jobs as agents consider."""
    rng = np.random.default_rng(SEEDS["vectors"])
    with open_store(store, read_only=True) as opened:
        job_ids, applicant_ids = opened.ids("job"), opened.ids("candidate")[:agents]
    run, blocks = RunFolder.at(folder), []
    candidates = DynaQConfig().candidates
    for start in range(0, agents, BLOCK):
        ids = applicant_ids[start : start + BLOCK]
        name = f"agents/block_{start // BLOCK:05d}-0010"
        with run.new_folder(name) as files:
            columns = None
            if len(job_ids) > candidates:
                columns = np.stack([rng.choice(len(job_ids), candidates, replace=False, shuffle=False) for _ in ids])
            width = len(job_ids) if columns is None else candidates
            write_q_values(files, ids, rng.random((len(ids), width), np.float32), columns)
        blocks.append(name)
    write_serving(run, "extended", job_ids, blocks)


def _unit(rng: np.random.Generator, rows: int) -> FloatArray:
    vectors: FloatArray = rng.standard_normal((rows, BLOCK_DIM), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


@contextmanager
def served(folder: Path, store: str | None = None, **settings: Any) -> Iterator[str]:
    """`dynaq serve --recommend` over the run and the store of a folder, or another store; its address."""
    (folder / "serve.yaml").write_text(yaml.safe_dump(settings))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jobs.serve", "--recommend", "--port", str(port)]
    command += ["--store", store or str(folder / "store")]
    for option, name in (("--run", "run"), ("--config", "serve.yaml")):
        command += [option, str(folder / name)]
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}"
            asyncio.run(_until_ready(url, lambda: process.poll() is None))
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


async def _until_ready(url: str, alive: Callable[[], bool], seconds: float = 300) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    async with aiohttp.ClientSession(url) as session:
        while True:
            try:
                async with session.get("/readyz", timeout=aiohttp.ClientTimeout(5)) as response:
                    if response.status == 200:
                        status: dict[str, Any] = await response.json()
                        return status
            except (aiohttp.ClientError, TimeoutError):
                pass
            if not alive() or time.monotonic() > deadline:
                raise RuntimeError("the service did not come up; see serve.log")
            await asyncio.sleep(0.1)


async def _next_process(url: str, before: Sequence[int]) -> int:
    """The process that answers, once it is none of those before."""
    while True:
        process = int((await _until_ready(url, lambda: True))["process"])
        if process not in before:
            return process
        await asyncio.sleep(0.1)


# Latency


async def measure_latency(url: str, agents: int, rate: float, seconds: float) -> dict[str, list[float]]:
    """Milliseconds by kind of request: plain, explained, with a wish."""
    generator = random.Random(SEEDS["requests"])
    took: dict[str, list[float]] = {"plain": [], "explained": [], "wish": []}
    failed: list[str] = []

    async def ask(session: aiohttp.ClientSession, kind: str, path: str, due: float) -> None:
        try:
            async with session.get(path) as response:
                body = await response.json()
                if response.status != 200 or len(body["recommendations"]) != 10 or body["source"] != "agent":
                    failed.append(f"{response.status} {str(body)[:200]}")
        except (aiohttp.ClientError, TimeoutError) as error:
            failed.append(repr(error))
        took[kind].append(1000 * (time.perf_counter() - due))

    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:
        due, end, asked = time.perf_counter(), time.perf_counter() + seconds, set[asyncio.Task[None]]()
        while due < end:
            kind = generator.choices(list(took), (8, 1, 1))[0]
            path = f"/v1/applicants/a{generator.randrange(agents)}/recommendations"
            path += {"plain": "", "explained": "?explain=true", "wish": f"?preference={generator.choice(WISHES)}"}[kind]
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.create_task(ask(session, kind, path, due))
            asked.add(task)
            task.add_done_callback(asked.discard)
            due += generator.expovariate(rate)
        await asyncio.gather(*asked)
    if failed:
        raise RuntimeError(f"{len(failed)} requests failed, e.g. {failed[0]}")
    return took


def latency(folder: Path, jobs: int, agents: int, rate: float, seconds: float, cached: int) -> None:
    prepare(folder, jobs, agents)
    print(f"{jobs} jobs, {agents} agents on disk, {cached} kept in memory, {rate:g} requests/s for {seconds:g} s")
    with served(folder, cached_agents=cached) as url:
        status = asyncio.run(_until_ready(url, lambda: True))
        replica = psutil.Process(status["process"])
        # The first round warms up the encoder, the connections and the page cache.
        asyncio.run(measure_latency(url, agents, rate, min(10.0, seconds)))
        proxies = [one for one in psutil.Process().children(recursive=True) if _is_proxy(one)]
        before, spent = replica.memory_info().rss / MIB, [_processor_ms(one) for one in (replica, *proxies)]
        took = asyncio.run(measure_latency(url, agents, rate, seconds))
        after = replica.memory_info().rss / MIB
        spent = [_processor_ms(one) - used for one, used in zip((replica, *proxies), spent, strict=True)]
        shown = _cache_metrics(url)
    everything = [x for times in took.values() for x in times]
    for kind, times in {"all": everything, **took}.items():
        p50, p99 = np.percentile(times, [50, 99])
        print(f"  {kind:10} {len(times):6} requests: p50 {p50:6.1f} ms, p99 {p99:6.1f} ms, max {max(times):6.1f} ms")
    each = [ms / len(everything) for ms in spent]
    print(f"  processor, per request: {each[0]:.1f} ms of the replica, {sum(each[1:]):.1f} ms of Serve's proxy")
    print(f"  memory of the replica: {before:.0f} MiB before, {after:.0f} MiB after; {shown}")
    p50, p99 = np.percentile(everything, [50, 99])
    print("  within the bound" if p50 <= DUE["p50"] and p99 <= DUE["p99"] else f"  ABOVE the bound {DUE}")


def _is_proxy(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("ray::ProxyActor")
    except psutil.Error:
        return False


def _processor_ms(process: psutil.Process) -> float:
    times = process.cpu_times()
    return 1000 * float(times.user + times.system)


def _cache_metrics(url: str) -> str:
    async def read() -> str:
        async with aiohttp.ClientSession(url) as session, session.get("/metrics") as response:
            return await response.text()

    lines = [line.split() for line in asyncio.run(read()).splitlines() if line.startswith("recommend_cache")]
    return ", ".join(f"{name.removeprefix('recommend_')} {float(value):.0f}" for name, value in lines)


def prepare(folder: Path, jobs: int, agents: int) -> None:
    """Make store and run, unless they are there."""
    if not (folder / "store" / "store.json").exists():
        make_store(folder / "store", jobs, agents)
    if not (folder / "run" / "serving.json").exists():
        make_run(folder / "run", folder / "store", agents)


# Durability


def event_batches(events: int, applicants: int, jobs: int) -> list[list[dict[str, str]]]:
    """Events in batches of 1 to 50. Each has a time of its own: the same thing said twice in one call is one event."""
    generator = random.Random(SEEDS["events"])
    every = [
        {
            "applicant_id": f"a{generator.randrange(applicants)}",
            "job_id": f"j{generator.randrange(jobs)}",
            "event": generator.choice(("apply", "save", "click", "ignore", "hire")),
            "at": (FIRST_EVENT + timedelta(seconds=number)).isoformat(),
            "source": f"bench {number}",
        }
        for number in range(events)
    ]
    batches, start = [], 0
    while start < events:
        size = generator.randint(1, 50)
        batches.append(every[start : start + size])
        start += size
    return batches


async def send_all(
    url: str,
    batches: Sequence[list[dict[str, str]]],
    kill: Callable[[int], Awaitable[None]],
    repeated: Counter[str] | None = None,
) -> dict[str, int]:
    """Send every batch until it is acknowledged. Returns source -> how often it was acknowledged.

    kill: called with the number of acknowledged events after each batch. repeated: counts why batches were repeated.
    """
    acknowledged: dict[str, int] = {}
    waiting = list(enumerate(batches))[::-1]

    async def client() -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session:
            while waiting:
                number, batch = waiting.pop()
                while (failure := await _send(session, url, number, batch)) is not None:
                    if repeated is not None:
                        repeated[failure] += 1
                    await asyncio.sleep(0.05)
                for event in batch:
                    acknowledged[event["source"]] = acknowledged.get(event["source"], 0) + 1
                await kill(len(acknowledged))

    await asyncio.gather(*(client() for _ in range(8)))
    return acknowledged


async def _send(session: aiohttp.ClientSession, url: str, number: int, batch: list[dict[str, str]]) -> str | None:
    """None when the batch was acknowledged, else why not."""
    try:
        headers = {"Idempotency-Key": f"batch {number}"}
        async with session.post(f"{url}/v1/feedback", json={"events": batch}, headers=headers) as response:
            if response.status in (404, 422):
                raise RuntimeError(await response.text())
            return None if response.status == 201 else f"status {response.status}"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return type(error).__name__


def check_once(store: Path | str, acknowledged: dict[str, int]) -> str:
    """Raises RuntimeError unless every acknowledged event is in the store once."""
    with open_store(str(store), read_only=True) as opened:
        sources = opened.feedback()["source"].to_pylist()
    counts: dict[str, int] = {}
    for source in sources:
        counts[source] = counts.get(source, 0) + 1
    lost = [source for source in acknowledged if source not in counts]
    twice = [source for source, count in counts.items() if count > 1]
    if lost or twice:
        raise RuntimeError(f"{len(lost)} acknowledged events lost, {len(twice)} there more than once")
    return f"{len(acknowledged)} events acknowledged, {len(sources)} in the store, each once"


def durability(folder: Path, events: int, kills: int) -> None:
    applicants, jobs = 100, 1000
    prepare(folder, jobs, applicants)
    shutil.rmtree(folder / "store" / "events", ignore_errors=True)
    generator = random.Random(SEEDS["events"])
    due = sorted(generator.sample(range(events // 20, events * 19 // 20), kills))
    batches = event_batches(events, applicants, jobs)
    killed: list[int] = []
    began = time.monotonic()
    with served(folder, feedback_per_second=1e6, feedback_burst=10**6) as url:
        one_at_a_time = asyncio.Lock()

        async def kill(acknowledged: int) -> None:
            async with one_at_a_time:
                if len(killed) < kills and acknowledged >= due[len(killed)]:
                    process = await _next_process(url, killed)
                    await asyncio.sleep(generator.uniform(0.0, 0.2))
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)

        acknowledged = asyncio.run(send_all(url, batches, kill))
        print(f"  {check_once(folder / 'store', acknowledged)}; {len(killed)} processes killed")
    print(f"  after the service ended: {check_once(folder / 'store', acknowledged)}")
    print(f"  {time.monotonic() - began:.0f} s")
    if len(acknowledged) != events or len(killed) != kills:
        raise RuntimeError(f"{len(acknowledged)} of {events} events and {len(killed)} of {kills} kills happened")


class Killer:
    """Kills one of the service's replicas whenever another share of the events is acknowledged, and the stream goes on.

    It waits each time until as many replicas answer as there should be, and holds the stream only at the next share.

    shares: numbers of events at which it kills, and a last one that holds the stream until the last kill is done.
    """

    def __init__(self, url: str, shares: Sequence[int], replicas: int) -> None:
        self._url, self._shares, self._replicas = url, shares, replicas
        self._acknowledged = 0
        self._task: asyncio.Task[None] | None = None
        self.killed: list[int] = []

    async def __call__(self, acknowledged: int) -> None:
        """Called after each batch with the number of acknowledged events."""
        self._acknowledged = acknowledged
        self._task = self._task or asyncio.create_task(self._run())
        while len(self.killed) + 1 < len(self._shares) and acknowledged >= self._shares[len(self.killed) + 1]:
            if self._task.done():
                self._task.result()
            await asyncio.sleep(0.05)

    async def _run(self) -> None:
        generator = random.Random(SEEDS["events"])
        for share in self._shares[:-1]:
            while self._acknowledged < share:
                await asyncio.sleep(0.02)
            there: set[int] = set()
            while len(there) < self._replicas:
                there.add(await _next_process(self._url, self.killed))
            await asyncio.sleep(generator.uniform(0.0, 0.2))
            process = generator.choice(sorted(there))
            os.kill(process, signal.SIGKILL)
            self.killed.append(process)


def replicas(folder: Path, events: int, kills: int, count: int = 2) -> None:
    applicants, jobs = 100, 1000
    with running_mongod(folder, replica_set=True) as server:
        store = f"{server}/bench"
        make_store(store, jobs, applicants)
        make_run(folder / "run", store, applicants)
        batches, repeated = event_batches(events, applicants, jobs), Counter[str]()
        shares = [round(events * (kill + 0.5) / (kills + 1)) for kill in range(kills + 1)]
        with served(folder, store, replicas=count, feedback_per_second=1e6, feedback_burst=10**6) as url:
            killer, began = Killer(url, shares, count), time.monotonic()
            acknowledged = asyncio.run(send_all(url, batches, killer, repeated))
            seconds = time.monotonic() - began
            print(f"  {check_once(store, acknowledged)}; {len(killer.killed)} processes of {count} replicas killed")
        print(f"  {len(batches)} batches in {seconds:.0f} s, repeated: {dict(repeated) or 'none'}")
    if len(acknowledged) != events or len(killer.killed) != kills:
        raise RuntimeError(f"{len(acknowledged)} of {events} events and {len(killer.killed)} of {kills} kills happened")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("latency", "durability", "replicas"))
    parser.add_argument("--folder", help="where store and run are kept between runs; default: a temporary one")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--cached", type=int, default=250, help="agents kept in memory")
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-recommend-") as temporary:
        folder = Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.what == "latency":
            latency(folder, options.jobs, options.agents, options.rate, options.seconds, options.cached)
        elif options.what == "durability":
            durability(folder, options.events, options.kills)
        else:
            replicas(folder, options.events, options.kills)


if __name__ == "__main__":
    main()
