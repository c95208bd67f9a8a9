"""What the report compares: the statistics that `dynaq tune` left in comparison.json, or a run's own in that form."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynaq.evaluation.ranking import bootstrap_interval, ranking_metrics
from dynaq.evaluation.run_quality import Judged
from dynaq.qrels import Qrels
from dynaq.runs.folder import RunFolder
from dynaq.runs.reading import Run
from jobs.reporting.plots import COLOURS, Curve, learning_curve

COMPARISON = "comparison.json"
K = 10

# Column of the table: its name in comparison.json, its title, and what it is.
METRICS = {
    f"ndcg@{K}": (f"nDCG@{K}", "ranking against known relevance, 1 is ideal"),
    f"mean_reward@{K}": (f"judge reward@{K}", "the judge's mean reward of the final top 10"),
    f"apply_rate@{K}": (f"apply rate@{K}", "share of the final top 10 whose likeliest answer is APPLY"),
    f"recall@{K}": (f"recall@{K}", "share of the relevant jobs that are in the top 10"),
    "mrr": ("MRR", "1 / rank of the first relevant job"),
    f"regret@{K}": (f"regret@{K}", "reward missed against the best 10 that the judge is known to like"),
}
CURVES = {
    "ndcg": f"nDCG@{K} of the ranking",
    "mean_reward": "mean reward of each slate",
    "cumulative_reward": "cumulative reward",
    "cumulative_regret": "cumulative regret",
    "q_loss": "loss of the direct Q updates",
    "model_loss": "squared error of the world model",
    "planning_loss": "loss of the planning updates",
    "epsilon": "ε, chance of a random job",
    "w_cosine": "weight of the cosine in the reward",
}


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
        """The known learning curves, by the names of CURVES."""
        asks = self.stats["judgements_per_applicant"] > 0
        found = {}
        for column in CURVES:
            curve = (self.stats.get("curves") or {}).get(column)
            if curve and any(value is not None for value in curve["mean"]):
                numbers = {
                    name: [np.nan if v is None else v for v in curve[name]]
                    for name in ("judgements", "mean", "low", "high")
                }
                last = slice(None) if asks else slice(-1, None)  # who asks nobody has a level, not a curve
                mean, low, high = (numbers[name][last] for name in ("mean", "low", "high"))
                found[column] = Curve(numbers["judgements"] if asks else [0], mean, low, high)
        return found


def read_comparison(
    folder: RunFolder, runs: Sequence[Run], judged: Mapping[str, Judged], qrels: Qrels | None
) -> dict[str, Any]:
    """The folder's comparison.json; for a folder without one, the same made from its runs.

    judged: of each run, by its name.
    """
    if folder.exists(COMPARISON):
        found: dict[str, Any] = folder.read_json(COMPARISON)
        return found
    return {
        "k": K,
        "applicants": len(runs[0].ranked),
        "seeds": sorted({run.config["config"]["seed"] for run in runs}),
        "strategies": [_statistics(run, judged[run.name], qrels) for run in runs],
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


def line_name(stats: Mapping[str, Any]) -> str:
    """The strategy, and the setting it was tried with when there are several."""
    setting = stats.get("setting") or {}
    values = (f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in setting.items())
    return " ".join([str(stats["strategy"]), *values])


def _statistics(run: Run, judged: Judged, qrels: Qrels | None) -> dict[str, Any]:
    """One run as an entry of comparison.json, with intervals over its applicants."""
    values = _per_applicant(run, judged, qrels)
    curves = {column: curve for column in CURVES if (curve := learning_curve(run.metrics, column)) is not None}
    return {
        "strategy": run.config["strategy"] if run.name == run.config["strategy"] else run.name,
        "setting": {},
        "trials": [run.name],
        "judgements_used": round(run.judgements_per_applicant * len(run.ranked)),
        "judgements_per_applicant": run.judgements_per_applicant,
        "metrics": {name: _interval(column) for name, column in values.items()},
        "curves": {
            name: {"judgements": curve.x, "mean": curve.mean, "low": curve.low, "high": curve.high}
            for name, curve in curves.items()
        },
    }


def _per_applicant(run: Run, judged: Judged, qrels: Qrels | None) -> dict[str, list[float]]:
    """Metric -> one value per applicant for whom it is known."""
    values: dict[str, list[float]] = {name: [] for name in METRICS}
    for applicant_id, ranked in run.ranked.items():
        job_ids = [job_id for job_id, _ in ranked]
        grades = qrels.grades(applicant_id) if qrels else {}
        ranking = ranking_metrics(job_ids, grades, K)
        if not math.isnan(ranking["ndcg"]):
            values[f"ndcg@{K}"].append(ranking["ndcg"])
            values[f"recall@{K}"].append(ranking["recall"])
            values["mrr"].append(ranking["mrr"])
        known = [judged[applicant_id, job_id] for job_id in job_ids[:K] if (applicant_id, job_id) in judged]
        if known:
            values[f"mean_reward@{K}"].append(float(np.mean([reward for reward, _ in known])))
            values[f"apply_rate@{K}"].append(float(np.mean([label == "APPLY" for _, label in known])))
    return values


def _interval(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"mean": None, "low": None, "high": None}
    low, high = bootstrap_interval(values)
    return {"mean": float(np.mean(values)), "low": low, "high": high}
