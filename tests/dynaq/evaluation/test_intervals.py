"""Intervals that hold as often as they say, on data whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dynaq.evaluation.intervals import (
    band,
    bounds,
    interval,
    on_grid,
    paired_difference,
    steps_to_threshold,
)


def synthetic(
    rng: np.random.Generator, applicants: int, seeds: int, *, seed_effect: float = 0.0, mean: float = 0.0
) -> np.ndarray:
    """Applicants differ by 1, cells by 0.5, and seeds by `seed_effect`, which all applicants of a seed share."""
    people = rng.normal(0.0, 1.0, (applicants, 1))
    shared = rng.normal(0.0, seed_effect, (1, seeds))
    return mean + people + shared + rng.normal(0.0, 0.5, (applicants, seeds))


SAMPLES = 4000
MEAN_NDCG = 5 / 6  # of Beta(5, 1): many applicants near 1, a tail of bad lists


def samples(kind: str, applicants: int, seeds: int, seed_effect: float = 0.0) -> np.ndarray:
    """SAMPLES tables `[applicants, seeds, SAMPLES]` whose true mean is MEAN_NDCG, or 0 for differences."""
    rng = np.random.default_rng([applicants, seeds, len(kind)])
    shape = (applicants, seeds, SAMPLES)
    shared = seed_effect * rng.normal(0.0, 1.0, (1, seeds, SAMPLES))
    if kind == "nDCG":
        level = rng.beta(5.0, 1.0, (applicants, 1, SAMPLES))
        return level + rng.normal(0.0, 0.05, shape) + 0.14 * shared
    if kind == "difference":
        own = rng.beta(5.0, 1.0, (applicants, 1, SAMPLES)) - rng.beta(4.0, 0.8, (applicants, 1, SAMPLES))
        return own + rng.normal(0.0, 0.05, shape) + 0.2 * shared
    return MEAN_NDCG + rng.normal(0.0, 1.0, (applicants, 1, SAMPLES)) + rng.normal(0.0, 0.5, shape) + shared


def coverage(values: np.ndarray, truth: float, symmetric: bool = False) -> float:
    low, high = bounds(values, symmetric=symmetric)
    return float(((low <= truth) & (truth <= high)).mean())


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("kind", ["nDCG", "normal", "difference"])
def test_eight_applicants_are_enough_for_an_interval_that_covers_as_often_as_it_says(kind: str, seeds: int) -> None:
    truth = 0.0 if kind == "difference" else MEAN_NDCG
    assert 0.93 <= coverage(samples(kind, 8, seeds), truth, symmetric=kind == "difference") <= 0.97


@pytest.mark.parametrize(
    ("applicants", "seeds", "seed_effect"), [(32, 1, 0.0), (96, 3, 0.0), (32, 3, 0.3), (8, 3, 1.0)]
)
@pytest.mark.parametrize("kind", ["nDCG", "normal"])
def test_an_interval_covers_the_truth_as_often_as_it_says(
    kind: str, applicants: int, seeds: int, seed_effect: float
) -> None:
    assert 0.93 <= coverage(samples(kind, applicants, seeds, seed_effect), MEAN_NDCG) <= 0.97


def test_a_skewed_sample_is_covered_from_both_sides() -> None:
    """The plain t interval of a few nDCGs lies too high: the truth is missed below four times in five."""
    values = samples("nDCG", 8, 1)
    missed = {}
    for symmetric in (True, False):
        low, high = bounds(values, symmetric=symmetric)
        missed[symmetric] = (low > MEAN_NDCG).mean(), (high < MEAN_NDCG).mean()
    assert missed[True][0] > 4 * missed[True][1]
    assert missed[False][0] < 0.75 * missed[True][0]


def test_one_seed_and_no_skewness_is_students_t_interval() -> None:
    values = np.array([0.2, 0.5, 0.4, 0.7, 0.1])
    expected = stats.t.interval(0.9, 4, values.mean(), stats.sem(values))
    assert (interval(values, 0.9, symmetric=True).low, interval(values, 0.9, symmetric=True).high) == pytest.approx(
        expected
    )
    mirrored = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    assert interval(mirrored).low == pytest.approx(interval(mirrored, symmetric=True).low)


def test_a_rate_stays_between_0_and_1() -> None:
    values = np.array([1.0, 1.0, 1.0, 0.9, 0.5])
    assert interval(values).high > 1.0
    assert interval(values, within=(0.0, 1.0)).high == 1.0


def test_randomness_that_a_seed_shares_widens_the_interval() -> None:
    rng = np.random.default_rng(1)
    values = synthetic(rng, 200, 4, seed_effect=1.0)
    both = interval(values)
    applicants_alone = interval(values.mean(axis=1, keepdims=True))
    assert both.high - both.low > 2 * (applicants_alone.high - applicants_alone.low)


def test_pairing_tells_what_two_intervals_apart_cannot() -> None:
    rng = np.random.default_rng(2)
    people = rng.normal(0.0, 5.0, (25, 1))
    a = people + rng.normal(0.2, 0.1, (25, 3))
    b = people + rng.normal(0.0, 0.1, (25, 3))
    assert interval(a).low < interval(b).high
    found = paired_difference(a, b)
    assert found.better == "a"
    assert found.interval.mean == pytest.approx((a - b).mean())
    assert 0.05 < found.interval.low < 0.2 < found.interval.high < 0.35
    assert paired_difference(b, a).better == "b"
    assert paired_difference(a, b, higher_is_better=False).better == "b"


def test_equal_strategies_are_rarely_told_apart_however_many_are_compared() -> None:
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        tables = [synthetic(rng, 30, 3) for _ in range(4)]
        pairs = [(a, b) for a in range(4) for b in range(a)]
        told = [paired_difference(tables[a], tables[b], comparisons=len(pairs)).better for a, b in pairs]
        wrong += any(told)
    assert wrong <= 20  # 5 % of 200 and what chance adds; without `comparisons` it is more than 30
    one = paired_difference(tables[0], tables[1])
    six = paired_difference(tables[0], tables[1], comparisons=6)
    assert six.interval.low < one.interval.low < one.interval.high < six.interval.high


def test_the_variance_of_few_seeds_is_not_taken_too_small() -> None:
    """It is s²/n, the unbiased estimate, with as many degrees of freedom as there are seeds less one."""
    values = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    found = interval(values)
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 2) * np.sqrt(1.0 / 3.0))


def test_unknown_cells_are_left_out() -> None:
    rng = np.random.default_rng(4)
    values = synthetic(rng, 20, 3)
    holed = np.vstack([values, np.full((5, 3), np.nan)])
    assert interval(holed) == interval(values)
    values[3, 1] = np.nan
    assert interval(values).mean == pytest.approx(np.nanmean(values))
    assert interval(values).known


def test_nothing_follows_from_one_applicant_and_nothing_is_known_of_none() -> None:
    alone = interval(np.array([[1.0, 2.0, 3.0]]))
    assert alone.mean == 2.0
    assert not alone.known
    nobody = interval(np.full((3, 2), np.nan))
    assert math.isnan(nobody.mean)
    assert not nobody.known
    assert paired_difference(np.array([[1.0]]), np.array([[0.0]])).better is None


def test_no_difference_at_all_cannot_be_told_apart() -> None:
    values = synthetic(np.random.default_rng(5), 10, 2)
    found = paired_difference(values, values)
    assert found.better is None
    assert (found.interval.low, found.interval.high) == (0.0, 0.0)


def test_a_curve_holds_its_last_value_until_the_next() -> None:
    grid = np.array([0.0, 5.0, 7.0, 10.0, 50.0])
    found = on_grid([10, 5, 15], [0.4, 0.2, math.nan], grid)
    assert math.isnan(found[0])
    assert found[1:].tolist() == [0.2, 0.2, 0.4, 0.4]
    assert on_grid([0, 0, 0], [0.1, 0.2, 0.3], grid).tolist() == [0.3] * 5
    assert np.isnan(on_grid([], [], grid)).all()


def test_a_band_is_wide_where_applicants_differ() -> None:
    rng = np.random.default_rng(6)
    grid = np.array([5.0, 10.0])
    curves = np.stack([rng.normal(0.5, 0.3, (40, 2)), np.full((40, 2), 0.9)], axis=2)
    found = band(curves, grid)
    assert found.mean.tolist() == pytest.approx([curves[:, :, 0].mean(), 0.9])
    assert found.low[0] < found.mean[0] < found.high[0]
    assert (found.low[1], found.high[1]) == (pytest.approx(0.9), pytest.approx(0.9))


def test_steps_to_a_threshold_and_how_sure_they_are() -> None:
    rng = np.random.default_rng(7)
    grid = np.arange(5.0, 55.0, 5.0)
    curves = grid / 50.0 + rng.normal(0.0, 0.1, (40, 2, 10))
    found = steps_to_threshold(curves, grid, 0.55)
    assert found.mean in (25.0, 30.0)
    assert 20.0 <= found.low <= found.mean <= found.high <= 35.0
    never = steps_to_threshold(curves, grid, 2.0)
    assert never.mean == never.low == never.high == math.inf
    perhaps = steps_to_threshold(curves, grid, float(curves[:, :, 9].mean()))
    assert perhaps.high == math.inf
    assert perhaps.low < math.inf
