"""Ranking metrics of one applicant's list.

nDCG follows Järvelin & Kekäläinen (2002) with the grade as gain and discount log2(rank + 1), as scikit-learn's
`ndcg_score` does; the ideal list is the best one from the whole catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt


def dcg(grades: Sequence[float] | npt.NDArray[np.floating]) -> float:
    """Discounted cumulative gain of grades in rank order."""
    g = np.asarray(grades, dtype=np.float64)
    return float((g / np.log2(np.arange(2, g.size + 2))).sum())


def ndcg_at_k(ranked: Sequence[str], grades: Mapping[str, float], k: int = 10) -> float:
    """nDCG@k of job ids in rank order against graded relevance; a job that `grades` lacks is irrelevant.

    NaN when no job is relevant, because there is no ideal list to compare with.
    """
    ideal = dcg(sorted(grades.values(), reverse=True)[:k])
    if ideal == 0.0:
        return float("nan")
    return dcg([grades.get(job_id, 0.0) for job_id in ranked[:k]]) / ideal


def recall_at_k(ranked: Sequence[str], grades: Mapping[str, float], k: int = 10) -> float:
    """Share of the relevant jobs (grade > 0) that are among the first k; NaN when no job is relevant."""
    relevant = {job_id for job_id, grade in grades.items() if grade > 0}
    if not relevant:
        return float("nan")
    return len(relevant.intersection(ranked[:k])) / len(relevant)


def reciprocal_rank(ranked: Sequence[str], grades: Mapping[str, float]) -> float:
    """1 / rank of the first relevant job; 0 when none is ranked."""
    return next((1.0 / rank for rank, job_id in enumerate(ranked, start=1) if grades.get(job_id, 0.0) > 0), 0.0)


def ranking_metrics(ranked: Sequence[str], grades: Mapping[str, float], k: int = 10) -> dict[str, float]:
    """`ndcg` and `recall` at k and `mrr` of one list; all NaN when no job is relevant."""
    known = any(grade > 0 for grade in grades.values())
    return {
        "ndcg": ndcg_at_k(ranked, grades, k),
        "recall": recall_at_k(ranked, grades, k),
        "mrr": reciprocal_rank(ranked, grades) if known else float("nan"),
    }


def auc(relevant: npt.ArrayLike, irrelevant: npt.ArrayLike) -> float:
    """Probability that a relevant pair scores higher; ties count half (Mann and Whitney 1947). NaN for an empty side.

    relevant, irrelevant: the scores of each side, of any shape.
    """
    above, below = np.ravel(relevant), np.sort(np.ravel(irrelevant))
    if not above.size or not below.size:
        return float("nan")
    beaten = np.searchsorted(below, above, side="left") + np.searchsorted(below, above, side="right")
    return float(beaten.mean()) / (2.0 * below.size)
