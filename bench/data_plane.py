"""The data plane beside the bare libraries: loading, attaching, top-k, embedding. Prints ratios, one run.

    python -m bench.data_plane                       everything, 100,000 jobs x 1536
    python -m bench.data_plane --jobs 10000 load     a part, smaller

Loads run in a process of their own, so that their peak memory is theirs alone. Times of two ways that are compared
are taken in turns, and the best of each counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pymongo

from dynaq.layout import BLOCK_DIM, CANDIDATE_BLOCKS, CLASSIC, JOB_BLOCKS
from dynaq.records import Candidate, Job
from dynaq.stores import Store, open_store
from dynaq.tensor_cache import TensorCache
from tests.support.mongod import running_mongod

ACTION_FIELDS = [JOB_BLOCKS[block] for block in CLASSIC.action]
TURNS = 3


def row(what: str, ours: float, bare: float, unit: str, target: str, note: str = "") -> None:
    """One line of the table: ours, the bare way, and their ratio."""
    print(f"{what:<44} {ours:>11.4g} {bare:>11.4g} {unit:<7} {ours / bare:>6.2f}x   {target:<12} {note}", flush=True)


def best(*ways: Callable[[], Any]) -> list[float]:
    """Seconds of each way, taken in turns, the best of `TURNS`."""
    seconds = [float("inf")] * len(ways)
    for _ in range(TURNS):
        for i, way in enumerate(ways):
            started = time.perf_counter()
            way()
            seconds[i] = min(seconds[i], time.perf_counter() - started)
    return seconds


def fill(store: Store, n: int) -> None:
    """`n` jobs and one applicant with random vectors in the classic layout."""
    rng = np.random.default_rng(0)
    ids = [f"job{i:07d}" for i in range(n)]
    store.put_records("job", (Job(id=id_, title=f"Title {id_}", description="x" * 400) for id_ in ids))
    for start in range(0, n, 16384):
        part = ids[start : start + 16384]
        blocks = {b: rng.standard_normal((len(part), BLOCK_DIM), dtype=np.float32) for b in CLASSIC.action}
        store.put_vectors("job", part, blocks, [f"classic-{i:016x}" for i in range(len(part))])
    store.put_records("candidate", [Candidate(id="ann", bio="b")])
    blocks = {b: rng.standard_normal((1, BLOCK_DIM), dtype=np.float32) for b in CLASSIC.state}
    store.put_vectors("candidate", ["ann"], blocks, ["classic-0"])


# Ways to load. Each returns the arrays' bytes.


def load_cache(uri: str) -> int:
    """Ours."""
    with open_store(uri, read_only=True) as store:
        return TensorCache.copy_from_database(store, layout="classic").jobs.nbytes


def load_bare_pymongo(uri: str) -> int:
    """A loop over the same Binary Vectors into one array, without text, join or checks."""
    collection: Any = pymongo.MongoClient(uri).get_default_database().job_embeddings
    out = np.empty((collection.estimated_document_count(), CLASSIC.action_dim), np.float32)
    for i, document in enumerate(collection.find({}, {"_id": 0, "content_hash": 0})):
        for k, field in enumerate(ACTION_FIELDS):
            out[i, k * BLOCK_DIM : (k + 1) * BLOCK_DIM] = np.frombuffer(document[field], "<f4", offset=2)
    return out.nbytes


def load_bare_pyarrow(uri: str) -> int:
    """`read_table` of the same columns; the result is not yet one array."""
    tables = [
        pq.read_table(f, columns=["original_job_id", *ACTION_FIELDS]) for f in Path(uri, "job_embeddings").glob("*")
    ]
    return sum(table.nbytes for table in tables)


def load_obvious(uri: str) -> int:
    """Arrays of numbers, and for each job a search through all embeddings."""
    database: Any = pymongo.MongoClient(uri).get_default_database()
    embeddings = list(database.job_embeddings.find())
    vectors = []
    for job in database.jobs_text.find():
        for document in embeddings:
            if document["original_job_id"] == job["_id"]:
                vectors.append(np.concatenate([np.array(document[field], np.float32) for field in ACTION_FIELDS]))
                break
    return np.stack(vectors).nbytes


def _measured(way: Callable[[str], int], uri: str, results: Any) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # resets the kernel's record of the peak
    before = _peak()
    started, cpu = time.perf_counter(), time.process_time()
    nbytes = way(uri)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    results.put((seconds, cpu, (_peak() - before) / nbytes))


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


def in_own_process(uri: str, *ways: Callable[[str], int]) -> list[tuple[float, float, float]]:
    """(seconds, CPU seconds, peak over the arrays' bytes) of each way: the best of `TURNS`, taken in turns."""
    context = multiprocessing.get_context("spawn")
    measured: list[list[tuple[float, float, float]]] = [[] for _ in ways]
    for _ in range(TURNS):
        for i, way in enumerate(ways):
            results = context.Queue()
            process = context.Process(target=_measured, args=(way, uri, results))
            process.start()
            measured[i].append(results.get())
            process.join()
    return [tuple(min(column) for column in zip(*runs, strict=True)) for runs in measured]  # type: ignore[misc]


def bench_load(n: int, folder: Path) -> None:
    """Loading a catalogue from mongod and from Parquet."""
    with running_mongod(folder / "mongod") as server:
        uri = f"{server}/bench"
        with open_store(uri, create=True) as store:
            fill(store, n)
        (seconds, cpu, peak), (bare, bare_cpu, _) = in_own_process(uri, load_cache, load_bare_pymongo)
        row(f"load {n} jobs from mongod", seconds, bare, "s", "<= 1.3x")
        row("  CPU seconds", cpu, bare_cpu, "s", "")
        row("  jobs per second and core", n / max(seconds, cpu), n / max(bare, bare_cpu), "jobs/s", ">= 25000")
        row("  peak memory over the arrays", peak, 1.0, "", "<= 2.2x")
    path = folder / "store"
    with open_store(path, create=True) as store:
        fill(store, n)
    (seconds, cpu, peak), (bare, bare_cpu, _) = in_own_process(str(path), load_cache, load_bare_pyarrow)
    row(f"load {n} jobs from Parquet", seconds, bare, "s", "<= 1.3x")
    row("  CPU seconds", cpu, bare_cpu, "s", "")
    row("  peak memory over the arrays", peak, 1.0, "", "<= 2.2x")


def bench_obvious(n: int, folder: Path) -> None:
    """The same from a database filled by hand, arrays of numbers and all, beside the obvious program."""
    n = min(n, 5000)  # the obvious program's join is quadratic
    rng = np.random.default_rng(0)
    with running_mongod(folder / "mongod-obvious") as server:
        uri = f"{server}/bench"
        database: Any = pymongo.MongoClient(uri).get_default_database()
        database.jobs_text.insert_many([{"_id": i, "job_title": "t"} for i in range(n)])
        for start in range(0, n, 500):
            database.job_embeddings.insert_many(
                {"original_job_id": i, **{field: rng.standard_normal(BLOCK_DIM).tolist() for field in ACTION_FIELDS}}
                for i in range(start, min(n, start + 500))
            )
        database.candidates_text.insert_one({"_id": 0, "bio": "b"})
        vectors = {CANDIDATE_BLOCKS[block]: rng.standard_normal(BLOCK_DIM).tolist() for block in CLASSIC.state}
        database.candidates_embeddings.insert_one({"original_candidate_id": 0, **vectors})
        (seconds, _, _), (obvious, _, _) = in_own_process(uri, load_cache, load_obvious)
        row(f"load {n} jobs, arrays of numbers, obvious", seconds, obvious, "s", "", "its join grows with n²")


def random_cache(n: int) -> TensorCache:
    """A cache of `n` random jobs and one applicant."""
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder) / "s", create=True) as store:
        fill(store, n)
        return TensorCache.copy_from_database(store, layout="classic")


