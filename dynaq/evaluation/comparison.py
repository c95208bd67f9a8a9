"""Statistics of a comparison, the content of comparison.json: intervals, pairwise differences, learning curves.

An *arm* is a strategy with a setting; its trials differ only in their seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from dynaq.evaluation.intervals import (
    CONFIDENCE,
    NO_SEED,
    Band,
    Interval,
    Values,
    band,
    interval,
    on_grid,
    paired_difference,
    steps_to_threshold,
)
from dynaq.evaluation.run_quality import K, Known, metric_range
from dynaq.evaluation.trial_rows import CURVES, FINALS, curve_rows, final_rows
from dynaq.means import mean_known
from dynaq.runs.judgements import Judged
from dynaq.runs.reading import Run
from dynaq.runs.trials import Trial, TrialResult, setting_json

COMPARISON = "comparison.json"
COLD = 10  # judgements of the cold start
ARMS_SHOWN = 6  # arms that are compared: the report has six line colours
POINTS = 60  # most points of a learning curve
PRIMARY = f"mean_reward@{K}"
NDCG_THRESHOLD, REWARD_THRESHOLD = 0.9, 0.5
PAIRED = (PRIMARY, f"ndcg@{K}", f"apply_rate@{K}", f"recall@{K}", "mrr", f"regret@{K}")
LOWER_IS_BETTER = {f"regret@{K}"}
COLD_PAIRED = ("ndcg", "mean_reward")

# Metric, as in comparison.json -> its title and meaning.
METRIC_TITLES = {
    f"ndcg@{K}": (f"nDCG@{K}", "ranking against known relevance, 1 is ideal"),
    f"mean_reward@{K}": (f"judge reward@{K}", "the judge's mean reward of the final top 10"),
    f"apply_rate@{K}": (f"apply rate@{K}", "share of the final top 10 whose likeliest answer is APPLY"),
    f"recall@{K}": (f"recall@{K}", "share of the relevant jobs that are in the top 10"),
    "mrr": ("MRR", "1 / rank of the first relevant job"),
    f"regret@{K}": (f"regret@{K}", "reward missed against the best 10 pairs in the ledger"),
}
# Column of curves.parquet -> title of the learning curve in the report.
CURVE_TITLES = {
    "ndcg": f"nDCG@{K} of the ranking",
    "mean_reward": "mean judge reward of each slate",
    "cumulative_reward": "cumulative judge reward",
    "cumulative_regret": "cumulative regret by the judge's rewards",
    "q_loss": "loss of the direct Q updates",
    "model_loss": "squared error of the world model",
    "planning_loss": "loss of the planning updates",
    "epsilon": "ε, chance of a random job",
    "w_cosine": "weight of the cosine in the reward",
    "trust": "how far the judge is believed, 0 to 1",
}


@dataclass(frozen=True)
class Arm:
    """A strategy with a setting, and its trials by seed."""

    strategy: str
    setting: dict[str, Any]
    trials: tuple[TrialResult, ...]

    @property
    def name(self) -> str:
        """Strategy and setting, as shown in tables and plots."""
        return line_name({"strategy": self.strategy, "setting": self.setting})


class Rows:
    """The rows of all trials, from which an arm's values `[applicants, seeds]` are looked up."""

    def __init__(
        self, finals: Sequence[Mapping[str, Any]], curves: Sequence[Mapping[str, Any]], seeds: Sequence[int]
    ) -> None:
        self.applicants = list(dict.fromkeys(row["applicant_id"] for row in finals))
        self._seeds = list(seeds)
        self._finals = {(row["trial"], row["applicant_id"]): row for row in finals}
        self._curves: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for row in curves:
            self._curves.setdefault((row["trial"], row["applicant_id"]), []).append(row)
        self.grid = _grid([row["judgements_used"] for row in curves])
        self.cold_at = max(1, int(min(COLD, self.grid[-1])))

    def final(self, arm: Arm, metric: str) -> Values:
        """A metric at the end of training, `[applicants, seeds]`; NaN if a trial has no value."""
        return self._cells(arm, lambda trial, one: np.array(self._finals.get((trial, one), {}).get(metric, math.nan)))

    def curve(self, arm: Arm, metric: str, grid: Values | None = None) -> Values:
        """A learning curve at the points of `grid` (by default all), `[applicants, seeds, points]`."""
        at = self.grid if grid is None else grid

        def one(trial: str, applicant_id: str) -> Values:
            rows = self._curves.get((trial, applicant_id), [])
            return on_grid([row["judgements_used"] for row in rows], [row[metric] for row in rows], at)

        return self._cells(arm, one, (len(at),))

    def cold(self, arm: Arm, metric: str) -> Values:
        """A curve's value after the first COLD judgements, `[applicants, seeds]`; for the reward, their mean."""
        if metric == "mean_reward":
            return self.curve(arm, "cumulative_reward", np.array([self.cold_at]))[:, :, 0] / self.cold_at
        return self.curve(arm, metric, np.array([self.cold_at]))[:, :, 0]

    def _cells(self, arm: Arm, value: Any, shape: tuple[int, ...] = ()) -> Values:
        found = np.full((len(self.applicants), len(self._seeds), *shape), np.nan)
        for result in arm.trials:
            column = self._seeds.index(result.trial.seed)
            for row, applicant_id in enumerate(self.applicants):
                found[row, column] = value(result.trial.name, applicant_id)
        return found


