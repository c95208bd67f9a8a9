"""What hours of measuring end in must not fail on a method that was not measured at every budget."""

from __future__ import annotations

import pytest

from bench.quality import BUDGETS, show


def test_a_budget_that_a_method_was_not_measured_at_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    show("clean", {"textbook": {budget: [0.25, 0.5, 0.75, 0.5] for budget in BUDGETS[:-1]}}, size=2)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("textbook"))
    assert row.count("0.500 [") == len(BUDGETS) - 1
    assert row.endswith("–")
