"""Scores of the ladder on answers that are known."""

from __future__ import annotations

import numpy as np
import pytest

from bench.judge_ladder import against_others, by_root, calibration_error, per_token


def answers() -> dict[str, np.ndarray]:
    """Two applicants, one job: a title of one token, a rest of four."""
    return {
        "tokens_title": np.array([1]),
        "tokens_rest": np.array([4]),
        "empty_title": np.array([-3.0]),
        "empty_rest": np.array([-8.0]),
        "forward_title": np.array([[-1.0], [-2.0]]),
        "forward_rest": np.array([[-4.0], [-8.0]]),
    }


def test_a_score_is_the_gain_over_an_empty_profile_or_over_the_others() -> None:
    assert per_token(answers()).ravel() == pytest.approx([(2.0 + 4.0) / 5, 1.0 / 5])
    assert against_others(answers()).ravel() == pytest.approx([(1.0 + 4.0) / 5, -(1.0 + 4.0) / 5])


def test_halves_count_by_the_root_of_their_tokens() -> None:
    assert by_root(answers(), per_token).ravel() == pytest.approx([2.0 + 4.0 / 2.0, 1.0])


def test_the_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    p = np.array([0.05] * 10 + [0.95] * 10)
    relevant = np.array([False] * 10 + [True] * 5 + [False] * 5)
    assert calibration_error(p, relevant) == pytest.approx(0.5 * 0.05 + 0.5 * 0.45)
