from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynaq.errors import InputError
from dynaq.layout import CLASSIC, EXTENDED, Layout
from dynaq.records import Candidate, Job
from dynaq.stores import Kind, Store, open_store
from dynaq.tensor_cache import TensorCache

rng = np.random.default_rng(3)


def fill(store: Store, job_ids: Sequence[str], layout: Layout = EXTENDED, tag: str = "h") -> None:
    n = len(job_ids)
    store.put_records("job", (Job(id=id_, title=f"Title {id_} {tag}") for id_ in job_ids))
    store.put_vectors(
        "job",
        job_ids,
        {b: rng.standard_normal((n, 384)).astype(np.float32) for b in layout.action},
        [f"{tag}{id_}" for id_ in job_ids],
    )


def fill_cohort(store: Store, ids: Sequence[str], layout: Layout = EXTENDED) -> None:
    store.put_records("candidate", (Candidate(id=id_, bio=f"Bio {id_}") for id_ in ids))
    blocks = {b: rng.standard_normal((len(ids), 384)).astype(np.float32) for b in layout.state}
    store.put_vectors("candidate", ids, blocks, [f"h{id_}" for id_ in ids])


IDS = [f"job{i:04d}" for i in range(300)]


@pytest.fixture
def store(store_uri: str) -> Store:
    store = open_store(store_uri, create=True)
    fill(store, IDS)
    fill_cohort(store, ["ann", "bob"])
    store.put_meta(layout="extended")
    return store


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    store = open_store(tmp_path / "s", create=True)
    fill(store, IDS)
    fill_cohort(store, ["ann", "bob"])
    return store


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm else 0.0


def test_rows_follow_ids_in_order_and_blocks_the_layout(store: Store) -> None:
    cache = TensorCache.copy_from_database(store)
    assert cache.layout is EXTENDED
    assert cache.job_ids == tuple(IDS)
    assert cache.applicant_ids == ("ann", "bob")
    assert cache.jobs.shape == (300, 1920)
    assert cache.applicants.shape == (2, 1152)
    assert cache.job_index("job0042") == 42
    batches = store.vectors("job", ["description"])
    rows = {id_: batch.blocks["description"][i] for batch in batches for i, id_ in enumerate(batch.ids)}
    for id_ in ("job0000", "job0042", "job0299"):
        got = cache.jobs[cache.job_index(id_), EXTENDED.action_slice("description")]
        np.testing.assert_array_equal(got, rows[id_])


def test_the_layout_is_classic_where_the_store_does_not_say(folder_store: Store) -> None:
    assert TensorCache.copy_from_database(folder_store).layout is CLASSIC


def test_classic_similarity_is_one_cosine_with_the_first_768(folder_store: Store) -> None:
    cache = TensorCache.copy_from_database(folder_store, layout="classic")
    got = cache.calculate_cosine_similarities("bob")
    expected = [cosine(cache.applicants[1], row[:768]) for row in cache.jobs]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert got.dtype == np.float32


def test_extended_similarity_is_the_mean_of_the_pairs_cosines(folder_store: Store) -> None:
    cache = TensorCache.copy_from_database(folder_store, layout="extended")
    pairs = cache.block_similarities("ann")
    for p, (s, a) in enumerate(EXTENDED.pairs):
        state, action = cache.applicants[0, EXTENDED.state_slice(s)], cache.jobs[:, EXTENDED.action_slice(a)]
        np.testing.assert_allclose(pairs[:, p], [cosine(state, row) for row in action], atol=1e-6)
    np.testing.assert_allclose(cache.calculate_cosine_similarities("ann"), pairs.mean(axis=1), atol=1e-6)


def test_a_missing_block_has_similarity_zero(folder_store: Store) -> None:
    blocks = {b: np.zeros((1, 384), np.float32) for b in EXTENDED.action}
    folder_store.put_vectors("job", ["job0000"], blocks)
    for layout in ("classic", "extended"):
        cache = TensorCache.copy_from_database(folder_store, layout=layout)
        assert cache.calculate_cosine_similarities("ann")[0] == 0.0


