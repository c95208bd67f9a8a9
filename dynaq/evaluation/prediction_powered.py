"""The judge's opinion of a list, corrected by what people said of some of its pairs.

A judge's mean reward of recommendations that were made to please it is praise of itself. Where the true reward of some
of the pairs is known (feedback of real people, hand-made labels), prediction-powered inference (Angelopoulos et al.
2023, arXiv 2301.09633, with the power tuning of arXiv 2311.01453) corrects the mean by the judge's error on them:

    theta = lambda·mean(judge, pairs without a true reward) + mean(true - lambda·judge, pairs with one)
    lambda = cov(true, judge) / ((1 + n / N)·var(judge))      n pairs have a true reward, N have none

With lambda = 0 the judge is left out. The interval is Student's t over applicants, since the pairs of one applicant are
not independent. It is right when the pairs with a true reward are like the others; what people did is not a random
sample of what they were shown, so a correction by feedback holds for the jobs that people react to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]

LEAST_KNOWN = 10  # pairs with a true reward; fewer say nothing about a judge
LEAST_APPLICANTS = 3  # with such pairs; fewer give no spread between applicants


@dataclass(frozen=True)
class Corrected:
    """A mean reward corrected by true ones.

    Args:
        mean, low, high: of the true reward over all pairs, with the bounds of its interval.
        judged: mean of the judge's own rewards of the same pairs.
        known: pairs whose true reward is known.
        weight: lambda, how far the judge is used; 0 where its answers say nothing about the true ones.
    """

    mean: float
    low: float
    high: float
    judged: float
    known: int
    weight: float


def corrected_mean(
    applicants: Sequence[str], judged: Values, true: Values, confidence: float = 0.95
) -> Corrected | None:
    """The mean true reward of some pairs.

    applicants `[pairs]`: whose pair it is. judged, true `[pairs]`: rewards in the same unit, NaN in `true` where the
    true reward is not known, NaN in `judged` where the judge was not asked (such pairs are left out). Returns None with
    fewer than LEAST_KNOWN known pairs or LEAST_APPLICANTS applicants who have one.
    """
    judged, true = np.asarray(judged, np.float64), np.asarray(true, np.float64)
    keep = ~np.isnan(judged)
    judged, true = judged[keep], true[keep]
    _, who = np.unique(np.asarray(list(applicants), dtype=object)[keep].astype(str), return_inverse=True)
    known = ~np.isnan(true)
    n, rest = int(known.sum()), int((~known).sum())
    if n < LEAST_KNOWN or len(np.unique(who[known])) < LEAST_APPLICANTS:
        return None
    weight = _power_tuned(judged, true, known)
    terms = np.where(known, true - weight * judged, weight * judged)
    mean = float(terms[known].mean()) + (float(terms[~known].mean()) if rest else 0.0)
    # Both means are of the same applicants: what one of them adds to either is added up before it is squared.
    influence = np.bincount(who[known], terms[known] - terms[known].mean(), minlength=who.max() + 1) / n
    if rest:
        influence += np.bincount(who[~known], terms[~known] - terms[~known].mean(), minlength=who.max() + 1) / rest
    clusters = len(np.unique(who[known]))
    deviation = float((influence**2).sum() * clusters / (clusters - 1)) ** 0.5  # Liang & Zeger 1986
    half = float(stats.t.ppf(0.5 + confidence / 2.0, clusters - 1)) * deviation
    return Corrected(mean, mean - half, mean + half, float(judged.mean()), n, weight)


def _power_tuned(judged: Values, true: Values, known: npt.NDArray[np.bool_]) -> float:
    """lambda, kept in [0, 1]: beyond it the estimate would lean on chance correlations of few pairs."""
    n, rest = int(known.sum()), int((~known).sum())
    variance = float(judged.var())
    if rest == 0 or variance == 0.0:
        return 0.0
    covariance = float(np.cov(true[known], judged[known])[0, 1])
    return min(1.0, max(0.0, covariance / ((1.0 + n / rest) * variance)))
