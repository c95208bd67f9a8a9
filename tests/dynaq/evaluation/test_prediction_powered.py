"""Correcting a judge's opinion by true rewards: it must cover the truth, and gain from a good judge."""

from __future__ import annotations

import numpy as np
import pytest

from dynaq.evaluation.prediction_powered import Corrected, corrected_mean

PEOPLE, LIST = 40, 10


def market(rng: np.random.Generator, bias: float, noise: float) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Applicants, the judge's rewards and the true ones of everyone's list; the judge errs by `bias` and noise."""
    who = [f"a{i}" for i in range(PEOPLE) for _ in range(LIST)]
    level = np.repeat(rng.normal(0.3, 0.15, PEOPLE), LIST)
    true = (rng.random(len(who)) < np.clip(level, 0.02, 0.98)).astype(float)
    return who, true + bias + noise * rng.normal(size=len(who)), true


def sampled(rng: np.random.Generator, true: np.ndarray, known: int) -> np.ndarray:
    shown = np.full(len(true), np.nan)
    at = rng.choice(len(true), known, replace=False)
    shown[at] = true[at]
    return shown


def correct(seed: int, bias: float = 0.4, noise: float = 0.3, known: int = 60) -> tuple[Corrected, float]:
    rng = np.random.default_rng(seed)
    who, judged, true = market(rng, bias, noise)
    found = corrected_mean(who, judged, sampled(rng, true, known))
    assert found is not None
    return found, 0.3


def test_a_judge_that_praises_itself_is_corrected() -> None:
    found, truth = correct(1)
    assert found.judged > truth + 0.3
    assert found.low < truth < found.high
    assert found.known == 60


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    inside = sum(found.low <= truth <= found.high for found, truth in map(correct, range(300)))
    assert 0.92 <= inside / 300 <= 0.99


def test_a_good_judge_narrows_the_interval_and_a_worthless_one_does_not_widen_it() -> None:
    rng = np.random.default_rng(1)
    who, good, true = market(rng, 0.4, 0.1)
    shown = sampled(rng, true, 60)
    widths = {}
    for name, judged in (("good", good), ("worthless", rng.normal(size=len(true))), ("none", np.zeros(len(true)))):
        found = corrected_mean(who, judged, shown)
        assert found is not None
        widths[name] = found.high - found.low
    assert widths["good"] < 0.75 * widths["none"]
    assert widths["worthless"] == pytest.approx(widths["none"], rel=0.1)


def test_without_a_judge_it_is_the_mean_of_what_is_known() -> None:
    rng = np.random.default_rng(2)
    who, _, true = market(rng, 0.0, 0.0)
    shown = sampled(rng, true, 50)
    found = corrected_mean(who, np.zeros(len(true)), shown)
    assert found is not None
    assert found.weight == 0.0
    assert found.mean == pytest.approx(np.nanmean(shown))


def test_too_few_true_rewards_or_applicants_correct_nothing() -> None:
    rng = np.random.default_rng(3)
    who, judged, true = market(rng, 0.4, 0.3)
    assert corrected_mean(who, judged, sampled(rng, true, 9)) is None
    of_one = np.where(np.array(who) == "a0", true, np.nan)
    assert corrected_mean(who, judged, of_one) is None


def test_pairs_that_the_judge_never_saw_are_left_out() -> None:
    rng = np.random.default_rng(4)
    who, judged, true = market(rng, 0.4, 0.3)
    shown = sampled(rng, true, 60)
    unseen = [*who, "stranger"], np.append(judged, np.nan), np.append(shown, 1.0)
    assert corrected_mean(*unseen) == corrected_mean(who, judged, shown)