def test_similarities_stay_within_one_for_equal_vectors(folder_store: Store) -> None:
    vector = np.full((1, 384), 0.3, np.float32)
    folder_store.put_vectors("job", ["job0000"], dict.fromkeys(EXTENDED.action, vector))
    folder_store.put_vectors("candidate", ["ann"], dict.fromkeys(EXTENDED.state, vector))
    for layout in ("classic", "extended"):
        top = TensorCache.copy_from_database(folder_store, layout=layout).calculate_cosine_similarities("ann")[0]
        assert 0.99999 < top <= 1.0


def test_float16_takes_half_the_memory_and_ranks_alike(folder_store: Store) -> None:
    full = TensorCache.copy_from_database(folder_store, layout="extended")
    half = TensorCache.copy_from_database(folder_store, layout="extended", dtype="float16")
    assert half.jobs.nbytes * 2 == full.jobs.nbytes
    got, expected = (c.calculate_cosine_similarities("ann") for c in (half, full))
    np.testing.assert_allclose(got, expected, atol=1e-3)
    assert half.get_applicant_state("ann").dtype == torch.float32
    with pytest.raises(InputError, match="float64"):
        TensorCache.copy_from_database(folder_store, dtype="float64")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("k", [1, 10, 299, 300, 1000, 0])
def test_top_k_is_exact_with_ties_in_row_order(folder_store: Store, k: int, dtype: Any) -> None:
    same = np.ones((40, 384), np.float32)
    folder_store.put_vectors("job", IDS[100:140], dict.fromkeys(EXTENDED.action, same))
    cache = TensorCache.copy_from_database(folder_store, layout="extended", dtype=dtype)
    similarities = cache.calculate_cosine_similarities("ann")
    expected = np.argsort(-similarities, kind="stable")[:k]
    rows, values = cache.top_k("ann", k)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(values, similarities[expected])


def test_unknown_ids_are_input_errors(folder_store: Store) -> None:
    cache = TensorCache.copy_from_database(folder_store)
    with pytest.raises(InputError, match=r"'nobody'.*2 applicants"):
        cache.get_applicant_state("nobody")
    with pytest.raises(InputError, match=r"'nothing'.*300 jobs"):
        cache.job_index("nothing")
    with pytest.raises(InputError, match="without text"):
        cache.job_text(0)


def test_samples_are_distinct_seeded_and_leave_out_what_is_excluded(folder_store: Store) -> None:
    cache = TensorCache.copy_from_database(folder_store)
    banned = set(range(0, 300, 2))
    drawn = cache.sample_jobs(50, np.random.default_rng(1), exclude=banned)
    assert drawn.dtype == np.int64
    assert len(set(drawn.tolist())) == 50
    assert not banned & set(drawn.tolist())
    np.testing.assert_array_equal(drawn, cache.sample_jobs(50, np.random.default_rng(1), exclude=banned))
    assert sorted(cache.sample_jobs(500, np.random.default_rng(2), exclude=banned)) == list(range(1, 300, 2))
    counts = np.zeros(300)
    generator = np.random.default_rng(4)
    for _ in range(2000):
        counts[cache.sample_jobs(3, generator, exclude=range(290))] += 1
    assert (counts[:290] == 0).all()
    assert abs(counts[290:] - 600).max() < 100


