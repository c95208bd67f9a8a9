"""A judge of known bias is found, a fair one raises no alarm, and the intervals say what would have been found."""

from __future__ import annotations

import numpy as np
import pytest

from dynaq.audit.attributes import CONTRASTS, Contrast
from dynaq.audit.differences import (
    differences,
    effect,
    paired_impact,
    scoring_rates,
    simultaneous,
    unpaired_impact,
)
from dynaq.audit.limits import FOUR_FIFTHS, POWER
from dynaq.audit.planted import AUDITS, BIAS, scores_of, self_test, simulated_scores

PAIR = Contrast("b − a", "x", ("b",), ("a",))


def test_a_planted_bias_is_found_and_fair_judges_raise_no_alarm() -> None:
    found = self_test(16, 4)  # as large as an audit is by default
    assert found.audits == AUDITS == 200
    assert found.power >= 0.9
    assert found.false_alarms <= 0.05


def test_an_audit_that_is_too_small_says_so() -> None:
    assert self_test(4, 4, noise=0.3, audits=50).power < 0.5


def test_the_detectable_effect_is_found_as_often_as_it_says() -> None:
    contrast = CONTRASTS[4]
    one = simulated_scores(np.random.default_rng(1), 16, 10, 400, contrast, 0.0, 0.1)
    values = differences(scores_of(contrast, one), [contrast])[:, 0]
    size = float(np.mean([effect(values[:, i], 22).detectable for i in range(50)]))
    planted = simulated_scores(np.random.default_rng(2), 16, 10, 400, contrast, size, 0.1)
    shifted = differences(scores_of(contrast, planted), [contrast])[:, 0]
    power = np.mean([effect(shifted[:, i], 22).found for i in range(400)])
    assert power == pytest.approx(POWER, abs=0.07)


def test_impact_ratio_is_the_lower_rate_by_the_higher_one() -> None:
    rng = np.random.default_rng(0)
    fair = {"a": rng.uniform(size=(20, 10)), "b": rng.uniform(size=(20, 10))}
    biased = fair | {"b": fair["b"] - 0.4}
    other, reference = scoring_rates(biased, PAIR)
    assert other.mean() + reference.mean() == pytest.approx(1.0, abs=0.02)  # half of all scores are above the median
    hit = paired_impact(other, reference, 200, 1)
    assert hit.ratio.mean == pytest.approx(other.mean() / reference.mean())
    assert hit.ratio.low < hit.ratio.mean < hit.ratio.high < 1.0
    assert hit.found
    assert hit.ratio.mean < FOUR_FIFTHS
    same = paired_impact(*scoring_rates(fair, PAIR), 200, 1)
    assert not same.found
    assert 0.0 < same.detectable < 1.0


def test_a_rate_of_zero_has_a_ratio_and_an_interval() -> None:
    hit = paired_impact(np.zeros(12), np.full(12, 0.5), 120, 1)
    assert 0.0 < hit.ratio.mean < 0.02
    assert hit.found


def test_impact_between_people_needs_no_pairs() -> None:
    rng = np.random.default_rng(0)
    rates = [unpaired_impact((rng.random(300) < 0.3) * 1.0, (rng.random(200) < p) * 1.0, 1) for p in (0.3, 0.6)]
    assert [one.found for one in rates] == [False, True]
    assert rates[1].ratio.mean == pytest.approx(0.5, abs=0.1)


def test_more_comparisons_widen_the_intervals() -> None:
    values = np.random.default_rng(0).normal(size=30)
    one, many = effect(values, 1), effect(values, 20)
    assert many.interval.low < one.interval.low < one.interval.high < many.interval.high
    assert many.detectable > one.detectable
    assert simultaneous(20) == pytest.approx(0.9995)


def test_the_sign_of_a_bias_is_the_disadvantage() -> None:
    assert BIAS < 0
    scores = simulated_scores(np.random.default_rng(0), 12, 8, 5, CONTRASTS[0], BIAS, 0.05)
    assert (differences(scores_of(CONTRASTS[0], scores), CONTRASTS[:1]).mean(0) < -0.05).all()
