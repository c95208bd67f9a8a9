"""The cache in shared memory: one copy for all actors of a node, and no way to write to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from cluster.cache import CacheRef, put_cache
from dynaq.layout import CLASSIC
from dynaq.records import Candidate, Job
from dynaq.stores import Store, open_store
from dynaq.tensor_cache import TensorCache

N_JOBS = 12_000
rng = np.random.default_rng(0)


def put_jobs(store: Store, ids: list[str], tag: str) -> None:
    store.put_records("job", (Job(id=id_, title="t") for id_ in ids))
    blocks = {b: rng.standard_normal((len(ids), 384), dtype=np.float32) for b in CLASSIC.action}
    store.put_vectors("job", ids, blocks, [tag + id_ for id_ in ids])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(Path(tmp_path_factory.mktemp("cache")) / "store", create=True) as opened:
        put_jobs(opened, [f"{i:06d}" for i in range(N_JOBS)], "h")
        opened.put_records("candidate", [Candidate(id="ann", bio="b")])
        opened.put_vectors(
            "candidate", ["ann"], {b: rng.standard_normal((1, 384), dtype=np.float32) for b in CLASSIC.state}
        )
        yield opened


@ray.remote(num_cpus=0.1)
class Reader:
    """An actor with the cache attached."""

    def __init__(self, cache: CacheRef) -> None:
        # BLAS allocates memory on its first use, which must not count as the cache's.
        np.dot(np.ones((2000, 768), np.float32), np.ones(768, np.float32)).sum()
        self._pss_before = _pss()
        self._cache = cache.attach()

    def read_all(self) -> float:
        return float(self._cache.jobs.sum()) + float(self._cache.calculate_cosine_similarities("ann").sum())

    def pss_growth(self) -> int:
        return _pss() - self._pss_before

    def version(self) -> tuple[int, int]:
        return self._cache.version, len(self._cache.job_ids)

    def try_to_write(self) -> list[str]:
        cache = self._cache
        refused = []
        manifest, arrays = cache.to_arrays()
        for name, array in {"jobs": cache.jobs, "row": cache.jobs[0], "applicants": cache.applicants, **arrays}.items():
            try:
                array[...] = 9
            except ValueError:
                refused.append(name)
            try:
                array.flags.writeable = True
            except ValueError:
                refused.append(f"{name} made writeable")
        cache.get_applicant_state("ann").fill_(9)
        cache.get_job_vector_by_index(0).fill_(9)
        cache.get_job_vectors(range(len(cache.jobs))).fill_(9)
        cache.calculate_cosine_similarities("ann").fill(9)
        cache.block_similarities("ann").fill(9)
        TensorCache.from_arrays(manifest, arrays).get_job_vector_by_index(1).fill_(9)
        return refused


def _pss() -> int:
    """Proportional memory of this process in bytes: a page that n processes share counts 1/n for each."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss line")


def start(n: int, cache: CacheRef) -> list[Any]:
    actor_class: Any = Reader
    return [actor_class.remote(cache) for _ in range(n)]


@dataclass(frozen=True)
class Shared:
    """A cache in the object store, and the actors that have it attached."""

    cache: TensorCache
    reference: CacheRef
    actors: list[Any]


@pytest.fixture(scope="module")
def shared(store: Store, ray_session_fixture: None) -> Iterator[Shared]:
    cache = TensorCache.copy_from_database(store)
    reference = put_cache(cache)
    actors = start(4, reference)
    yield Shared(cache, reference, actors)
    for actor in actors:
        ray.kill(actor)


def test_four_actors_share_one_copy(shared: Shared) -> None:
    sums = ray.get([actor.read_all.remote() for actor in shared.actors])
    assert len(set(sums)) == 1
    growth = ray.get([actor.pss_growth.remote() for actor in shared.actors])
    # Every actor has mapped every page; private copies would add up to four times the cache.
    assert sum(growth) < 1.5 * shared.cache.nbytes
    assert max(growth) < 0.5 * shared.cache.nbytes


def test_a_write_is_refused_or_lands_in_a_private_copy(shared: Shared) -> None:
    writer, reader, *_ = shared.actors
    before = ray.get(reader.read_all.remote())
    refused = ray.get(writer.try_to_write.remote())
    names = ["jobs", "row", "applicants", *shared.cache.to_arrays()[1]]
    assert set(refused) == {name + suffix for name in names for suffix in ("", " made writeable")}
    assert ray.get(reader.read_all.remote()) == before
    np.testing.assert_array_equal(shared.reference.attach().jobs, shared.cache.jobs)


def test_a_refresh_makes_a_version_of_its_own_and_running_actors_keep_theirs(store: Store, shared: Shared) -> None:
    early = shared.actors[0]
    before = ray.get(early.read_all.remote())
    put_jobs(store, ["000000", "new"], "changed")
    store.delete_records("job", ["000001"])
    (late,) = start(1, put_cache(shared.reference.attach().refresh(store)))
    assert ray.get(early.version.remote()) == (1, N_JOBS)
    assert ray.get(late.version.remote()) == (2, N_JOBS)
    assert ray.get(early.read_all.remote()) == before
    assert ray.get(late.read_all.remote()) != before
    ray.kill(late)
