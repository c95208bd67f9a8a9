"""Cohort training on one machine: seconds and memory against the number of applicants.

    python -m bench.scale [--preset reference]
    python -m bench.scale actors
    python -m bench.scale cohort [--sizes 1000 3000 10000] [--jobs 30] [--strategies cosine hybrid]

Synthetic vectors, the `llm` strategy, a judge that answers by rule at once: what is measured is training, the broker
and checkpoints, not the LLM. Memory is what each actor holds for itself (USS), Python and torch included, which leaves
the shared cache out. Growth is judged on cohorts that fill a block on every actor, as a straight line: seconds before
the first round, which do not grow, plus seconds per applicant.

`actors` trains the same seven blocks with the default number of actors and with given ones, in turn, in one Ray:
seconds from the start of the actors to the last table, and their ratio to the default's.

`cohort` runs the command `dynaq train` on cohorts of growing size, with all tables, checkpoints and the report, hybrid
from a recorded ledger that has every pair of a small catalogue. Memory of the driver and of the broker is the most that
they held for themselves (RssAnon), which leaves the object store out; seconds are of training, from the first actor to
the last table, of the whole command, and of the processor in all processes together. The line is through the
processor's seconds, which the machine's other load changes least.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from bench.candidates import anonymous
from cluster.block_actor import TrainingJob
from cluster.broker import JudgeBackend, start_broker
from cluster.cache import put_cache
from cluster.session import ray_session, real_cores
from cluster.trainer import ActorSize, CohortTrainer
from dynaq.agent.config import DynaQConfig
from dynaq.judging.judgement import LABELS, Judgement, judgement_from_probabilities
from dynaq.layout import BLOCK_DIM
from dynaq.records import Candidate, Job
from dynaq.runs.folder import RunFolder
from dynaq.stores import COLLECTIONS, Kind, open_store
from dynaq.tensor_cache import TensorCache

COHORT_SIZES = (8, 32, 128, 512)
JOBS = 800
ACTORS = 2
COMPARED = (None, 1, 2, 4, 7)  # numbers of actors; None: the default
BLOCKS, COMPARED_BLOCK, COMPARED_BUDGET, REPEATS = 7, 4, 10, 2
BUDGET = 20
GROWING_COHORTS, COHORT_JOBS, COHORT_BUDGET = (1_000, 3_000, 10_000), 30, 10
MADE_AT_ONCE = 2_000  # applicants of a store or ledger while the benchmark makes them
MIB = 1 << 20


P_COLUMNS = [(f"p_{label.lower()}", pa.float64()) for label in LABELS]


class InstantJudge:
    """APPLY with a probability that depends on the pair's ids."""

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        x = [(int(applicant.id[1:]) * 31 + int(job.id[1:]) * 17) % 97 / 97 for job in jobs]
        return [
            judgement_from_probabilities(applicant.id, job.id, [p, 0, 0, 1 - p], judge="instant-0")
            for job, p in zip(jobs, x, strict=True)
        ]


def unique(process: psutil.Process) -> float:
    """USS of a process in MiB."""
    return float(process.memory_full_info().uss) / MIB


class PeakMemory(threading.Thread):
    """Most memory of any process below this one while it runs, in MiB, whose command line starts with a text."""

    def __init__(
        self,
        command: str = "ray::BlockActor.train",
        seconds: float = 0.25,
        held: Callable[[psutil.Process], float] = unique,
    ) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0
        self._command, self._seconds, self._held = command, seconds, held
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(self._seconds):
            for process in psutil.Process().children(recursive=True):
                try:
                    if " ".join(process.cmdline()).startswith(self._command):
                        self.peak = max(self.peak, self._held(process))
                except (psutil.Error, OSError, StopIteration):  # it has just ended
                    continue

    def stop(self) -> float:
        self._ended.set()
        self.join()
        return self.peak


class ProcessorSeconds(threading.Thread):
    """Seconds of the processor in all processes below this one that begin while it runs."""

    def __init__(self, every: float = 1.0) -> None:
        super().__init__(daemon=True)
        self._every, self._spent = every, dict[int, float]()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(self._every):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    self._spent[process.pid] = times.user + times.system

    def stop(self) -> float:
        self._ended.set()
        self.join()
        return sum(self._spent.values())


