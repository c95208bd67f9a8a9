"""Quality of a run's recommendations: against known relevance, and by the judgements of its judge.

`dynaq evaluate`, `dynaq tune` and the report all take their figures from here: first one number per applicant, then
the mean over applicants with its interval. So an applicant with two judged jobs counts as much as one with ten.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from dynaq.evaluation.intervals import NO_RANGE, Interval, interval
from dynaq.evaluation.prediction_powered import Corrected
from dynaq.evaluation.ranking import ranking_metrics
from dynaq.evaluation.true_rewards import TrueRewards, corrected_reward
from dynaq.judging.judgement import LABELS
from dynaq.qrels import Qrels
from dynaq.runs.judgements import Judged
from dynaq.runs.reading import Run

K = 10  # default length of the list
RATES = {label: f"{label.lower()}_rate" for label in LABELS}
UNIT_METRICS = ("ndcg", "recall", "mrr", "judged", *RATES.values())  # metrics between 0 and 1


def quality_names(k: int = K) -> tuple[str, ...]:
    """The names of the metrics of `applicant_quality`, with their cut-off."""
    judged = ("mean_reward", *RATES.values(), "regret", "judged")
    return (f"ndcg@{k}", f"recall@{k}", "mrr", *(f"{name}@{k}" for name in judged))


def metric_range(metric: str) -> tuple[float, float]:
    """Range of a metric's mean, at any cut-off; rewards, regrets and losses are unbounded."""
    return (0.0, 1.0) if metric.partition("@")[0] in UNIT_METRICS else NO_RANGE


class Known:
    """The judgements in the ledger, with each applicant's highest rewards."""

    def __init__(self, judged: Judged) -> None:
        self.judged = judged
        best: dict[str, list[float]] = {}
        for (applicant_id, _), (reward, _) in judged.items():
            best.setdefault(applicant_id, []).append(reward)
        # Element n is the highest possible sum of rewards of n distinct pairs.
        self._sums = {name: [0.0, *accumulate(sorted(own, reverse=True))] for name, own in best.items()}

    def best_sum(self, applicant_id: str, n: int) -> float:
        """Sum of the applicant's n highest known rewards; NaN if fewer are known."""
        sums = self._sums.get(applicant_id, [0.0])
        return sums[n] if n < len(sums) else math.nan


def applicant_quality(
    applicant_id: str, ranked: Sequence[str], known: Known, grades: Mapping[str, float], k: int = K
) -> dict[str, float]:
    """Quality of one applicant's list of job ids, by the names of `quality_names`; NaN for what is not known.

    ndcg, recall, mrr: against relevance, if any job is relevant to the applicant.
    mean_reward, rates: mean of the judge's rewards and shares of its labels, over the judged pairs of the top k.
    regret: reward missed per pair, against as many of the applicant's best pairs in the ledger.
    judged: share of the top k that is judged.
    """
    top = ranked[:k]
    answers = [known.judged[applicant_id, job_id] for job_id in top if (applicant_id, job_id) in known.judged]
    ranking = ranking_metrics(ranked, grades, k)
    reward = float(np.mean([reward for reward, _ in answers])) if answers else math.nan
    best = known.best_sum(applicant_id, len(answers)) / len(answers) if answers else math.nan
    labels = [label for _, label in answers]
    rates = {f"{rate}@{k}": labels.count(label) / len(labels) if labels else math.nan for label, rate in RATES.items()}
    return {
        f"ndcg@{k}": ranking["ndcg"],
        f"recall@{k}": ranking["recall"],
        "mrr": ranking["mrr"],
        f"mean_reward@{k}": reward,
        **rates,
        f"regret@{k}": best - reward,
        f"judged@{k}": len(answers) / len(top) if top else math.nan,
    }


def quality_rows(run: Run, known: Known, qrels: Qrels | None, k: int = K) -> dict[str, dict[str, float]]:
    """Applicant -> quality of their list, in the run's order."""
    return {
        applicant_id: applicant_quality(
            applicant_id, [job_id for job_id, _ in ranked], known, qrels.grades(applicant_id) if qrels else {}, k
        )
        for applicant_id, ranked in run.ranked.items()
    }


@dataclass(frozen=True)
class Evaluation:
    """Quality of a run.

    Args:
        k: length of the lists.
        applicants, judgements_per_applicant: of the run.
        quality: metric, by the names of `quality_names` -> mean over the applicants for whom it is known, with its 95 %
            interval; NaN if it is known for none.
        corrected: the mean reward of the lists, corrected by pairs whose truth is known; None with too few of them.
    """

    k: int
    applicants: int
    judgements_per_applicant: float
    quality: Mapping[str, Interval]
    corrected: Corrected | None = None

    def interval(self, metric: str) -> Interval:
        """A metric with its interval; a name without a cut-off (`ndcg`) means the one at k."""
        return self.quality[metric if metric in self.quality else f"{metric}@{self.k}"]

    def mean(self, metric: str) -> float:
        """Mean of a metric, named as for `interval`."""
        return self.interval(metric).mean

    def to_json(self) -> dict[str, Any]:
        """The figures that `dynaq evaluate --json` prints; null for what is not known."""
        k = self.k
        values: dict[str, Any] = {
            "applicants": self.applicants,
            "judgements_per_applicant": self.judgements_per_applicant,
            **self._with_bounds("ndcg"),
            f"recall@{k}": self.mean("recall"),
            "mrr": self.mean("mrr"),
            **self._with_bounds("mean_reward"),
            **self._with_bounds("apply_rate"),
            f"judged@{k}": self.mean("judged"),
            f"corrected_reward@{k}": self.corrected.mean if self.corrected else math.nan,
            f"corrected_reward@{k}_interval": [self.corrected.low, self.corrected.high] if self.corrected else None,
            "truth_known": self.corrected.known if self.corrected else 0,
        }
        return {name: _null(value) for name, value in values.items()}

    def _with_bounds(self, metric: str) -> dict[str, Any]:
        name, found = f"{metric}@{self.k}", self.interval(metric)
        return {name: found.mean, f"{name}_interval": [found.low, found.high]}


def evaluate_run(
    run: Run, judged: Judged, qrels: Qrels | None, k: int = K, true: TrueRewards | None = None
) -> Evaluation:
    """Evaluate the first k recommendations of every applicant of a run; `true` corrects the judge's mean reward."""
    rows = list(quality_rows(run, Known(judged), qrels, k).values())
    quality = {name: interval([row[name] for row in rows], within=metric_range(name)) for name in quality_names(k)}
    corrected = corrected_reward([run], judged, true, k) if true is not None else None
    return Evaluation(k, run.applicants, run.judgements_per_applicant, quality, corrected)


def _null(value: Any) -> Any:
    """Replaces NaN by null, because JSON has no NaN."""
    if isinstance(value, list):
        return [_null(part) for part in value]
    return None if isinstance(value, float) and np.isnan(value) else value
