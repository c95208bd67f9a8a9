from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynaq.errors import InputError
from dynaq.ingest import embed_pending, ingest_files, ingest_market
from dynaq.ingest.embedding import CHUNK
from dynaq.layout import CLASSIC, EXTENDED
from dynaq.markets import Market
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
        candidates=[Candidate(id="p", bio="b", hard_skills=("h",))],
        qrels=Qrels({"p": {"00001": 3}}),
        attribution="© us",
    )


def arrays(store: Store) -> dict[str, Any]:
    return TensorCache.copy_from_database(store, text=True).to_arrays()[1]


def test_a_market_is_written_with_relevance_attribution_and_encoder(store: Store) -> None:
    report = ingest_market(store, market(), encoder=HashEmbedder("enc", "r1"))
    assert (report.jobs.accepted, report.jobs.embedded, report.candidates.embedded) == (10, 10, 1)
    assert store.meta() == {
        "attribution": "© us", "encoder": "enc", "encoder_revision": "r1", "layout": "extended",
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