def test_nothing_that_is_returned_writes_to_the_shared_arrays(folder_store: Store) -> None:
    cache = TensorCache.copy_from_database(folder_store, layout="extended", text=True)
    before = {name: array.copy() for name, array in cache.to_arrays()[1].items()}
    cache.get_applicant_state("ann").fill_(9)
    cache.get_job_vector_by_index(0).fill_(9)
    cache.get_job_vectors([0, 1]).fill_(9)
    cache.get_job_vectors(np.arange(300)).fill_(9)
    cache.calculate_cosine_similarities("ann").fill(9)
    cache.calculate_cosine_similarities(cache.get_applicant_state("ann")).fill_(9)
    cache.block_similarities("ann").fill(9)
    cache.top_k("ann", 5)[1].fill(9)
    for array in (cache.jobs, cache.applicants, cache.jobs[0], *cache.to_arrays()[1].values()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 9
    for name, array in cache.to_arrays()[1].items():
        np.testing.assert_array_equal(array, before[name])


def test_arrays_make_the_same_cache_without_a_copy(folder_store: Store) -> None:
    cache = TensorCache.copy_from_database(folder_store, layout="extended", text=True)
    again = TensorCache.from_arrays(*cache.to_arrays())
    assert np.shares_memory(again.jobs, cache.jobs)
    assert again.job_ids == cache.job_ids
    assert again.version == cache.version
    assert again.job_text(7) == Job(id="job0007", title="Title job0007 h")
    assert again.applicant_text(1).bio == "Bio bob"


def test_text_of_any_language_survives(folder_store: Store) -> None:
    folder_store.put_records("job", [Job(id="job0005", title="看護師 🙂", metadata={"ß": [1]})])
    cache = TensorCache.copy_from_database(folder_store, text=True)
    assert cache.job_text(5) == next(folder_store.records("job", ["job0005"]))


class CountingStore:
    """Passes on to a store and remembers which vectors were read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.read: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def vectors(self, kind: Kind, blocks: Sequence[str], **options: Any) -> Any:
        for batch in self._store.vectors(kind, blocks, **options):
            if kind == "job":
                self.read += batch.ids
            yield batch


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_refresh_reads_only_what_changed_and_leaves_the_old_version_alone(store: Store, dtype: Any) -> None:
    old = TensorCache.copy_from_database(store, dtype=dtype, text=True)
    old_jobs = old.jobs.copy()
    fill(store, ["job0001", "job0200"], tag="changed")
    fill(store, ["aaa", "zzz"])
    store.delete_records("job", ["job0100", "job0299"])
    counting = CountingStore(store)
    new = old.refresh(counting)  # type: ignore[arg-type]
    assert sorted(counting.read) == ["aaa", "job0001", "job0200", "zzz"]
    expected = TensorCache.copy_from_database(store, dtype=dtype, text=True)
    assert new.version == old.version + 1
    assert new.job_ids == expected.job_ids
    for name, array in expected.to_arrays()[1].items():
        np.testing.assert_array_equal(new.to_arrays()[1][name], array, err_msg=name)
    np.testing.assert_array_equal(old.jobs, old_jobs)
    assert "job0100" in old.job_ids
    counting.read.clear()
    new.refresh(counting)  # type: ignore[arg-type]
    assert counting.read == []


def test_vectors_without_a_hash_are_always_read_again(folder_store: Store) -> None:
    vector = np.ones((1, 384), np.float32)
    folder_store.put_vectors("job", ["job0000"], dict.fromkeys(EXTENDED.action, vector))
    cache = TensorCache.copy_from_database(folder_store, layout="extended")
    folder_store.put_vectors("job", ["job0000"], dict.fromkeys(EXTENDED.action, 2 * vector))
    assert (cache.refresh(folder_store).jobs[0] == 2).all()


def test_jobs_without_vectors_are_left_out_and_named(folder_store: Store, caplog: pytest.LogCaptureFixture) -> None:
    folder_store.put_records("job", [Job(id="job0000x", title="t")])
    cache = TensorCache.copy_from_database(folder_store)
    assert cache.job_ids == tuple(IDS)
    assert "1 jobs left out" in caplog.text


def test_a_store_without_usable_vectors_is_an_input_error(tmp_path: Path) -> None:
    with open_store(tmp_path / "s", create=True) as store:
        with pytest.raises(InputError, match=r"no jobs.*dynaq ingest"):
            TensorCache.copy_from_database(store)
        store.put_records("job", [Job(id="1", title="t")])
        with pytest.raises(InputError, match=r"none of its 1 jobs has usable vectors.*dynaq ingest"):
            TensorCache.copy_from_database(store)
        fill(store, ["1"], CLASSIC)
        fill_cohort(store, ["p"], CLASSIC)
        assert len(TensorCache.copy_from_database(store).job_ids) == 1
        with pytest.raises(InputError, match=r"description_embeddings.*layout"):
            TensorCache.copy_from_database(store, layout="extended")
        with pytest.raises(InputError, match="'nonsense'"):
            TensorCache.copy_from_database(store, layout="nonsense")


def test_a_few_records_can_be_loaded_alone(store: Store) -> None:
    few = TensorCache.copy_from_database(store, ["bob"], job_ids=[IDS[3], IDS[250]])
    everything = TensorCache.copy_from_database(store)
    assert (few.job_ids, few.applicant_ids) == ((IDS[3], IDS[250]), ("bob",))
    assert few.calculate_cosine_similarities("bob") == pytest.approx(
        everything.calculate_cosine_similarities("bob")[[3, 250]], abs=1e-6
    )


@pytest.mark.parametrize("by_uri", [False, True])
def test_the_example_that_the_project_began_with(store: Store, by_uri: bool) -> None:
    device, applicant_ids, applicant_id, job_idx = "cpu", ["bob"], "bob", 7
    db_connector = store.uri if by_uri else store

    tensor_cache = TensorCache(device=device)
    tensor_cache.copy_from_database(db_connector, applicant_ids)
    state_tensor = tensor_cache.get_applicant_state(applicant_id)
    action_tensor = tensor_cache.get_job_vector_by_index(job_idx)
    similarities = tensor_cache.calculate_cosine_similarities(state_tensor)

    assert tensor_cache.applicant_ids == ("bob",)
    assert tensor_cache.job_ids == tuple(IDS)
    assert (state_tensor.shape, state_tensor.dtype) == ((1152,), torch.float32)
    assert (action_tensor.shape, action_tensor.dtype) == ((1920,), torch.float32)
    assert (similarities.shape, similarities.dtype) == ((300,), torch.float32)
    blocks = {s: state_tensor[EXTENDED.state_slice(s)].numpy() for s in EXTENDED.state}
    pairs = [cosine(blocks[s], action_tensor[EXTENDED.action_slice(a)].numpy()) for s, a in EXTENDED.pairs]
    assert float(similarities[job_idx]) == pytest.approx(np.mean(pairs), abs=1e-6)
    everything = TensorCache.copy_from_database(store)
    np.testing.assert_array_equal(action_tensor, everything.get_job_vector_by_index(job_idx))
    np.testing.assert_allclose(similarities, everything.calculate_cosine_similarities("bob"), atol=1e-6)


@pytest.mark.parametrize("layout", ["classic", "extended"])
def test_a_state_is_compared_as_the_applicant_it_belongs_to(folder_store: Store, layout: str) -> None:
    cache = TensorCache.copy_from_database(folder_store, layout=layout)
    state = cache.get_applicant_state("ann")
    expected = cache.calculate_cosine_similarities("ann")
    np.testing.assert_allclose(cache.calculate_cosine_similarities(state), expected, atol=1e-6)
    np.testing.assert_allclose(cache.calculate_cosine_similarities(3 * state.double()), expected, atol=1e-6)
    assert not cache.calculate_cosine_similarities(torch.zeros_like(state)).any()
    for wrong in (state[:-1], state[None]):
        with pytest.raises(InputError, match=rf"{layout} layout is a vector of {len(state)} values"):
            cache.calculate_cosine_similarities(wrong)


def test_a_cache_is_filled_once(folder_store: Store) -> None:
    cache = TensorCache()
    with pytest.raises(InputError, match="empty"):
        cache.get_applicant_state("ann")
    assert cache.copy_from_database(folder_store) is cache
    with pytest.raises(InputError, match="filled already"):
        cache.copy_from_database(folder_store)
    assert TensorCache.copy_from_database(folder_store) is not cache


def test_ids_that_name_nothing_are_input_errors(folder_store: Store) -> None:
    with pytest.raises(InputError, match="at least one"):
        TensorCache().copy_from_database(folder_store, [])
    with pytest.raises(InputError, match="layout='classic'"):
        TensorCache().copy_from_database(folder_store, "classic")
    with pytest.raises(InputError, match="none of its 1 applicants"):
        TensorCache().copy_from_database(folder_store, ["nobody"])
    some = TensorCache().copy_from_database(folder_store, ["nobody", "bob", "bob"])
    assert some.applicant_ids == ("bob",)


def test_tensors_are_on_the_caches_device(folder_store: Store) -> None:
    cache = TensorCache(torch.device("meta")).copy_from_database(folder_store)
    state = cache.get_applicant_state("ann")
    assert (state.device.type, state.shape) == ("meta", (768,))
    assert cache.get_job_vector_by_index(0).device.type == "meta"
    assert cache.get_job_vectors([0, 1]).device.type == "meta"
    assert cache.refresh(folder_store).device.type == "meta"
    on_cpu = TensorCache.copy_from_database(folder_store).get_applicant_state("ann")
    assert cache.calculate_cosine_similarities(on_cpu).device.type == "meta"


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_an_input_error(device: str) -> None:
    with pytest.raises(InputError, match=rf"device '{device}' cannot be used here"):
        TensorCache(device=device)
