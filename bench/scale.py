"""Cohort training on one machine: seconds and memory against the number of applicants.

    python -m bench.scale [--preset reference]
    python -m bench.scale actors

Synthetic vectors, the `llm` strategy, a judge that answers by rule at once: what is measured is training, the broker
and checkpoints, not the LLM. Memory is what each actor holds for itself (USS), Python and torch included, which leaves
the shared cache out. Growth is judged on cohorts that fill a block on every actor, as a straight line: seconds before
the first round, which do not grow, plus seconds per applicant.

`actors` trains the same seven blocks with the default number of actors and with given ones, in turn, in one Ray:
seconds from the start of the actors to the last table, and their ratio to the default's.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import ray

from cluster.block_actor import TrainingJob
from cluster.broker import JudgeBackend, start_broker
from cluster.cache import put_cache
from cluster.session import ray_session, real_cores
from cluster.trainer import ActorSize, CohortTrainer
from dynaq.agent.config import DynaQConfig
from dynaq.judging.judgement import Judgement, judgement_from_probabilities
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
MIB = 1 << 20


class InstantJudge:
    """APPLY with a probability that depends on the pair's ids."""

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        x = [(int(applicant.id[1:]) * 31 + int(job.id[1:]) * 17) % 97 / 97 for job in jobs]
        return [
            judgement_from_probabilities(applicant.id, job.id, [p, 0, 0, 1 - p], judge="instant-0")
            for job, p in zip(jobs, x, strict=True)
        ]


class PeakMemory(threading.Thread):
    """Largest USS of any training actor while it runs, in MiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.25):
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.cmdline()[:1] == ["ray::BlockActor.train"]:
                        self.peak = max(self.peak, process.memory_full_info().uss / MIB)
                except psutil.Error:
                    continue

    def stop(self) -> float:
        self._ended.set()
        self.join()
        return self.peak


def fill_store(uri: str, applicants: int) -> None:
    rng = np.random.default_rng(0)
    jobs, people = [f"j{i}" for i in range(JOBS)], [f"a{i}" for i in range(applicants)]
    with open_store(uri, create=True) as store:
        store.put_records("job", [Job(id=one, title=one) for one in jobs])
        store.put_records("candidate", [Candidate(id=one) for one in people])
        records: dict[Kind, list[str]] = {"job": jobs, "candidate": people}
        for kind, ids in records.items():
            blocks = COLLECTIONS[kind].blocks
            vectors = {name: rng.standard_normal((len(ids), BLOCK_DIM)).astype(np.float32) for name in blocks}
            store.put_vectors(kind, ids, vectors)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["size", "actors"], nargs="?", default="size")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--sizes", type=int, nargs="+", default=COHORT_SIZES)
    arguments = parser.parse_args()
    if arguments.what == "actors":
        compare_actors()
        return
    config = DynaQConfig.load(None, {"preset": arguments.preset, "budget": BUDGET})
    print(f"{JOBS} jobs, {BUDGET} judgements each, blocks of {config.block_size}, {ACTORS} actors, {arguments.preset}")
    print("applicants  first round s   seconds   s/applicant   largest actor MiB   MiB/agent in a block")
    filled: dict[int, float] = {}
    with ray_session(), tempfile.TemporaryDirectory() as folder:
        for applicants in arguments.sizes:
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
