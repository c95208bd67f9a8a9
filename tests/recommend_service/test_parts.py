"""Rankings, limits and settings on their own."""

from __future__ import annotations

import shutil
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pymongo
import pytest

from dynaq.errors import InputError
from dynaq.runs.q_table import ServedRun
from dynaq.stores import Kind, mongo_version, open_store
from recommend_service.applicant_ranking import Ranker
from recommend_service.catalogue import Catalogue
from recommend_service.config import RecommendConfig
from recommend_service.rate_limit import CALLERS, TokenBuckets
from recommend_service.slates import SUMMARY, blend, summary
from tests.support import recommend_market as market

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    with open_store(market.make_market(str(tmp_path / "store")), read_only=True) as store:
        return Catalogue.load(store)


def test_a_ranking_is_that_of_q_and_equals_keep_the_catalogues_order(catalogue: Catalogue, tmp_path: Path) -> None:
    q = np.random.default_rng(0).integers(0, 5, market.JOBS).astype(np.float32)
    market.make_run(tmp_path / "run", {"a0": q})
    ranker = Ranker(catalogue, ServedRun.open(str(tmp_path / "run")), 10)
    who = catalogue.vectors_of("a0")
    assert who is not None
    ranking = ranker.rank(who, 10)
    assert ranking.rows.tolist() == sorted(range(market.JOBS), key=lambda row: (-q[row], row))
    np.testing.assert_array_equal(ranking.scores, q[ranking.rows])
    assert ranking.whole


