"""The table that `bench.trust` writes is the one that bench/trust.md shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import trust

PAGE = Path(trust.__file__).with_suffix(".md")


def record(target: float, auc: float, **values: Any) -> dict[str, Any]:
    return {"market": "ESCO", "kind": "echo", "target": target, "auc": auc, "cosine": 0.9034} | values


WITH_GOLD = {"error, gold": 0.04}


def test_the_page_has_the_columns_that_are_written() -> None:
    written = trust.markdown([record(0.7, 0.6996, **WITH_GOLD)]).splitlines()
    page = PAGE.read_text(encoding="utf-8").splitlines()
    at = page.index(written[0])
    assert page[at + 1] == written[1]


def test_values_stand_in_their_columns_and_what_was_not_measured_is_a_dash() -> None:
    values = WITH_GOLD | {"hybrid - llm": [0.0052, -0.006, 0.016]}
    heading, _, row = trust.markdown([record(0.7, 0.6996, **values)]).splitlines()
    cells = dict(zip(heading.split(" | "), row.split(" | "), strict=True))
    assert (cells["AUC"], cells["cosine"], cells["- llm"]) == ("0.70", "0.903", "+0.005 [-0.006, +0.016]")
    assert cells["gold - cosine"] == "–"


def test_a_table_without_gold_has_no_columns_of_it() -> None:
    heading, rule, row = trust.markdown([record(0.7, 0.6996)]).splitlines()
    assert "gold" not in heading
    assert rule.count("|") == heading.count("|") == row.count("|")


def test_a_target_that_no_echo_reaches_repeats_no_row() -> None:
    rows = trust.markdown([record(0.8, 0.8), record(0.9, 0.8732), record(0.95, 0.8732)]).splitlines()[2:]
    assert [row.split(" | ")[2] for row in rows] == ["0.80", "0.87"]
