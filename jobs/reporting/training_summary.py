"""What `dynaq train` prints at its end: a table, or one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table

from dynaq.evaluation.comparison import METRIC_TITLES
from dynaq.evaluation.run_quality import K
from jobs.reporting.page import Report
from jobs.terminal.tables import interval_words, number
from reward_service.costs import Costs, costs_line

CORRECTED = f"corrected_reward@{K}"


def training_summary(
    report: Report, failures: Mapping[str, str], paid: int, seconds: float, costs: Costs | None = None
) -> dict[str, Any]:
    """One JSON object; metrics by the names of `dynaq evaluate --json`, null where they are not known.

    paid: pairs that the judge answered; the other used ones came from the ledger.
    costs: of the judge's endpoint, over all sessions of the run.
    """
    (stats,) = report.comparison["strategies"]
    metrics: dict[str, Any] = {}
    for name in METRIC_TITLES:
        cell = stats["metrics"].get(name) or {}
        metrics |= {name: cell.get("mean"), f"{name}_interval": [cell.get("low"), cell.get("high")]}
    corrected = stats.get("corrected_reward") or {}
    metrics[CORRECTED] = corrected.get("mean")
    metrics[f"{CORRECTED}_interval"] = [corrected.get("low"), corrected.get("high")]
    return {
        "run": report.uri.rpartition("/")[0],
        "report": report.uri,
        "strategy": stats["strategy"],
        "applicants": report.applicants,
        "failures": dict(failures),
        "judgements_used": stats["judgements_used"],
        "judgements_paid": paid,
        "judgements_per_applicant": stats["judgements_per_applicant"],
        "judge_costs": asdict(costs) if costs else None,
        "judge_remarks": dict(report.health["notes"]) if report.health else {},
        "seconds": round(seconds, 3),
        **metrics,
    }


def training_table(summary: Mapping[str, Any]) -> Table:
    """The same as two columns; metrics with their 95 % interval over applicants."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    used, paid = summary["judgements_used"], summary["judgements_paid"]
    table.add_row("applicants trained", f"{summary['applicants']:,} in {summary['seconds']:.0f} s")
    table.add_row(
        "judgements",
        f"{used:,} used, {paid:,} of them new to the ledger" if used else "none",
    )
    if summary["judge_costs"]:
        table.add_row("judge's endpoint", costs_line(Costs(**summary["judge_costs"])))
    titles = {name: title for name, (title, _) in METRIC_TITLES.items()}
    for name, title in (titles | {CORRECTED: "  corrected by pairs of known truth"}).items():
        if summary[name] is not None:
            between = interval_words(*summary[f"{name}_interval"])
            table.add_row(title, number(summary[name]) + (f"  ({between})" if between else ""))
    table.add_row("run folder", summary["run"])
    table.add_row("report", summary["report"])
    return table