def _grid(used: Sequence[int]) -> Values:
    """The numbers of judgements at which learning curves are evaluated."""
    points = np.unique(np.asarray([0, *used], np.float64))
    if len(points) > 1:
        points = points[1:]
    if len(points) > POINTS:
        points = points[np.unique(np.linspace(0, len(points) - 1, POINTS).round().astype(int))]
    return points


def statistics(
    results: Sequence[TrialResult],
    finals: Sequence[Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    threshold: float | None = None,
) -> dict[str, Any]:
    """All statistics of a comparison; `jobs.steps.compare` documents their form.

    threshold: learning-curve threshold, in nDCG if relevance is known, else in the judge's reward.
    """
    rows = Rows(finals, curves, seeds)
    every = arms_of(results, rows)
    arms = choose_arms(every, rows)
    seen = [rows.final(arm, f"ndcg@{K}") for arm in arms]
    curve = "ndcg" if any(not np.isnan(values).all() for values in seen) else "mean_reward"
    goal = threshold if threshold is not None else NDCG_THRESHOLD if curve == "ndcg" else REWARD_THRESHOLD
    notes = [NO_SEED] if len(seeds) == 1 else []
    if len(every) > len({arm.strategy for arm in arms}):
        notes.append(
            f"{len(arms)} of {len(every)} settings are compared, chosen by the same figures: the best of many looks "
            "better than it is; compare the winner again on other applicants"
        )
    pairs = _pairs(arms, rows)
    found: dict[str, Any] = _plain(
        {
            "k": K,
            "confidence": CONFIDENCE,
            "applicants": len(rows.applicants),
            "seeds": list(seeds),
            "primary": PRIMARY,
            "notes": notes,
            "strategies": [_arm_statistics(arm, rows, curve, goal) for arm in arms],
            "comparisons": len(pairs),
            "pairs": pairs,
        }
    )
    return found


def line_name(stats: Mapping[str, Any]) -> str:
    """The strategy, followed by the values of its setting if it has any."""
    setting = stats.get("setting") or {}
    values = (f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in setting.items())
    return " ".join([str(stats["strategy"]), *values])


def arms_of(results: Sequence[TrialResult], rows: Rows) -> list[Arm]:
    """Arms with at least one completed trial."""
    found: dict[tuple[str, str], list[TrialResult]] = {}
    for result in results:
        if result.status == "done":
            found.setdefault((result.trial.strategy, setting_json(result.trial.setting)), []).append(result)
    return [Arm(strategy, json.loads(setting), tuple(trials)) for (strategy, setting), trials in found.items()]


def choose_arms(arms: Sequence[Arm], rows: Rows) -> list[Arm]:
    """The best setting of every strategy, then the next best ones up to ARMS_SHOWN; in the order given.

    Settings with fewer completed seeds (the scheduler stopped the others) rank lower.
    """

    def rank(arm: Arm) -> tuple[int, float]:
        value = mean_known(rows.final(arm, PRIMARY))
        return len(arm.trials), -math.inf if math.isnan(value) else value

    order = sorted(arms, key=rank, reverse=True)
    first = [next(arm for arm in order if arm.strategy == name) for name in dict.fromkeys(a.strategy for a in arms)]
    chosen = [*first, *(arm for arm in order if arm not in first)][: max(ARMS_SHOWN, len(first))]
    return [arm for arm in arms if arm in chosen]


def _arm_statistics(arm: Arm, rows: Rows, curve: str, threshold: float) -> dict[str, Any]:
    results = arm.trials
    used = sum(result.judgements for result in results)
    # A strategy that needs no judge reaches the threshold at 0 judgements, or never.
    grid = rows.grid if used else np.zeros(1)
    steps = steps_to_threshold(rows.curve(arm, curve, grid), grid, threshold)
    return {
        "strategy": arm.strategy,
        "setting": arm.setting,
        "trials": [result.trial.name for result in results],
        "judgements_used": used,
        "judgements_paid": sum(result.paid for result in results),
        "judgements_per_applicant": used / len(results) / len(rows.applicants),
        "judgements_per_second": mean_known(np.array([result.per_second for result in results])),
        "seconds": sum(result.seconds for result in results),
        "metrics": {name: interval_json(rows.final(arm, name), name) for name in FINALS},
        "cold_start": {
            "judgements": rows.cold_at,
            "metrics": {name: interval_json(rows.cold(arm, name), name) for name in COLD_PAIRED},
        },
        "steps_to_threshold": {
            "metric": curve,
            "threshold": threshold,
            "judgements": steps.mean,
            "low": steps.low,
            "high": steps.high,
        },
        "curves": curves_json(learning_curves(arm, rows)),
    }


def run_curves(run: Run, judged: Judged) -> dict[str, Band]:
    """The learning curves of a single run, by the names of CURVES: those that a comparison of it alone would have.

    Against rounds for a run that used no judgements. judged: pairs judged by the run's judge.
    """
    trial = Trial(run.name, run.config["strategy"], run.config["config"]["seed"], {})
    known = Known(judged)
    rows = list(curve_rows(trial, run, known))
    if run.judgements_per_applicant == 0:
        rows = [row | {"judgements_used": row["round"]} for row in rows]
    finals = list(final_rows(trial, run, known, None))
    return learning_curves(Arm(trial.strategy, {}, (TrialResult(trial, "done"),)), Rows(finals, rows, [trial.seed]))


def learning_curves(arm: Arm, rows: Rows) -> dict[str, Band]:
    """An arm's known learning curves, by the names of CURVES."""
    bands = {name: band(rows.curve(arm, name), rows.grid, within=metric_range(name)) for name in CURVES}
    return {name: one for name, one in bands.items() if not np.isnan(one.mean).all()}


def curves_json(curves: Mapping[str, Band]) -> dict[str, dict[str, list[float]]]:
    """Learning curves as in comparison.json, with NaN for what is not known."""
    return {
        name: {bound: getattr(one, bound).tolist() for bound in ("judgements", "mean", "low", "high")}
        for name, one in curves.items()
    }


def _pairs(arms: Sequence[Arm], rows: Rows) -> list[dict[str, Any]]:
    """Every pair of arms on every metric that both have; all intervals hold simultaneously."""
    questions = [("final", name) for name in PAIRED] + [("cold_start", name) for name in COLD_PAIRED]
    asked = []
    for phase, metric in questions:
        values = [rows.final(arm, metric) if phase == "final" else rows.cold(arm, metric) for arm in arms]
        asked += [
            (phase, metric, arms[i].name, arms[j].name, values[i], values[j])
            for i, j in combinations(range(len(arms)), 2)
            if not np.isnan(values[i] - values[j]).all()
        ]
    return [_pair(*question, comparisons=len(asked)) for question in asked]


def _pair(
    phase: str, metric: str, a: str, b: str, values_a: Values, values_b: Values, *, comparisons: int
) -> dict[str, Any]:
    difference = paired_difference(
        values_a, values_b, comparisons=comparisons, higher_is_better=metric not in LOWER_IS_BETTER
    )
    better = {"a": a, "b": b}.get(difference.better or "")
    return {
        "a": a,
        "b": b,
        "metric": metric,
        "phase": phase,
        "difference": difference.interval.mean,
        "low": difference.interval.low,
        "high": difference.interval.high,
        "better": better,
        "verdict": verdict(a, b, metric, phase, difference.interval, better),
    }


def verdict(a: str, b: str, metric: str, phase: str, difference: Interval, better: str | None) -> str:
    """One sentence saying which arm is better, or that the data cannot tell."""
    titles = {"ndcg": f"nDCG@{K}", "mean_reward": "judge reward"}
    titles |= {name: title for name, (title, _) in METRIC_TITLES.items()}
    what = titles.get(metric, metric)
    if phase == "cold_start":
        what += f" of the first {COLD} judgements" if metric == "mean_reward" else f" after {COLD} judgements"
    if not difference.known:
        return f"Too little is known to compare {a} and {b} on {what}."
    d, low, high = difference.mean, difference.low, difference.high
    if better is None:
        return f"The data cannot tell {a} from {b} on {what}: difference {d:+z.3f} ({low:+z.3f} to {high:+z.3f})."
    worse = b if better == a else a
    if better == b:
        d, low, high = -d, -high, -low
    return f"{better} is better than {worse} on {what}: {d:+z.3f} ({low:+z.3f} to {high:+z.3f})."


def interval_json(values: npt.ArrayLike, metric: str) -> dict[str, float]:
    """Mean and interval of a metric's values, `[applicants]` or `[applicants, seeds]`."""
    found = interval(values, within=metric_range(metric))
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _plain(value: Any) -> Any:
    """Replaces NaN (not known) and infinity (not reached) by null, because JSON has neither."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
