from __future__ import annotations

import math

import numpy as np
import pytest

from dynaq.evaluation.ranking import auc, dcg, ndcg_at_k, recall_at_k, reciprocal_rank

GRADES = {"a": 3.0, "b": 2.0, "c": 1.0, "d": 0.0}


def test_dcg_by_hand() -> None:
    assert dcg([3, 0, 2]) == pytest.approx(3 / math.log2(2) + 0 + 2 / math.log2(4))
    assert dcg([]) == 0.0


def test_ndcg_by_hand() -> None:
    ideal = 3 + 2 / math.log2(3)
    assert ndcg_at_k(["b", "x", "a"], GRADES, 2) == pytest.approx(2 / ideal)
    assert ndcg_at_k(["a", "b", "c", "d"], GRADES, 10) == pytest.approx(1.0)
    assert ndcg_at_k(["x", "y"], GRADES, 10) == 0.0


def test_ndcg_measures_against_the_whole_catalogue_and_not_the_list() -> None:
    assert ndcg_at_k(["c"], GRADES, 1) == pytest.approx(1 / 3)


def test_ndcg_without_anything_relevant_is_not_a_number() -> None:
    assert math.isnan(ndcg_at_k(["a"], {"a": 0.0}, 10))
    assert math.isnan(ndcg_at_k(["a"], {}, 10))


@pytest.mark.parametrize("k", [1, 5, 10, 40])
def test_ndcg_is_scikit_learns(k: int) -> None:
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(k)
    for _ in range(20):
        grades, scores = rng.integers(0, 4, 40).astype(float), rng.standard_normal(40)
        ranked = [str(j) for j in np.argsort(-scores)]
        ours = ndcg_at_k(ranked, {str(j): grade for j, grade in enumerate(grades)}, k)
        assert ours == pytest.approx(ndcg_score([grades], [scores], k=k))


def test_recall_by_hand() -> None:
    assert recall_at_k(["a", "x", "b", "c"], GRADES, 3) == pytest.approx(2 / 3)
    assert recall_at_k(["d"], GRADES, 10) == 0.0
    assert math.isnan(recall_at_k(["a"], {"a": 0.0}))


def test_reciprocal_rank_by_hand() -> None:
    assert reciprocal_rank(["d", "x", "c", "a"], GRADES) == pytest.approx(1 / 3)
    assert reciprocal_rank(["d", "x"], GRADES) == 0.0


def test_auc_counts_the_pairs_that_are_in_order_and_half_of_the_ties() -> None:
    assert auc(np.array([3.0, 1.0]), np.array([0.0, 1.0])) == pytest.approx((2 + 1 + 0.5) / 4)
    assert np.isnan(auc(np.array([]), np.array([1.0])))
