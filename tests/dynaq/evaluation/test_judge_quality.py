from __future__ import annotations

import numpy as np
import pytest

from dynaq.evaluation.intervals import Interval
from dynaq.evaluation.judge_quality import QualityCurve, check_judge_table, gain_by_quality, place_on_curve
from dynaq.evaluation.simulated import LabelJudge, labels_of_quality
from dynaq.judging.judgement import LABELS, Judgement, abstention
from dynaq.qrels import Qrels
from tests.support.toy_market import ToyMarket, small_config, toy_market


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> ToyMarket:
    return toy_market(tmp_path_factory.mktemp("market"), jobs=80, applicants=12)


def relevance(market: ToyMarket) -> Qrels:
    """What the texts can tell: the jobs of the topic that an applicant looks like."""
    return Qrels({a: {j: 3.0 * (g == 1.0) for j, g in own.items()} for a, own in market.grades.items()})


def judged(market: ToyMarket, target: float) -> list[Judgement]:
    qrels, cache = relevance(market), market.cache
    grades = np.array([[qrels.grades(a)[j] for j in cache.job_ids] for a in cache.applicant_ids])
    error = np.random.default_rng(1).standard_normal(grades.shape)
    judge = LabelJudge(cache, cache.applicant_ids, labels_of_quality(grades, error, grades > 0, target))
    return [judge.judgement(a, j) for a in cache.applicant_ids for j in cache.job_ids[::2]]


def test_the_estimate_without_labels_is_near_the_truth_for_good_and_bad_judges(market: ToyMarket) -> None:
    good = check_judge_table(market.cache, judged(market, 0.95), relevance(market))
    coin = check_judge_table(market.cache, judged(market, 0.5), relevance(market))
    assert good is not None
    assert coin is not None
    assert good.error < 0.06
    assert abs(good.estimated.trust - good.true.trust) < 0.15
    assert coin.estimated.trust < 0.3 < good.estimated.trust
    assert good.true.trust > 0.8 > 0.2 > coin.true.trust


def test_the_true_table_counts_answers_and_leaves_abstentions_out(market: ToyMarket) -> None:
    ann = market.cache.applicant_ids[0]
    fits = [j for j, g in relevance(market).grades(ann).items() if g > 0]
    others = [j for j in market.cache.job_ids if j not in fits]
    judge = LabelJudge(market.cache, [ann], np.array([[0 if j in fits[1:] else 3 for j in market.cache.job_ids]]))
    answers = [judge.judgement(ann, j) for j in [*fits, *others]]
    away = [abstention(ann, others[0], judge="t", note="away"), abstention(ann, "unknown", judge="t", note="")]
    found = check_judge_table(market.cache, [*answers, *away], relevance(market))
    assert found is not None
    assert found.true.fits == pytest.approx((1 - 1 / len(fits), 0, 0, 1 / len(fits)))
    assert found.true.not_fits == (0, 0, 0, 1)
    assert found.true.answers == len(market.cache.job_ids)
    assert found.error == pytest.approx(np.abs(found.estimated.rows() - found.true.rows()).mean())
    assert check_judge_table(market.cache, answers[:1], relevance(market)) is None


def test_the_gain_over_the_cosine_rises_with_the_quality_of_the_judge(market: ToyMarket) -> None:
    few = Qrels({a: relevance(market).grades(a) for a in market.cache.applicant_ids[:6]})
    curve = gain_by_quality(market.cache, few, small_config(), aucs=(0.5, 0.99))
    assert (curve.applicants, curve.judgements) == (6, 30)
    assert curve.gains[0].high < -0.05 < curve.gains[1].low


def curve_of(*gains: float) -> QualityCurve:
    aucs = (0.6, 0.7, 0.8)
    return QualityCurve(aucs, tuple(Interval(g, g - 0.1, g + 0.1) for g in gains), 0.5, 8, 30)


def test_learning_helps_from_the_auc_above_which_every_gain_is_positive() -> None:
    assert curve_of(-0.1, 0.1, 0.2).break_even == pytest.approx(0.65)
    assert curve_of(0.1, -0.1, 0.3).break_even == pytest.approx(0.725)
    assert curve_of(0.1, 0.1, 0.1).break_even == 0.6
    assert curve_of(0.1, 0.1, -0.1).break_even is None


def test_a_judge_stands_below_above_or_too_close_to_tell() -> None:
    curve = curve_of(-0.1, 0.1, 0.2)
    assert place_on_curve(curve, 0.4, 0.6).startswith(
        "below the point from which learning from it helps on your catalogue"
    )
    assert place_on_curve(curve, 0.7, 0.9).startswith("learning from it helps")
    assert place_on_curve(curve, 0.6, 0.7).startswith("too close to tell")
    assert "0.60 or less" in place_on_curve(curve_of(0.1, 0.1, 0.1), 0.7, 0.9)
    assert "not even a judge of AUC 0.8" in place_on_curve(curve_of(0, 0, 0), 0.7, 0.9)


def test_a_grade_is_the_label_of_a_judge_who_never_errs() -> None:
    graded = Qrels({"a": {"x": 3.0, "y": 2.0, "z": 1.0, "n": 0.0}})
    assert [graded.label("a", j) for j in ("x", "y", "z", "n", "?")] == [*LABELS, "IGNORE"]
    assert Qrels({"a": {"x": 1.0}}).label("a", "x") == "APPLY"
    assert Qrels({"a": {"x": 100.0, "y": 1.0}}).label("a", "y") == "CLICK"