def fill_store(uri: str, applicants: int, jobs: int = JOBS) -> None:
    rng = np.random.default_rng(0)
    records: dict[Kind, list[str]] = {"job": ids("j", jobs), "candidate": ids("a", applicants)}
    with open_store(uri, create=True) as store:
        store.put_records("job", [Job(id=one, title=one) for one in records["job"]])
        store.put_records("candidate", (Candidate(id=one) for one in records["candidate"]))
        store.put_meta(layout="extended")
        for kind, all_ids in records.items():
            for some in batches(all_ids):
                shape = (len(some), BLOCK_DIM)
                blocks = {name: rng.standard_normal(shape, np.float32) for name in COLLECTIONS[kind].blocks}
                store.put_vectors(kind, some, blocks)


def ids(letter: str, count: int) -> list[str]:
    """In order, as text too."""
    return [f"{letter}{i:07d}" for i in range(count)]


def batches(all_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (all_ids[start : start + MADE_AT_ONCE] for start in range(0, len(all_ids), MADE_AT_ONCE))


def fill_ledger(path: Path, applicants: int, jobs: int) -> None:
    """Every pair, answered by the rule of InstantJudge."""
    with pq.ParquetWriter(
        path, pa.schema([("applicant_id", pa.string()), ("job_id", pa.string()), *P_COLUMNS])
    ) as file:
        for some in batches(ids("a", applicants)):
            people = np.repeat(np.array([int(one[1:]) for one in some]), jobs)
            shown = np.tile(np.arange(jobs), len(some))
            p = (people * 31 + shown * 17) % 97 / 97
            names = [np.repeat(some, jobs), np.tile(ids("j", jobs), len(some))]
            columns = [*names, p, np.zeros_like(p), np.zeros_like(p), 1 - p]
            file.write_table(pa.table([pa.array(column) for column in columns], schema=file.schema))


def measure(
    folder: Path, applicants: int, config: DynaQConfig, actors: int | None = ACTORS
) -> tuple[float, float, float]:
    """Seconds until the first round is done, of training in all, and the largest actor's MiB."""
    fill_store(str(folder / "store"), applicants)
    with open_store(str(folder / "store"), read_only=True) as store:
        cache = TensorCache.copy_from_database(store, layout="extended")
    broker = start_broker(str(folder / "store"), JudgeBackend("instant-0", InstantJudge, keep=False))
    job = TrainingJob(put_cache(cache), "llm", config, broker, RunFolder.at(folder / "run"))
    memory = PeakMemory()
    memory.start()
    first: list[float] = []
    result = CohortTrainer(
        job, cache.applicant_ids, size=ActorSize(actors=actors), on_progress=lambda p: first.append(p.seconds)
    ).run()
    ray.kill(broker)
    if result.failures:
        raise SystemExit(f"not trained: {result.failures}")
    return first[0], result.seconds, memory.stop()


def line(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float, float]:
    """Fits seconds = fixed + each · applicants by relative least squares.

    Returns fixed, each, and the largest relative deviation.
    """
    x, y = np.array(sizes, float), np.array(seconds)
    each, fixed = np.polyfit(x, y, 1, w=1 / y)
    return float(fixed), float(each), float(np.abs(y / (fixed + each * x) - 1).max())


def compare_actors() -> None:
    """The same cohort with different numbers of actors, in turn, so that the machine's other load hits all alike."""
    config = DynaQConfig(budget=COMPARED_BUDGET, block_size=COMPARED_BLOCK)
    took: dict[int | None, list[float]] = {number: [] for number in COMPARED}
    with ray_session():
        print(
            f"{BLOCKS} blocks of {COMPARED_BLOCK}, {COMPARED_BUDGET} judgements each, {real_cores():g} cores",
            flush=True,
        )
        for repeat in range(REPEATS):
            for number in COMPARED if repeat % 2 == 0 else COMPARED[::-1]:
                with tempfile.TemporaryDirectory() as folder:
                    took[number].append(measure(Path(folder), BLOCKS * COMPARED_BLOCK, config, number)[1])
                print(f"  {number or 'default'}: {took[number][-1]:.1f} s", flush=True)
    base = np.array(took[None])
    for number, seconds in took.items():
        ratios = np.array(seconds) / base
        print(f"| {number or 'default'} | {np.median(seconds):.1f} | {np.median(ratios):.2f} |")


@dataclass(frozen=True)
class CohortRun:
    """training, command: seconds; processor: its seconds in all processes. driver, broker: MiB."""

    training: float
    command: float
    processor: float
    driver: float
    broker: float


def own(process: psutil.Process) -> float:
    """RssAnon of a process in MiB."""
    return anonymous(process.pid)


def train_cohort(folder: Path, strategy: str, arguments: argparse.Namespace) -> CohortRun:
    """Run `dynaq train` on the store in `folder`."""
    command = [sys.executable, "-m", "jobs.train", "--store", str(folder / "store"), "--out", str(folder / strategy)]
    command += ["--strategy", strategy, "--budget", str(arguments.budget), "--actors", str(arguments.actors), "--json"]
    command += ["--judge", f"ledger:{folder / 'ledger.parquet'}"]
    watched = [PeakMemory(name, 1.0, own) for name in (" ".join(command[:3]), "ray::JudgeBroker")]
    processor = ProcessorSeconds()
    for thread in (*watched, processor):
        thread.start()
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.monotonic() - began
    driver, broker = (memory.stop() for memory in watched)
    return CohortRun(json.loads(done.stdout)["seconds"], seconds, processor.stop(), driver, broker)


def cohorts(arguments: argparse.Namespace) -> None:
    """Growing cohorts, each strategy on the same store and ledger; then a line through the seconds."""
    sizes = arguments.sizes or GROWING_COHORTS
    print(f"{arguments.jobs} jobs, {arguments.budget} judgements each, {arguments.actors} actors")
    print("strategy  applicants  training s  command s  processor s  per applicant ms  driver MiB  broker MiB")
    took: dict[str, list[float]] = {strategy: [] for strategy in arguments.strategies}
    for applicants in sizes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            folder = Path(name)
            fill_store(str(folder / "store"), applicants, arguments.jobs)
            fill_ledger(folder / "ledger.parquet", applicants, arguments.jobs)
            for strategy, seconds in took.items():
                run = train_cohort(folder, strategy, arguments)
                seconds.append(run.processor)
                print(f"{strategy:8} {applicants:11,} {run.training:11.1f} {run.command:10.1f}", end="")
                print(f" {run.processor:12.1f} {1000 * run.processor / applicants:17.1f}", end="")
                print(f" {run.driver:11.0f} {run.broker:11.0f}", flush=True)
    for strategy, seconds in took.items():
        if len(sizes) > 2:
            fixed, each, off = line(sizes, seconds)
            print(f"{strategy}: {fixed:.1f} s once and {1000 * each:.1f} ms per applicant; largest deviation {off:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["size", "actors", "cohort"], nargs="?", default="size")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of applicants")
    parser.add_argument("--jobs", type=int, default=COHORT_JOBS, help="cohort: size of the catalogue")
    parser.add_argument("--budget", type=int, default=COHORT_BUDGET, help="cohort: judgements per applicant")
    parser.add_argument("--actors", type=int, default=ACTORS, help="cohort")
    parser.add_argument("--strategies", nargs="+", default=["cosine", "hybrid"], help="cohort")
    parser.add_argument("--folder", help="cohort: where stores and runs are made; default: the temporary folder")
    arguments = parser.parse_args()
    if arguments.what == "cohort":
        cohorts(arguments)
        return
    if arguments.what == "actors":
        compare_actors()
        return
    config = DynaQConfig.load(None, {"preset": arguments.preset, "budget": BUDGET})
    print(f"{JOBS} jobs, {BUDGET} judgements each, blocks of {config.block_size}, {ACTORS} actors, {arguments.preset}")
    print("applicants  first round s   seconds   s/applicant   largest actor MiB   MiB/agent in a block")
    filled: dict[int, float] = {}
    with ray_session(), tempfile.TemporaryDirectory() as folder:
        for applicants in arguments.sizes or COHORT_SIZES:
            first, seconds, mib = measure(Path(folder) / str(applicants), applicants, config)
            agents = min(applicants, config.block_size)
            print(f"{applicants:10} {first:14.1f} {seconds:9.1f} {seconds / applicants:13.3f} {mib:19.0f}", end="")
            print(f" {mib / agents:22.1f}", flush=True)
            if applicants >= ACTORS * config.block_size:
                filled[applicants] = seconds
    if len(filled) > 2:
        fixed, each, off = line(list(filled), list(filled.values()))
        print(
            f"{fixed:.1f} s once and {each:.3f} s per applicant; no size is further than {off:.0%} from that (aim 15 %)"
        )


if __name__ == "__main__":
    main()