def test_only_the_top_is_kept_and_a_deeper_question_is_answered_anew(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recommend_service.applicant_ranking.DEPTH", 5)
    ranker = Ranker(catalogue, None, 10)
    who = catalogue.vectors_of("a1")
    assert who is not None
    top = ranker.rank(who, 3)
    assert (len(top.rows), top.whole) == (5, False)
    assert ranker.peek("a1", 5) is top
    assert ranker.peek("a1", 6) is None
    deeper = ranker.rank(who, 12)
    assert len(deeper.rows) == 12
    assert deeper.rows[:5].tolist() == top.rows.tolist()


def test_the_rankings_that_were_asked_for_lately_are_kept(catalogue: Catalogue) -> None:
    ranker = Ranker(catalogue, None, 2)
    for name in ("a0", "a1"):
        who = catalogue.vectors_of(name)
        assert who is not None
        ranker.rank(who, 3)
    assert ranker.peek("a0", 3) is not None
    newest = catalogue.vectors_of("a2")
    assert newest is not None
    ranker.rank(newest, 3)
    assert [name for name in ("a0", "a1", "a2") if ranker.peek(name, 3)] == ["a0", "a2"]
    assert ranker.cached == 2


def test_jobs_that_came_after_training_take_the_q_of_the_most_similar(catalogue: Catalogue, tmp_path: Path) -> None:
    known = market.JOB_IDS[:-1]
    market.make_run(tmp_path / "run", {"a0": np.arange(len(known))}, known)
    ranking = Ranker(catalogue, ServedRun.open(str(tmp_path / "run")), 10)
    who = catalogue.vectors_of("a0")
    assert who is not None
    ranked = ranking.rank(who, 50)
    place = ranked.rows.tolist().index(market.JOBS - 1)
    assert ranked.estimated.tolist() == [i == place for i in range(market.JOBS)]
    nearest, weights = catalogue.nearest(np.array([market.JOBS - 1]), np.arange(len(known)), 8)
    assert ranked.scores[place] == pytest.approx(float((nearest[0] * weights[0]).sum()), abs=1e-4)
    itself, weight = catalogue.nearest(np.array([4]), np.arange(market.JOBS), 3)
    assert itself[0, weight[0].argmax()] == 4


def test_an_agents_candidates_are_ranked_and_nothing_else(catalogue: Catalogue, tmp_path: Path) -> None:
    columns, q = np.array([[20, 4, 11, 7]]), np.array([0.5, 2.0, 0.5, 1.0])
    market.make_run(tmp_path / "run", {"a0": q}, columns=columns)
    ranker = Ranker(catalogue, ServedRun.open(str(tmp_path / "run")), 10)
    who = catalogue.vectors_of("a0")
    assert who is not None
    ranking = ranker.rank(who, 10)
    assert ranking.rows.tolist() == [4, 7, 11, 20]
    assert ranking.scores.tolist() == [2.0, 1.0, 0.5, 0.5]
    assert ranking.whole
    assert not ranking.estimated.any()
    assert ranker.peek("a0", 10) is ranking


def test_a_new_job_is_estimated_if_most_of_what_it_resembles_are_candidates(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    known, new = market.JOB_IDS[:-1], market.JOBS - 1
    nearest, weights = catalogue.nearest(np.array([new]), np.arange(len(known)), 8)
    order = np.argsort(-weights[0])
    heavy = nearest[0][order[: int(np.searchsorted(weights[0][order].cumsum(), 0.5)) + 1]]
    near = np.sort(heavy)
    others = np.setdiff1d(np.arange(len(known)), nearest[0])[: len(near)]
    q = np.linspace(1.0, 2.0, len(near))
    market.make_run(tmp_path / "run", {"a0": q, "a1": q}, known, np.stack([near, others]))
    ranker = Ranker(catalogue, ServedRun.open(str(tmp_path / "run")), 10)
    rankings = []
    for name in ("a0", "a1"):
        who = catalogue.vectors_of(name)
        assert who is not None
        rankings.append(ranker.rank(who, 10))
    place = rankings[0].rows.tolist().index(new)
    assert rankings[0].estimated.nonzero()[0].tolist() == [place]
    assert 1.0 <= rankings[0].scores[place] <= 2.0
    assert new not in rankings[1].rows


def test_an_unchanged_store_gives_the_same_catalogue(catalogue: Catalogue, tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store")) as store:
        assert Catalogue.load(store, catalogue) is catalogue
        store.delete_records("job", ["j03"])
        newer = Catalogue.load(store, catalogue)
    assert "j03" in catalogue.rows
    assert "j03" not in newer.rows


def test_an_unchanged_store_is_not_read(catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError

    with open_store(str(tmp_path / "store"), read_only=True) as store:
        monkeypatch.setattr(store, "hashes", read)
        assert Catalogue.load(store, catalogue) is catalogue


def test_a_database_is_read_only_when_something_was_written(mongo_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo_version, "SETTLED_SECONDS", 0.0)
    market.make_market(mongo_uri)
    reads: list[Kind] = []
    with open_store(mongo_uri, read_only=True) as store:
        hashes = store.hashes

        def counted(kind: Kind) -> dict[str, str | None]:
            reads.append(kind)
            return hashes(kind)

        monkeypatch.setattr(store, "hashes", counted)
        first = Catalogue.load(store)
        reads.clear()
        assert Catalogue.load(store, first) is first
        assert not reads
        database: Any = pymongo.MongoClient(mongo_uri).get_default_database()
        database.jobs_text.delete_one({"_id": first.job_ids[0]})  # by hand
        second = Catalogue.load(store, first)
        assert second.job_ids == first.job_ids[1:]
        reads.clear()
        assert Catalogue.load(store, second) is second
        assert not reads


def test_a_store_made_anew_is_read_again(catalogue: Catalogue, tmp_path: Path) -> None:
    shutil.move(tmp_path / "store", tmp_path / "old")
    market.make_market(str(tmp_path / "store"))
    with open_store(str(tmp_path / "store"), read_only=True) as store:
        with open_store(str(tmp_path / "old"), read_only=True) as old:
            assert store.catalogue_version() != old.catalogue_version()
        assert Catalogue.load(store, catalogue) is catalogue  # the same records, and the digest says so


def test_a_bucket_fills_with_time_and_each_caller_has_one() -> None:
    now = 0.0
    buckets = TokenBuckets(2.0, 4.0, clock=lambda: now)
    assert buckets.wait("a", 4) == 0.0
    assert buckets.wait("a") == pytest.approx(0.5)
    assert buckets.wait("b", 4) == 0.0
    now = 0.6
    assert buckets.wait("a") == 0.0
    now = 100.0
    assert buckets.wait("a", 4) == 0.0
    assert buckets.wait("a") > 0  # never more than its size
    for i in range(CALLERS + 5):
        buckets.wait(f"caller {i}")
    assert len(buckets._levels) == CALLERS


def test_a_blend_is_the_agents_order_at_weight_0_and_the_wishs_at_1() -> None:
    scores, similar = np.float32([3, 2, 1]), np.float32([0.1, 0.2, 0.9])
    assert np.argsort(-blend(scores, similar, 0.0)).tolist() == [0, 1, 2]
    assert np.argsort(-blend(scores, similar, 1.0)).tolist() == [2, 1, 0]
    assert np.isfinite(blend(np.float32([1, 1]), np.float32([0, 0]), 0.5)).all()
    assert len(blend(np.float32([]), np.float32([]), 0.5)) == 0


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"store": "s"}, "name either a run folder"),
        ({"store": "s", "run": "r", "serving": "p"}, "name either a run folder"),
        ({"run": "r"}, "needs store; name it with --store"),
        ({"store": "s", "run": "r", "preference_weight": 2}, "preference_weight"),
        ({"store": "s", "run": "r", "colour": "red"}, "colour"),
        ({"store": "s", "run": "r", "feedback_burst": 5}, "feedback_burst must allow a batch"),
    ],
)
def test_settings_that_are_wrong_name_their_field(values: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        RecommendConfig.load(None, **values)


def test_the_key_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNAQ_API_KEY", "s3cret")
    config = RecommendConfig(store="s", run="r").with_secrets()
    assert config.api_key == "s3cret"
    assert "s3cret" not in repr(config)


def test_a_summary_is_whole_words_and_never_too_long() -> None:
    assert summary(" Sells\n\tbread.  ") == "Sells bread."
    assert summary("") == ""
    exact = "ab " * (SUMMARY // 3 - 1) + "abc"
    assert len(exact) == SUMMARY
    assert summary(exact) == exact
    assert summary(exact + "d") == exact.rpartition(" ")[0] + " …"
    words = "Bakes and sells bread. " * 30
    assert summary(words) == textwrap.shorten(words, SUMMARY, placeholder=" …")
    assert summary("x" * 1000) == "x" * (SUMMARY - 2) + " …"
