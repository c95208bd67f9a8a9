"""The report's page: the comparison, the learning curves, the judge and each applicant's lists.

The page stands alone: styles and plots are inside, there is no script, its content security policy forbids loading
anything, and every text from a store is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dynaq.evaluation.comparison import CURVE_TITLES, METRIC_TITLES, line_name
from dynaq.evaluation.run_quality import K
from dynaq.evaluation.true_rewards import corrected_words
from dynaq.judging.judgement import LABELS
from dynaq.runs.folder import REPORT, RunFolder
from dynaq.runs.judgements import judged_pairs, judgement_table
from dynaq.runs.reading import open_run_store, read_runs
from jobs.reporting.applicants import applicant_entries
from jobs.reporting.compared_lines import Line, lines_of, read_comparison
from jobs.reporting.csv_tables import tables
from jobs.reporting.judge_health import judge_health, top_rewards
from jobs.reporting.judge_trust import judge_trust
from jobs.reporting.plots import draw_curves, draw_histograms
from jobs.reporting.story import judge_words, story
from jobs.reporting.tensorboard import write_curves
from jobs.steps.cohort import known_truth, relevance
from jobs.terminal.tables import interval_words, number
from reward_service.costs import Costs

MAIN_CURVES = ("ndcg", "mean_reward", "cumulative_regret", "trust")
REWARD_SPAN = (-0.1, 1.0)  # of the default label values; others are clipped into the outer bins


@dataclass(frozen=True)
class Report:
    """The page that was written: its URI and size, how many of the applicants it shows, and its comparison.

    health: `judge_health` of the answers that it rests on; None without a judge.
    """

    uri: str
    bytes: int
    applicants: int
    shown: int
    comparison: Mapping[str, Any]
    health: Mapping[str, Any] | None = None


def write_report(
    folder: RunFolder, store_uri: str | None = None, qrels: str | None = None, service: str | None = None
) -> Report:
    """Render the page of a run or a comparison into its folder, and its learning curves for TensorBoard.

    service: address of the recommendation service, whose page each applicant is then linked to.
    """
    runs = read_runs(folder.uri)
    config = runs[0].config
    with open_run_store(runs[0], store_uri) as store:
        grades = relevance(qrels, store)
        judged = {run.name: judged_pairs(run, store) for run in runs}
        curves = {run.name: write_curves(run, judged[run.name]) for run in runs}
        comparison = read_comparison(folder, runs, judged, grades, known_truth(store, grades, folder), curves)
        lines = lines_of(comparison, runs)
        judgements = judgement_table(_judging_run(lines), store)
        entries, hidden = applicant_entries(lines, store, grades, judgements, config["layout"])
        attribution = store.meta().get("attribution", "")
    health = judge_health(judgements, lines)
    rewards = top_rewards(judgements, lines)
    columns = _columns(lines)
    paid = health is not None and any(line.stats.get("judgements_paid") is not None for line in lines)
    page = (
        page_environment()
        .get_template("report.html.j2")
        .render(
            title="Which jobs would they apply to?",
            story=" ".join(story(comparison, config)),
            facts=_facts(config, comparison, lines),
            tables=tables(comparison, lines, columns, paid=paid),
            columns=columns,
            rows=_rows(lines, columns),
            paid=paid,
            early=[line for line in lines if line.stats.get("cold_start")],
            verdicts=_verdicts(comparison),
            pairs=comparison["pairs"],
            comparisons=comparison.get("comparisons"),
            notes=[
                *(f"Note: {note.removesuffix('.')}." for note in comparison["notes"]),
                *_notes(comparison, rewards),
                *filter(None, [runs[0].sampling]),
            ],
            curves=_plots(lines, MAIN_CURVES),
            more_curves=_plots(lines, [name for name in CURVE_TITLES if name not in MAIN_CURVES]),
            rewards=rewards,
            reward_plot=_reward_plot(rewards),
            health=health,
            costs=Costs.of(folder),
            trust=judge_trust(lines),
            mass_plot=_mass_plot(health),
            labels=LABELS,
            applicants=entries,
            service=service.rstrip("/") if service else None,
            hidden=lines[0].runs[0].applicants - len(entries),
            config=settings_rows(config),
            environment=settings_rows(config.get("environment") or {}),
            attribution=attribution,
        )
    )
    folder.write_bytes(REPORT, page.encode())
    applicants, shown = lines[0].runs[0].applicants, len(lines[0].runs[0].ranked) - hidden
    return Report(f"{folder.uri}/{REPORT}", len(page.encode()), applicants, shown, comparison, health)


def page_environment() -> Environment:
    """The templates of this room, with the filters `number`, `between` and `metric`."""
    environment = Environment(loader=PackageLoader("jobs.reporting"), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters["number"] = lambda value: number(float("nan") if value is None else value)
    environment.filters["between"] = lambda cell: interval_words(cell["low"], cell["high"])
    environment.filters["metric"] = lambda name: METRIC_TITLES[name][0] if name in METRIC_TITLES else name
    return environment


def _judging_run(lines: Sequence[Line]) -> Any:
    """A run whose configuration names a judge; any run when none does."""
    runs = [run for line in lines for run in line.runs]
    return next((run for run in runs if run.config.get("judge")), runs[0])


def _facts(config: Mapping[str, Any], comparison: Mapping[str, Any], lines: Sequence[Line]) -> list[tuple[str, str]]:
    seeds = comparison["seeds"]
    facts = [
        ("applicants", f"{comparison['applicants']:,}"),
        ("jobs", f"{config['jobs']:,}"),
        ("budget", f"{config['config']['budget']} judgements each"),
        ("strategies" if len(lines) > 1 else "strategy", ", ".join(line.name for line in lines)),
        ("seeds" if len(seeds) > 1 else "seed", ", ".join(map(str, seeds))),
    ]
    if judge := judge_words(config):
        facts.append(("judge", judge))
    return [*facts, ("started", str(config["started"]).replace("T", " ").removesuffix("+00:00") + " UTC")]


def _columns(lines: Sequence[Line]) -> list[tuple[str, str, str]]:
    """(name, title, meaning) of the metrics that any line knows."""
    known = {name for line in lines for name, cell in line.stats["metrics"].items() if cell["mean"] is not None}
    return [(name, title, meaning) for name, (title, meaning) in METRIC_TITLES.items() if name in known]


def _rows(lines: Sequence[Line], columns: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """The table's rows: for each metric the mean, its interval, and where that lies on a scale common to all lines."""
    cells = {name: [line.stats["metrics"].get(name) for line in lines] for name, _, _ in columns}
    ends = {}
    for name, column in cells.items():
        values = [value for cell in column if cell for value in cell.values() if value is not None]
        ends[name] = (min(values), max(values))
    return [
        {
            "name": line.name,
            "colour": line.colour,
            "seeds": len(line.runs),
            "per_applicant": line.stats["judgements_per_applicant"],
            "used": line.stats["judgements_used"],
            "paid": line.stats.get("judgements_paid"),
            "steps": line.stats.get("steps_to_threshold"),
            "cells": {name: _cell(column[i], *ends[name]) for name, column in cells.items()},
        }
        for i, line in enumerate(lines)
    ]


