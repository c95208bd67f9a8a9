"""How good a run's recommendations are: against relevance, and in the eyes of the run's judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynaq.evaluation.ranking import bootstrap_interval, ndcg_at_k, recall_at_k, reciprocal_rank
from dynaq.qrels import Qrels
from dynaq.runs.reading import Run

Judged = Mapping[tuple[str, str], tuple[float, str]]  # (applicant, job) -> reward, label


@dataclass(frozen=True)
class Evaluation:
    """Means over applicants; NaN where there is nothing to go by.

    Args:
        k: length of the list that is judged.
        applicants, judgements_per_applicant: of the run.
        ndcg, ndcg_interval, recall, mrr: against relevance; applicants without any relevant job are left out.
        mean_reward, apply_rate: judge's reward and share of APPLY over the pairs of the top k that it judged.
        judged: share of the top-k pairs that the judge has judged.
    """

    k: int
    applicants: int
    judgements_per_applicant: float
    ndcg: float
    ndcg_interval: tuple[float, float]
    recall: float
    mrr: float
    mean_reward: float
    apply_rate: float
    judged: float

    def to_json(self) -> dict[str, Any]:
        """Names with their cut-off; null for what is not known."""
        k = self.k
        values: dict[str, Any] = {
            "applicants": self.applicants,
            "judgements_per_applicant": self.judgements_per_applicant,
            f"ndcg@{k}": self.ndcg,
            f"ndcg@{k}_interval": list(self.ndcg_interval),
            f"recall@{k}": self.recall,
            "mrr": self.mrr,
            f"mean_reward@{k}": self.mean_reward,
            f"apply_rate@{k}": self.apply_rate,
            f"judged@{k}": self.judged,
        }
        return {name: _null(value) for name, value in values.items()}


def evaluate_run(run: Run, judged: Judged, qrels: Qrels | None, k: int = 10) -> Evaluation:
    """Evaluate the first k recommendations of every applicant of a run."""
    ndcg, recall, mrr = [], [], []
    rewards: list[float] = []
    applies: list[bool] = []
    shown = 0
    for applicant_id, ranked in run.ranked.items():
        job_ids = [job_id for job_id, _ in ranked]
        grades = qrels.grades(applicant_id) if qrels else {}
        if any(grade > 0 for grade in grades.values()):
            ndcg.append(ndcg_at_k(job_ids, grades, k))
            recall.append(recall_at_k(job_ids, grades, k))
            mrr.append(reciprocal_rank(job_ids, grades))
        shown += len(job_ids[:k])
        known = [judged[applicant_id, job_id] for job_id in job_ids[:k] if (applicant_id, job_id) in judged]
        rewards.extend(reward for reward, _ in known)
        applies.extend(label == "APPLY" for _, label in known)
    return Evaluation(
        k=k,
        applicants=len(run.ranked),
        judgements_per_applicant=run.judgements_per_applicant,
        ndcg=_mean(ndcg),
        ndcg_interval=bootstrap_interval(ndcg),
        recall=_mean(recall),
        mrr=_mean(mrr),
        mean_reward=_mean(rewards),
        apply_rate=_mean(applies),
        judged=len(rewards) / shown if shown else float("nan"),
    )


def _mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _null(value: Any) -> Any:
    """NaN is not JSON."""
    if isinstance(value, list):
        return [_null(part) for part in value]
    return None if isinstance(value, float) and np.isnan(value) else value
