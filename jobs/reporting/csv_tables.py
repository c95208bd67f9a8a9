"""The report's tables as CSV, to be copied from the page: numbers as in comparison.json, not rounded."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.reporting.compared_lines import Line

BOUNDS = ("mean", "low", "high")


def tables(
    comparison: Mapping[str, Any], lines: Sequence[Line], columns: Sequence[tuple[str, str, str]], *, paid: bool
) -> dict[str, str]:
    """Name of a table -> its CSV. columns: (name, title, meaning) of the metrics. paid: whether to count what was paid.

    A table without rows is left out.
    """
    metrics = [name for name, _, _ in columns]
    result = [
        {
            "strategy": line.name,
            "judgements_per_applicant": line.stats["judgements_per_applicant"],
            "judgements_used": line.stats["judgements_used"],
            **({"judgements_paid": line.stats.get("judgements_paid")} if paid else {}),
            **_bounds(line.stats["metrics"], metrics),
        }
        for line in lines
    ]
    early = [
        {
            "strategy": line.name,
            "judgements": cold["judgements"],
            **_bounds(cold["metrics"], list(cold["metrics"])),
            **{f"steps_{name}": value for name, value in (line.stats.get("steps_to_threshold") or {}).items()},
        }
        for line in lines
        if (cold := line.stats.get("cold_start"))
    ]
    pairs = [
        {name: pair[name] for name in ("a", "b", "metric", "phase", "difference", "low", "high", "better")}
        for pair in comparison["pairs"]
    ]
    return {name: _csv(rows) for name, rows in (("result", result), ("cold start", early), ("pairs", pairs)) if rows}


def _bounds(cells: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    return {f"{name}_{bound}": (cells.get(name) or {}).get(bound) for name in names for bound in BOUNDS}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """With the union of the rows' columns; unknown values are empty."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()
