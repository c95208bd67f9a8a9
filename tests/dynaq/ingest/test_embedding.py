from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynaq.errors import InputError
from dynaq.ingest import NothingAccepted, embed_pending, ingest_files, ingest_market, re_embed, require_records
from dynaq.ingest.embedding import CHUNK, stored_encoder
from dynaq.layout import CLASSIC, EXTENDED, JOB_BLOCKS
from dynaq.markets import Market
from dynaq.personal.redaction import REMOVED
from dynaq.qrels import Qrels
from dynaq.records import Candidate, Job
from dynaq.stores import Store, open_store
from dynaq.tensor_cache import TensorCache
from tests.support.embedders import HashEmbedder


@pytest.fixture
def store(store_uri: str) -> Iterator[Store]:
    with open_store(store_uri, create=True) as opened:
        yield opened


def market(n: int = 10) -> Market:
    return Market(
        jobs=[Job(id=f"{i:05d}", title=f"t{i}", description=f"d{i}", soft_skills=("s",)) for i in range(n)],
        applicants=[Candidate(id="p", bio="b", hard_skills=("h",))],
        qrels=Qrels({"p": {"00001": 3}}),
        attribution="© us",
    )


def arrays(store: Store) -> dict[str, Any]:
    return TensorCache.copy_from_database(store, text=True).to_arrays()[1]


def test_a_market_is_written_with_relevance_attribution_and_encoder(store: Store) -> None:
    report = ingest_market(store, market(), encoder=HashEmbedder("enc", "r1"))
    assert (report.jobs.accepted, report.jobs.embedded, report.candidates.embedded) == (10, 10, 1)
    assert store.meta() == {
        "attribution": "© us", "encoder": "enc", "encoder_revision": "r1", "layout": "extended", "dimension": 384,
        "languages": {"jobs": {"und": 10}, "candidates": {"und": 1}}, "personal_data": REMOVED,
    }  # fmt: skip
    qrels = store.qrels()
    assert qrels is not None
    assert qrels.grades("p") == {"00001": 3.0}


def test_only_what_is_new_or_changed_is_embedded(store: Store) -> None:
    ingest_market(store, market(), encoder=HashEmbedder())
    encoder = HashEmbedder()
    report = ingest_market(store, market(), encoder=encoder)
    assert encoder.texts == []
    assert (report.jobs.embedded, report.jobs.unchanged) == (0, 10)
    store.put_records("job", [Job(id="00003", title="other"), Job(id="new", title="new")])
    counts = embed_pending(store, encoder, EXTENDED)["jobs"]
    assert (counts.embedded, counts.unchanged) == (2, 9)
    assert {t for t in encoder.texts if t} == {"other", "new"}


@pytest.mark.slow
@pytest.mark.parametrize("calls", [0, 1, 2])
def test_an_interrupted_run_that_is_repeated_gives_the_same_store(store: Store, tmp_path: Path, calls: int) -> None:
    class Interrupted(HashEmbedder):
        left = calls

        def encode(self, texts: Any) -> Any:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            return super().encode(texts)

    size = 2 * CHUNK + 100
    with pytest.raises(KeyboardInterrupt):
        ingest_market(store, market(size), encoder=Interrupted())
    encoder = HashEmbedder()
    report = ingest_market(store, market(size), encoder=encoder)
    assert report.jobs.unchanged == min(calls * CHUNK, size)
    with open_store(tmp_path / "at-once", create=True) as other:
        ingest_market(other, market(size), encoder=HashEmbedder())
        expected = arrays(other)
    got = arrays(store)
    assert got.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)


def test_a_store_takes_vectors_of_one_encoder_only(store: Store, tmp_path: Path) -> None:
    ingest_market(store, market(), encoder=HashEmbedder("one", "r1"))
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"id": "x", "title": "t"}\n')
    for other in (HashEmbedder("two", "r1x"), HashEmbedder("one", "r2")):
        with pytest.raises(InputError, match=r"one \(r1\)"):
            ingest_files(store, jobs=[jobs], encoder=other)
    assert "x" not in store.ids("job")
    ingest_files(store, jobs=[jobs], encoder=HashEmbedder("one moved", "r1"))
    assert "x" in store.ids("job")


def test_vectors_of_an_unknown_encoder_are_not_mixed_with(store: Store) -> None:
    store.put_records("job", [Job(id="1", title="t"), Job(id="2", title="t")])
    store.put_vectors("job", ["1"], {b: np.ones((1, 384), np.float32) for b in CLASSIC.action})
    with pytest.raises(InputError, match="unknown encoder"):
        embed_pending(store, HashEmbedder(), EXTENDED)
    assert store.hashes("job") == {"1": None}


