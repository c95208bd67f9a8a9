"""What the report compares: the statistics that `dynaq tune` wrote to comparison.json, or a run's own in that form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from dynaq.evaluation.comparison import COMPARISON, CURVE_TITLES, METRIC_TITLES, curves_json, line_name, run_curves
from dynaq.evaluation.intervals import Band, Interval
from dynaq.evaluation.run_quality import K, evaluate_run
from dynaq.evaluation.true_rewards import TrueRewards
from dynaq.qrels import Qrels
from dynaq.runs.folder import RunFolder
from dynaq.runs.judgements import Judged
from dynaq.runs.reading import Run
from jobs.reporting.plots import COLOURS, Curve


@dataclass(frozen=True)
class Line:
    """One line of the comparison: a strategy, with a setting if several were tried, over its seeds.

    Args:
        name: on the page.
        colour: of its curves and bars.
        runs: its finished trials, one per seed.
        stats: its entry of comparison.json.
    """

    name: str
    colour: str
    runs: tuple[Run, ...]
    stats: Mapping[str, Any]

    @property
    def curves(self) -> dict[str, Curve]:
        """The known learning curves, by the names of CURVE_TITLES."""
        asks = self.stats["judgements_per_applicant"] > 0
        found = {}
        for column in CURVE_TITLES:
            curve = (self.stats.get("curves") or {}).get(column)
            if curve and any(value is not None for value in curve["mean"]):
                numbers = {
                    name: [np.nan if v is None else v for v in curve[name]]
                    for name in ("judgements", "mean", "low", "high")
                }
                last = slice(None) if asks else slice(-1, None)  # no judge: a level, not a curve
                mean, low, high = (numbers[name][last] for name in ("mean", "low", "high"))
                found[column] = Curve(numbers["judgements"] if asks else [0], mean, low, high)
        return found


def read_comparison(
    folder: RunFolder,
    runs: Sequence[Run],
    judged: Mapping[str, Judged],
    qrels: Qrels | None,
    true: TrueRewards | None = None,
    curves: Mapping[str, Mapping[str, Band] | None] = MappingProxyType({}),
) -> dict[str, Any]:
    """The folder's comparison.json; for a folder without one, the same structure computed from its runs.

    judged: run name -> its judged pairs. true: corrects the judge's opinion of the lists. curves: run name -> its
    learning curves, where they have been computed already.
    """
    if folder.exists(COMPARISON):
        found: dict[str, Any] = folder.read_json(COMPARISON)
        return found
    return {
        "k": K,
        "applicants": runs[0].applicants,
        "seeds": sorted({run.config["config"]["seed"] for run in runs}),
        "strategies": [_statistics(run, judged[run.name], qrels, true, curves.get(run.name)) for run in runs],
        "pairs": [],
        "notes": [],
    }


def lines_of(comparison: Mapping[str, Any], runs: Sequence[Run]) -> list[Line]:
    """The comparison's lines that have at least one finished trial, in its order."""
    by_name = {run.name: run for run in runs}
    lines: list[Line] = []
    for stats in comparison["strategies"]:
        own = tuple(by_name[name] for name in stats["trials"] if name in by_name)
        if own:
            lines.append(Line(line_name(stats), COLOURS[len(lines) % len(COLOURS)], own, stats))
    return lines


def _statistics(
    run: Run, judged: Judged, qrels: Qrels | None, true: TrueRewards | None, curves: Mapping[str, Band] | None
) -> dict[str, Any]:
    """One run as an entry of comparison.json, with intervals over its applicants."""
    evaluation = evaluate_run(run, judged, qrels, true=true)
    return {
        "strategy": run.config["strategy"] if run.name == run.config["strategy"] else run.name,
        "setting": {},
        "trials": [run.name],
        "judgements_used": round(run.judgements_per_applicant * run.applicants),
        "judgements_per_applicant": run.judgements_per_applicant,
        "metrics": {name: _known(evaluation.quality[name]) for name in METRIC_TITLES},
        "corrected_reward": asdict(evaluation.corrected) if evaluation.corrected else None,
        "curves": curves_json(run_curves(run, judged) if curves is None else curves),
    }


def _known(found: Interval) -> dict[str, float | None]:
    """None for unknown values."""
    values = {"mean": found.mean, "low": found.low, "high": found.high}
    return {name: None if math.isnan(value) else value for name, value in values.items()}