def _cell(cell: Mapping[str, Any] | None, start: float, end: float) -> dict[str, Any] | None:
    if not cell or cell["mean"] is None:
        return None
    low, high = (cell["mean"] if cell[bound] is None else cell[bound] for bound in ("low", "high"))
    scale = 100 / max(end - start, 1e-9)
    place = {"left": (low - start) * scale, "width": (high - low) * scale, "dot": (cell["mean"] - start) * scale}
    return dict(cell) | place


def _verdicts(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The verdicts on the final lists, by the primary metric and by nDCG."""
    metrics = list(dict.fromkeys([comparison.get("primary"), f"ndcg@{K}"]))
    final = [pair for pair in comparison["pairs"] if pair["phase"] == "final"]
    return [pair for metric in metrics for pair in final if pair["metric"] == metric]


def _notes(comparison: Mapping[str, Any], rewards: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = [
        f"{one['name']}: the judge has judged {one['judged']:.0%} of the top {K}; reward and rates are over these."
        for one in rewards
        if one["judged"] < 1
    ]
    notes += [
        corrected_words(line_name(one), one["corrected_reward"], K)
        for one in comparison["strategies"]
        if one.get("corrected_reward")
    ]
    if all(one["metrics"].get(f"ndcg@{K}", {}).get("mean") is None for one in comparison["strategies"]):
        notes.append("No relevance is known for this store, so there is no nDCG; give one with --qrels.")
    return notes


def _plots(lines: Sequence[Line], names: Sequence[str]) -> list[dict[str, Any]]:
    colours = {line.name: line.colour for line in lines}
    plots = []
    for name in names:
        curves = {line.name: line.curves[name] for line in lines if name in line.curves}
        if curves:
            plots.append({"title": CURVE_TITLES[name], "svg": draw_curves(curves, "", salt=name, colours=colours)})
    return plots


def _reward_plot(rewards: Sequence[Mapping[str, Any]]) -> Any:
    if not rewards:
        return None
    values = {one["name"]: one["rewards"] for one in rewards}
    colours = {one["name"]: one["colour"] for one in rewards}
    return draw_histograms(values, "judge's reward of a recommended job", "rewards", colours, REWARD_SPAN)


def _mass_plot(health: Mapping[str, Any] | None) -> Any:
    if health is None or health["mass_low"] >= 1:
        return None
    values = {"label mass": health["masses"]}
    return draw_histograms(values, "probability on the four answers", "mass", {"label mass": "#3fa9a0"}, (0.0, 1.0))


def settings_rows(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value)."""
    flat: list[tuple[str, str]] = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat += settings_rows(value, f"{prefix}{name}.")
        elif name != "environment":
            flat.append((f"{prefix}{name}", "–" if value is None else str(value)))
    return flat
