"""A comparison on the terminal: its table, its verdicts, and what they rest on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from dynaq.errors import DynaqError
from dynaq.evaluation.comparison import line_name
from dynaq.evaluation.run_quality import K
from dynaq.evaluation.true_rewards import corrected_words
from dynaq.runs.trials import TrialResult
from jobs.terminal.console import console, errors, say
from jobs.terminal.tables import interval_cell, number


@dataclass(frozen=True)
class Comparison:
    """The outcome of a comparison.

    Args:
        results: of every trial.
        statistics: the content of comparison.json.
        best: name of the trial with the highest judge reward.
        failures: applicant -> why no agent could be trained.
    """

    results: list[TrialResult]
    statistics: dict[str, Any]
    best: str
    failures: dict[str, str]


def report_failed_trials(results: Sequence[TrialResult]) -> None:
    """Name every trial that failed. Raises DynaqError when there is one."""
    failed = [result for result in results if result.status == "failed"]
    for result in failed:
        errors.print(f"  failed: {result.trial.name}: {result.error}", soft_wrap=True, markup=False)
    if failed:
        raise DynaqError(
            f"{len(failed)} of {len(results)} trials failed (see above); the others are compared, and the same command "
            "with --resume tries them again"
        )


def show_comparison(result: Comparison) -> None:
    """The table with its intervals, the verdicts, and what the figures rest on."""
    found = result.statistics
    console.print(_table(found))
    for metric in (found["primary"], f"ndcg@{K}"):
        for pair in found["pairs"]:
            if pair["metric"] == metric and pair["phase"] == "final":
                say(pair["verdict"])
    seeds = len(found["seeds"])
    alone = found["judged_for_the_table"]
    bought = f"; {alone} of these pairs were judged for this table alone, as no agent had bought them" if alone else ""
    say(
        f"Means over {found['applicants']} applicants and {seeds} seed{'s' if seeds > 1 else ''} with "
        f"{found['confidence']:.0%} intervals; those of the sentences hold for all {found['comparisons']} comparisons "
        "of the report at once: every pair on every metric, at the end and after the first judgements (Bonferroni). "
        f"Judge reward and apply rate are the judge's opinion of each strategy's final top {K}{bought}. nDCG is "
        f"against the relevance that came with the data; `first` is nDCG@{K} after the first judgements, `to` the "
        "judgements until the mean curve is there."
    )
    for arm in found["strategies"]:
        if arm.get("corrected_reward"):
            say(corrected_words(line_name(arm), arm["corrected_reward"], K))
    for note in found["notes"]:
        say(f"Note: {note}.")
    say(
        f"Ledger: {found['judgements_used']} judgements used by the agents, {found['judgements_paid']} of them paid: "
        "the judge was asked only for pairs that the ledger lacked, and the trial that asked first paid."
    )


def _table(found: dict[str, Any]) -> Table:
    """One line per strategy and setting, intervals below their means; fits into 80 columns."""
    arms = found["strategies"]
    goal, cold = arms[0]["steps_to_threshold"]["threshold"], arms[0]["cold_start"]["judgements"]
    relevance = any(arm["metrics"][f"ndcg@{K}"]["mean"] is not None for arm in arms)
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "used": lambda arm: f"{arm['judgements_used']}",
        "paid": lambda arm: f"{arm['judgements_paid']}",
        f"reward@{K}": lambda arm: _cell(arm["metrics"][f"mean_reward@{K}"]),
        f"apply@{K}": lambda arm: _cell(arm["metrics"][f"apply_rate@{K}"]),
    }
    if relevance:
        columns |= {
            f"nDCG@{K}": lambda arm: _cell(arm["metrics"][f"ndcg@{K}"]),
            f"first {cold}": lambda arm: number(_nan(arm["cold_start"]["metrics"]["ndcg"]["mean"])),
        }
    columns[f"to {goal:g}"] = lambda arm: _steps(arm["steps_to_threshold"]["judgements"])
    columns["s"] = lambda arm: f"{arm['seconds']:.0f}"
    table = Table(box=None, pad_edge=False)
    table.add_column("strategy", overflow="fold", min_width=6)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for arm in arms:
        table.add_row(line_name(arm), *(cell(arm) for cell in columns.values()))
    return table


def _cell(value: dict[str, float | None]) -> str:
    return interval_cell(*(_nan(value[name]) for name in ("mean", "low", "high")))


def _steps(judgements: float | None) -> str:
    return "–" if judgements is None else f"{judgements:.0f}"


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