def test_a_wider_layout_embeds_again_and_a_narrower_one_does_not(store: Store) -> None:
    ingest_market(store, market(), encoder=HashEmbedder(), layout="classic")
    assert TensorCache.copy_from_database(store).layout is CLASSIC
    wider = ingest_market(store, market(), encoder=HashEmbedder(), layout="extended")
    assert wider.jobs.embedded == 10
    assert TensorCache.copy_from_database(store).layout is EXTENDED
    narrower = ingest_market(store, market(), encoder=HashEmbedder(), layout="classic")
    assert narrower.jobs.unchanged == 10
    assert TensorCache.copy_from_database(store).layout is CLASSIC


def test_a_store_keeps_its_layout_when_none_is_asked_for(store: Store) -> None:
    ingest_market(store, market(), encoder=HashEmbedder(), layout="classic")
    ingest_market(store, market(12), encoder=HashEmbedder())
    assert store.meta()["layout"] == "classic"


def test_empty_texts_are_zeros_and_similar_to_nothing(store: Store) -> None:
    ingest_market(store, market(), encoder=HashEmbedder())
    cache = TensorCache.copy_from_database(store)
    assert not cache.jobs[:, EXTENDED.action_slice("technical_skills")].any()
    assert not cache.block_similarities("p")[:, 0].any()


def test_an_encoder_that_gives_nan_is_stopped_before_the_store(store: Store) -> None:
    class Broken(HashEmbedder):
        def encode(self, texts: Any) -> Any:
            return np.full((len(texts), 384), np.nan, np.float32)

    with pytest.raises(InputError, match="NaN"):
        ingest_market(store, market(), encoder=Broken())
    assert store.hashes("job") == {}


def test_a_text_that_many_records_have_is_encoded_once_in_a_run(store: Store) -> None:
    encoder = HashEmbedder()
    ingest_market(store, market(2 * CHUNK + 10), encoder=encoder)
    assert encoder.texts.count("s") == 1
    assert encoder.texts.count("t5") == 1


@pytest.mark.parametrize("dimension", [7, 96, 512, 1030])
def test_a_store_of_any_dimension_goes_the_whole_way(store: Store, dimension: int) -> None:
    ingest_market(store, market(), encoder=HashEmbedder(dimension=dimension))
    assert (store.meta()["dimension"], store.dimension()) == (dimension, dimension)
    cache = TensorCache.copy_from_database(store)
    assert cache.jobs.shape == (10, 5 * dimension)
    assert cache.applicants.shape == (1, 3 * dimension)
    again = TensorCache.from_arrays(*cache.to_arrays())
    assert again.layout == cache.layout
    expected = HashEmbedder(dimension=dimension).encode(["t3"])[0]
    np.testing.assert_array_equal(cache.jobs[3, cache.layout.action_slice("title")], expected)
    assert np.isfinite(cache.calculate_cosine_similarities("p")).all()


def test_vectors_in_files_are_measured_by_the_encoder_of_a_new_store_and_by_a_store_that_is_there(
    store: Store, tmp_path: Path
) -> None:
    fields = [JOB_BLOCKS[block] for block in CLASSIC.action]
    record = {"id": "1", "title": "t"} | {field: [1.0] * 96 for field in fields}
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    files = {"jobs": [tmp_path / "a.jsonl"]}
    encoder = HashEmbedder(dimension=96)

    require_records(**files, encoder=encoder)
    with pytest.raises(NothingAccepted, match="384"):
        require_records(**files)

    ingest_files(store, **files, encoder=encoder, layout="classic")
    np.testing.assert_array_equal(next(iter(store.vectors("job", CLASSIC.action))).blocks["title"], np.ones((1, 96)))
    assert ingest_files(store, **files, dry_run=True).jobs.accepted == 1


def test_a_vector_of_another_dimension_does_not_get_in(store: Store) -> None:
    ingest_market(store, market(), encoder=HashEmbedder(dimension=96))
    with pytest.raises(InputError, match="96"):
        store.put_vectors("job", ["00001"], {"title": np.ones((1, 384), np.float32)})


def test_another_encoder_is_refused_with_the_command_that_changes_it(store: Store) -> None:
    ingest_market(store, market(), encoder=HashEmbedder("one", "r1"))
    with pytest.raises(InputError, match=r"--re-embed --encoder two"):
        ingest_market(store, market(), encoder=HashEmbedder("two", "r2"))


