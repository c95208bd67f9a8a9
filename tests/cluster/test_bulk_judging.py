"""Many pairs judged ahead through Ray Data: each once, bad rows apart, and again only for what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ray

from cluster.broker import start_broker
from cluster.bulk_judging import (
    JUDGE_AWAY,
    KnownIds,
    Outcome,
    count_pairs,
    file_slates,
    judge_slates,
    nearest_slates,
    pair_rows,
)
from cluster.cache import put_cache
from dynaq.errors import InputError, JudgeError
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from tests.support.judges import FINGERPRINT, RuleJudge
from tests.support.markets import APPLICANTS, make_store

KNOWN = KnownIds(frozenset(f"a{i:03d}" for i in range(APPLICANTS)), frozenset(f"j{i:03d}" for i in range(40)))


@pytest.fixture
def store(tmp_path: Path) -> str:
    make_store(str(tmp_path / "store"))
    return str(tmp_path / "store")


def pairs_file(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def pair(applicant: object, job: object) -> dict[str, object]:
    return {"applicant_id": applicant, "job_id": job}


def judged(path: Path, store: str, judge: RuleJudge) -> list[Outcome]:
    broker = start_broker(store, judge.backend())
    try:
        return list(judge_slates(file_slates(path, KNOWN), broker))
    finally:
        ray.kill(broker)


def ledger(store: str) -> set[tuple[str, str]]:
    with open_store(store, read_only=True) as opened:
        rows = opened.judgements(FINGERPRINT).to_pylist()
    assert len({(row["applicant_id"], row["job_id"]) for row in rows}) == len(rows)
    return {(row["applicant_id"], row["job_id"]) for row in rows}


def test_bad_rows_are_told_apart_with_their_line_and_reason(tmp_path: Path) -> None:
    path = pairs_file(
        tmp_path / "pairs.jsonl",
        pair("a000", "j001"),
        "{broken",
        pair("a000", "j002"),
        pair("", "j001"),
        pair("x", "y"),
    )
    rows = list(pair_rows(path, KNOWN))
    good = [row for row in rows if not row["problem"]]
    assert [(row["applicant_id"], row["job_ids"]) for row in good] == [("a000", ["j001", "j002"])]
    bad = {row["line"]: row["problem"] for row in rows if row["problem"]}
    assert set(bad) == {2, 4, 5}
    assert "not JSON" in bad[2]
    assert bad[4] == "applicant_id is missing"
    assert "'x' is not in the store" in bad[5]


def test_numeric_ids_of_a_file_are_those_of_the_store(tmp_path: Path) -> None:
    path = pairs_file(tmp_path / "pairs.jsonl", pair(17, 3))
    assert next(pair_rows(path, KnownIds(frozenset({"17"}), frozenset({"3"}))))["job_ids"] == ["3"]


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    path = pairs_file(tmp_path / "pairs.csv", "person,job_id", "a000,j001", "a001,j001")
    with pytest.raises(InputError, match="no column applicant_id"):
        count_pairs(path)


@pytest.mark.usefixtures("ray_session_fixture")
def test_all_pairs_are_judged_once_and_again_only_what_is_missing(store: str, tmp_path: Path) -> None:
    """The refusing applicant costs its own pairs; the same file, when the judge is well again, asks for those alone."""
    wanted = {(f"a{a:03d}", f"j{j:03d}") for a in range(APPLICANTS) for j in range(6)}
    path = pairs_file(tmp_path / "pairs.jsonl", *(pair(*one) for one in sorted(wanted)), pair("a000", "nowhere"))
    judge = RuleJudge(tmp_path / "asked.log", failing_applicants=("a002",))
    outcomes = judged(path, store, judge)
    assert [one.problem for one in outcomes if one.rejected] == ["job_id 'nowhere' is not in the store"]
    failed = [one for one in outcomes if one.problem and not one.rejected]
    assert {one.applicant_id for one in failed} == {"a002"}
    assert ledger(store) == {one for one in wanted if one[0] != "a002"}
    well = RuleJudge(tmp_path / "again.log")
    assert sum(one.pairs for one in judged(path, store, well)) == len(wanted)
    assert ledger(store) == wanted
    assert {applicant for applicant, _ in well.answered} == {"a002"}
    assert len(judge.answered) + len(well.answered) == len(wanted)


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_judge_that_is_away_ends_the_command_with_its_own_words(store: str, tmp_path: Path) -> None:
    rows = [pair(f"a{i % APPLICANTS:03d}", f"j{i:03d}") for i in range(2 * JUDGE_AWAY)]
    judge = RuleJudge(tmp_path / "asked.log", failing_applicants=tuple(KNOWN.applicants))
    with pytest.raises(JudgeError, match="the judge refuses applicant"):
        judged(pairs_file(tmp_path / "pairs.jsonl", *rows), store, judge)


@pytest.mark.usefixtures("ray_session_fixture")
def test_the_nearest_jobs_of_everyone(store: str, tmp_path: Path) -> None:
    with open_store(store, read_only=True) as opened:
        cache = TensorCache.copy_from_database(opened)
    broker = start_broker(store, RuleJudge(tmp_path / "asked.log").backend())
    outcomes = list(judge_slates(nearest_slates(put_cache(cache), APPLICANTS, 3), broker))
    ray.kill(broker)
    assert sum(one.pairs for one in outcomes) == 3 * APPLICANTS
    nearest = {(one, cache.job_ids[job]) for one in cache.applicant_ids for job in cache.top_k(one, 3)[0]}
    assert ledger(store) == nearest
