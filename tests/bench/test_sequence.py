from __future__ import annotations

import numpy as np
import pytest

from bench.sequence import AGENT_NAMES, markdown, shown, summary

PEOPLE, SEEDS, SESSIONS = 6, 2, 4


def tables() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    found = {}
    for gain, name in enumerate(AGENT_NAMES):
        fields = {field: rng.random((PEOPLE, SEEDS, SESSIONS)) for field in ("distance", "ndcg")}
        returns = 0.01 * rng.random((PEOPLE, SEEDS, SESSIONS)) + gain
        judgements = np.full((PEOPLE, SEEDS, SESSIONS), 5.0)
        found[name] = {**fields, "returns": returns, "judgements": judgements, "seconds": np.ones(SEEDS)}
    return found


def test_the_figures_are_of_all_sessions_and_differences_are_paired() -> None:
    record = summary(tables())
    assert record["agents"]["bandit"]["return"][0] == pytest.approx(SESSIONS * 1.005, abs=0.02)
    assert record["agents"]["bandit"]["ms per judgement"] == pytest.approx(1000 * 2 / (PEOPLE * SEEDS * SESSIONS * 5))
    mean, low, high = record["differences"]["planning - history"]
    assert low < mean < high
    assert mean == pytest.approx(SESSIONS, abs=0.05)
    # From the bandit, the second agent, planning is the third step of four to the oracle that knows the dynamics.
    assert record["share of the way to oracle"] == pytest.approx(3 / 4, abs=0.02)


def test_the_tables_have_a_row_for_each_agent() -> None:
    text = markdown({"table": {"none": summary(tables())}})
    assert all(f"| none | {name} |" in text for name in AGENT_NAMES.values())
    assert shown([1.0, -0.5, 2.5]) == "+1.00 [-0.50, +2.50]"