def test_re_embedding_gives_the_store_that_the_new_encoder_would_have_made(store: Store, tmp_path: Path) -> None:
    ingest_market(store, market(), encoder=HashEmbedder("one", "r1"))
    old = TensorCache.copy_from_database(store, text=True)
    counts = re_embed(store, HashEmbedder("two", "r2", 96), EXTENDED)
    assert (counts["jobs"].embedded, counts["candidates"].embedded) == (10, 1)
    with open_store(tmp_path / "new", create=True) as other:
        ingest_market(other, market(), encoder=HashEmbedder("two", "r2", 96))
        expected, meta = arrays(other), other.meta()
    got = arrays(store)
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    assert store.meta() == meta
    # The texts have not changed, nor have their hashes; the vectors must be read again nevertheless.
    refreshed = old.refresh(store)
    np.testing.assert_array_equal(refreshed.jobs, expected["jobs"])
    assert re_embed(store, HashEmbedder("two", "r2", 96), EXTENDED)["jobs"].embedded == 0


def test_vectors_of_an_unknown_encoder_are_replaced(store: Store) -> None:
    store.put_records("job", [Job(id="1", title="t")])
    store.put_vectors("job", ["1"], {b: np.ones((1, 384), np.float32) for b in CLASSIC.action})
    re_embed(store, HashEmbedder(dimension=96), EXTENDED)
    (batch,) = store.vectors("job", ["title"])
    np.testing.assert_array_equal(batch.blocks["title"], HashEmbedder(dimension=96).encode(["t"]))


@pytest.mark.slow
def test_a_change_of_encoder_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    uri, size = str(tmp_path / "store"), 3 * CHUNK
    with open_store(uri, create=True) as store:
        ingest_market(store, market(size), encoder=HashEmbedder("one", "r1"))
    program = f"""
import os, signal
from dynaq.ingest import re_embed
from dynaq.layout import EXTENDED
from dynaq.stores import open_store
from tests.support.embedders import HashEmbedder

class Killed(HashEmbedder):
    calls = 0
    def encode(self, texts):
        self.calls += 1
        if self.calls == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(texts)

with open_store({uri!r}) as store:
    re_embed(store, Killed("two", "r2", 96), EXTENDED)
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=False)
    assert killed.returncode == -signal.SIGKILL
    with open_store(uri) as store:
        counts = re_embed(store, HashEmbedder("two", "r2", 96), EXTENDED)["jobs"]
        assert (counts.embedded, counts.unchanged) == (2 * CHUNK, CHUNK)
        assert store.meta()["encoder"] == "two"
        cache = TensorCache.copy_from_database(store)
        expected = HashEmbedder("two", "r2", 96).encode([f"t{i}" for i in range(size)])
        np.testing.assert_array_equal(cache.jobs[:, cache.layout.action_slice("title")], expected)


RUSSIAN = "Мы ищем визажиста в салон красоты, опыт работы от одного года"
ENGLISH = "We are looking for an experienced nurse for our hospital in the city"


def test_records_are_counted_by_language_as_they_come_change_and_go(store: Store) -> None:
    def languages() -> dict[str, int]:
        counts: dict[str, int] = store.meta()["languages"]["jobs"]
        return counts

    store.put_records("job", [Job(id=str(i), title="t", description=RUSSIAN) for i in range(3)])
    embed_pending(store, HashEmbedder(), EXTENDED)
    assert languages() == {"ru": 3}
    store.put_records("job", [Job(id="3", title="t", description=ENGLISH)])
    embed_pending(store, HashEmbedder(), EXTENDED)
    assert languages() == {"en": 1, "ru": 3}
    store.put_records("job", [Job(id="0", title="t", description=ENGLISH)])
    embed_pending(store, HashEmbedder(), EXTENDED)
    assert languages() == {"en": 2, "ru": 2}
    store.delete_records("job", ["1", "2"])
    embed_pending(store, HashEmbedder(), EXTENDED)
    assert languages() == {"en": 2}


def test_without_a_name_a_store_s_packaged_encoder_is_taken(store: Store) -> None:
    assert stored_encoder(store) is None
    store.put_meta(encoder="all-MiniLM-L6-v2", encoder_revision="x")
    assert stored_encoder(store) == "all-MiniLM-L6-v2"
    store.put_meta(encoder="somebody's own")
    assert stored_encoder(store) is None
