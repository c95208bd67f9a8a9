"""Rank-biased overlap against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from dynaq.audit.rankings import changed, order_of, rank_biased_overlap


def test_overlap_is_1_for_equal_and_0_for_disjoint_lists() -> None:
    a = np.arange(10)
    assert rank_biased_overlap(a, a) == pytest.approx(1.0)
    assert rank_biased_overlap(a, a + 10) == 0.0


def test_overlap_follows_the_definition() -> None:
    a, b, p = np.array([1, 2, 3]), np.array([2, 1, 4]), 0.9
    agreement = [0.0, 1.0, 2 / 3]
    wanted = agreement[-1] * p**3 + (1 - p) / p * sum(x * p ** (d + 1) for d, x in enumerate(agreement))
    assert rank_biased_overlap(a, b, p) == pytest.approx(wanted)


def test_the_top_counts_more() -> None:
    a = np.arange(10)
    top, bottom = a.copy(), a.copy()
    top[[0, 1]], bottom[[8, 9]] = top[[1, 0]], bottom[[9, 8]]
    assert rank_biased_overlap(a, top) < rank_biased_overlap(a, bottom) < 1.0


def test_many_lists_at_once() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.stack([rng.permutation(12)[:10] for _ in range(6)]).reshape(2, 3, 10) for _ in range(2))
    found = rank_biased_overlap(a, b)
    assert found.shape == (2, 3)
    assert found[1, 2] == pytest.approx(float(rank_biased_overlap(a[1, 2], b[1, 2])))


def test_changed_looks_at_the_jobs_and_not_at_their_order() -> None:
    assert changed(np.array([[1, 2], [1, 2]]), np.array([[2, 1], [1, 3]])).tolist() == [0.0, 1.0]


def test_order_of_scores_has_ties_in_place_and_unknown_last() -> None:
    assert order_of(np.array([0.1, np.nan, 0.5, 0.1])).tolist() == [2, 0, 3, 1]