def bench_top_k(n: int, folder: Path) -> None:
    """Top-100 for one applicant beside BLAS and argpartition on the same columns."""
    cache = random_cache(n)
    half = TensorCache.from_arrays(*cache.to_arrays())
    compared, state = cache.jobs[:, : CLASSIC.state_dim], cache.applicants[0]

    def bare() -> Any:
        products = np.matmul(compared, state)
        return np.argpartition(products, -100)[-100:]

    cache.top_k("ann", 100)
    times = best(*[lambda: half.top_k("ann", 100), bare] * 5)
    row(f"top-100 of {n} jobs", 1000 * min(times[::2]), 1000 * min(times[1::2]), "ms", "<= 1.2x")


def bench_attach(n: int, folder: Path) -> None:
    """Attaching in an actor, at a tenth of the size and at the whole."""
    import ray

    from cluster.cache import put_cache
    from cluster.session import ray_session

    @ray.remote
    class Attacher:
        def attach(self, references: list[Any]) -> float:
            started = time.perf_counter()
            references[0].attach()
            return time.perf_counter() - started

    with ray_session(num_cpus=4, object_store_gib=2):
        for size in (n // 10, n):
            cache = random_cache(size)
            reference = put_cache(cache)
            actors = [Attacher.remote() for _ in range(2)]
            seconds = [ray.get(actor.attach.remote([reference])) for actor in actors for _ in range(3)]
            what = f"attach {cache.nbytes >> 20} MiB in an actor, slowest of {len(seconds)}"
            row(what, 1000 * max(seconds), 50.0, "ms", "< 50 ms")
            del reference


def bench_embedding(n: int, folder: Path) -> None:
    """Texts per second beside sentence-transformers on the same distinct texts."""
    from dynaq.encoder import Encoder
    from dynaq.ingest.embedding import job_texts
    from dynaq.markets import esco_market

    texts = {text for job in esco_market(postings=6).jobs for text in job_texts(job).values() if text}
    chosen = sorted(texts)[:: max(1, len(texts) // min(n, 1200))]
    encoder = Encoder()
    encoder.encode(chosen[:8])
    ours, bare = best(
        lambda: encoder.encode(chosen),
        lambda: encoder._model.encode(chosen, normalize_embeddings=True, show_progress_bar=False),
    )
    row(f"embed {len(chosen)} distinct texts", len(chosen) / ours, len(chosen) / bare, "texts/s", ">= 1.0x")


def bench_embedding_long(n: int, folder: Path) -> None:
    """The same for texts of a real posting's length, 1,000 to 4,000 characters, as a store embeds them."""
    from dynaq.encoder import Encoder
    from dynaq.markets import esco_market

    parts = [job.description for job in esco_market().jobs]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.permutation(parts)[: rng.integers(3, 10)])[:4000] for _ in range(min(n, 120))]
    encoder = Encoder()
    encoder.encode(texts[:4])
    ours, bare = best(
        lambda: encoder.encode(texts),
        lambda: encoder._model.encode(texts, normalize_embeddings=True, show_progress_bar=False),
    )
    what = f"embed {len(texts)} texts of {sum(map(len, texts)) // len(texts)} characters"
    row(what, len(texts) / ours, len(texts) / bare, "texts/s", ">= 1.0x")


MEASUREMENTS = {
    "load": bench_load,
    "obvious": bench_obvious,
    "topk": bench_top_k,
    "attach": bench_attach,
    "embedding": bench_embedding,
    "embedding-long": bench_embedding_long,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(MEASUREMENTS)}; all when none is named")
    parser.add_argument("--jobs", type=int, default=100_000)
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(MEASUREMENTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(MEASUREMENTS)}")
    print(f"{'':<44} {'ours':>11} {'bare':>11} {'':<7} {'ratio':>7}   target")
    with tempfile.TemporaryDirectory() as folder:
        for part in options.parts or MEASUREMENTS:
            MEASUREMENTS[part](options.jobs, Path(folder))


if __name__ == "__main__":
    main()
