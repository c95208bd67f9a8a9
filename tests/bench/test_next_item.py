from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.next_item import RANKINGS, first_positive, gains, nearest_event, next_items, synthetic, table
from dynaq.sequential.people import NO_JOB, PersonConfig

LISTS = np.array([[4, 2, 7], [1, 5, 0], [3, 6, 8]])


def test_the_next_item_is_the_first_that_was_applied_to_or_saved() -> None:
    told = nearest_event(np.array([[0.1, 0.45, 0.9], [-0.1, 0.0, 0.2], [np.nan, np.nan, np.nan]]))
    assert told[:2].tolist() == [[0.0, 0.5, 1.0], [-0.1, 0.0, 0.0]]
    assert first_positive(LISTS, told).tolist() == [2, NO_JOB, NO_JOB]


def test_a_ranking_gains_by_the_place_of_the_next_item() -> None:
    np.testing.assert_allclose(gains(LISTS, np.array([4, 5, 9])), [1.0, 1.0 / np.log2(3), 0.0])
    assert gains(np.full((1, 2), NO_JOB), np.array([NO_JOB])).tolist() == [0.0]


def test_the_table_compares_the_same_applicants() -> None:
    found = {name: np.linspace(0.0, 1.0, 8) + 0.1 * place for place, name in enumerate(RANKINGS)}
    assert "| none | 0.500 | 0.600 | 0.700 | 0.800 | 0.900 | +0.100 [+0.100, +0.100] |" in table({"none": found})


def test_where_nobody_changes_the_history_ranks_like_the_bandit(tmp_path: Path) -> None:
    found = next_items(synthetic(tmp_path / "store", 60, 8), PersonConfig(), sessions=4, start=2)
    assert set(found) == set(RANKINGS)
    np.testing.assert_array_equal(found["history"], found["bandit"])
    assert 0.0 < np.nanmean(found["bandit"]) < 1.0
