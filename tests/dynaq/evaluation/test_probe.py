"""A judge's blindness shows in few pairs, and a judge that sees is not taken for a blind one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynaq.evaluation.probe import PROBE_PAIRS, examine, probe_slates
from dynaq.judging.judgement import Judgement, abstention, judgement_from_probabilities
from tests.support.toy_market import ToyMarket, toy_market

CERTAIN = {"APPLY": (1, 0, 0, 0), "CLICK": (0, 0, 1, 0), "IGNORE": (0, 0, 0, 1)}


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> ToyMarket:
    return toy_market(tmp_path_factory.mktemp("market"), jobs=300)


def answer(label: str, job_id: str = "j") -> Judgement:
    if label == "none":
        return abstention("a", job_id, judge="x", note="the job has no readable text")
    return judgement_from_probabilities("a", job_id, CERTAIN[label], judge="x")


def test_the_pairs_span_near_and_far_and_are_the_same_every_time(market: ToyMarket) -> None:
    cache = market.cache
    slates = probe_slates(cache, cache.applicant_ids)
    assert slates == probe_slates(cache, cache.applicant_ids)
    assert slates != probe_slates(cache, cache.applicant_ids, seed=1)
    assert sum(len(slate.job_ids) for slate in slates) == PROBE_PAIRS
    for slate in slates:
        cosines = cache.calculate_cosine_similarities(slate.applicant_id)
        shown = [cosines[cache.job_index(job_id)] for job_id in slate.job_ids]
        assert shown == sorted(shown, reverse=True)
        assert shown[0] == cosines.max()
        assert (cosines < shown[-1]).mean() < 0.15
        assert len(set(slate.job_ids)) == len(slate.job_ids)


@pytest.mark.parametrize("jobs", [1, 2, 5, 9])
def test_a_small_catalogue_gives_fewer_pairs_and_none_twice(tmp_path: Path, jobs: int) -> None:
    cache = toy_market(tmp_path, jobs=jobs, applicants=2).cache
    for slate in probe_slates(cache, cache.applicant_ids):
        assert 1 <= len(slate.job_ids) <= jobs
        assert len(set(slate.job_ids)) == len(slate.job_ids)


@pytest.mark.parametrize(
    ("labels", "blind"),
    [
        (["IGNORE"] * 64, True),
        (["APPLY"] * 61 + ["IGNORE"] * 3, True),  # 95.3 %
        (["IGNORE"] * 60 + ["APPLY"] * 4, False),  # 93.8 %
        (["none"] * 64, True),
        (["none"] * 40 + ["APPLY"] * 12 + ["IGNORE"] * 12, False),
        (["IGNORE"] * 7, False),  # too few to tell
    ],
)
def test_one_answer_to_95_percent_is_blind(labels: list[str], blind: bool) -> None:
    slates = [[answer(label) for label in labels[i : i + 8]] for i in range(0, len(labels), 8)]
    assert examine(slates).blind is blind


def test_a_share_of_the_catalogue_is_estimated_from_the_strata() -> None:
    only_the_nearest = [[answer("APPLY"), *[answer("IGNORE")] * 7]] * 8
    assert examine(only_the_nearest).above_ignore == pytest.approx(0.01)
    assert examine(only_the_nearest).implausible
    a_third = [[*[answer("CLICK")] * 4, *[answer("IGNORE")] * 4]] * 8
    assert examine(a_third).above_ignore == pytest.approx(0.3)
    assert not examine(a_third).implausible


def test_the_finding_is_a_readable_clause() -> None:
    assert str(examine([[answer("IGNORE")] * 8])) == "answers IGNORE to 8 of 8 pairs"
    assert str(examine([[answer("none")] * 8])) == "answers 0 of 8 pairs (the job has no readable text)"
    assert examine([]).blind is False
