"""The index over the jobs: what it finds, where it lies, and that it is read in place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dynaq.errors import InputError
from dynaq.job_index import INDEX_FOLDER, JobIndex, build, fingerprint, with_index
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from tests.support.toy_market import toy_market


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_market(tmp_path_factory.mktemp("store") / "s", jobs=500, applicants=3, dimension=16).store


def test_it_finds_what_is_most_similar(store: Path) -> None:
    cache = with_index(TensorCache.copy_from_database(store))
    index = JobIndex(cache)
    queries = np.stack([index.of_applicant(name) for name in cache.applicant_ids])
    for found, name in zip(index.search(queries, 20, everywhere=True), cache.applicant_ids, strict=True):
        assert np.isin(cache.top_k(name, 10)[0], found).all()
    near = index.search(index.of_jobs([7, 400]), 5)
    assert near[:, 0].tolist() == [7, 400]


def test_it_is_built_once_and_lies_beside_the_vectors(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(store, read_only=True) as opened:
        cache = TensorCache.copy_from_database(opened)
        first = with_index(cache, opened)
        assert [file.name for file in (store / INDEX_FOLDER).iterdir()] == [f"{fingerprint(cache)}.faiss"]
        monkeypatch.setattr("dynaq.job_index.build", lambda cache: pytest.fail("built again"))
        second = with_index(TensorCache.copy_from_database(opened), opened)
        assert with_index(second) is second
    np.testing.assert_array_equal(first.job_index_bytes, second.job_index_bytes)
    np.testing.assert_array_equal(first.job_index_bytes, build(cache))
    assert isinstance(second.job_index_bytes, np.ndarray)
    assert not second.job_index_bytes.flags.writeable


def test_changed_jobs_get_another_one(tmp_path: Path) -> None:
    toy_market(tmp_path / "s", jobs=90, applicants=2, dimension=16)
    with open_store(tmp_path / "s") as opened:
        before = with_index(TensorCache.copy_from_database(opened), opened)
        opened.delete_records("job", ["job003"])
        after = with_index(TensorCache.copy_from_database(opened), opened)
        assert fingerprint(before) != fingerprint(after)
        assert [file.name for file in (tmp_path / "s" / INDEX_FOLDER).iterdir()] == [f"{fingerprint(after)}.faiss"]
        # Who has the older one mapped goes on with it.
        assert JobIndex(before).search(JobIndex(before).of_jobs([3]), 1)[0, 0] == 3


def test_it_moves_with_the_cache_and_a_cache_without_one_says_so(store: Path) -> None:
    cache = TensorCache.copy_from_database(store)
    with pytest.raises(InputError, match="with_index"):
        JobIndex(cache)
    moved = TensorCache.from_arrays(*with_index(cache).to_arrays())
    assert JobIndex(moved).search(JobIndex(moved).of_jobs([0]), 1).tolist() == [[0]]


def test_it_is_read_in_place(store: Path) -> None:
    """So the actors of a node share one copy."""
    cache = TensorCache.copy_from_database(store)
    data = build(cache)
    index = JobIndex(cache.with_job_index(data))
    query = index.of_jobs([7, 400])
    before = index.search(query, 5)
    data[len(data) // 2 :] = 0  # through the owner: the cache's own view cannot be written
    assert (index.search(query, 5) != before).any()
