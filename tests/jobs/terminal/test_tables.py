"""Numbers as people see them."""

from __future__ import annotations

import math

from jobs.terminal.tables import interval_cell, interval_words, number


def test_numbers_are_never_minus_nothing() -> None:
    assert [number(-0.0001), number(-0.0012), number(math.nan)] == ["0.000", "-0.001", "–"]


def test_an_interval_without_width_is_left_out() -> None:
    assert interval_words(1.0, 1.0) == interval_words(0.99999, 1.0) == interval_words(None, 1.0) == ""
    assert interval_words(-0.0001, 0.5) == "0.000 to 0.500"
    assert interval_cell(1.0, 1.0, 1.0) == "1.000"
    assert interval_cell(0.5, 0.4, 0.6) == "0.500\n0.40–0.60"
