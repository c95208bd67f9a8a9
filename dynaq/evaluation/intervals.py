"""Statistics over applicants and seeds: intervals, paired differences, learning curves.

Values form a table `[applicants, seeds]`, NaN where nothing is known. Applicants and seeds are both samples from larger
populations, so the variance of a mean is the sum of two cluster variances, of applicants and of seeds (Cameron, Gelbach
& Miller 2011, doi 10.1198/jbes.2010.07136). Their third term is left out, so that the interval errs on the wide side:
noise that is independent in every cell is counted twice. The interval is Student's t with the degrees of freedom of
that sum (Satterthwaite 1946). Rates and nDCG pile up at a bound, and the t interval of a skewed sample covers too
rarely, so the t quantiles of a mean are corrected for the skewness of the applicants by Hall's cubic transformation
(Hall 1992, doi 10.1111/j.2517-6161.1992.tb01876.x). Paired differences are close to symmetric, and the correction would
only widen their intervals, so they use uncorrected quantiles.

Simulated coverage of a nominal 0.95 (1,500 to 8,000 samples per cell; nDCG-like is a Beta(5, 1) level per applicant):

    applicants, seeds                           8, 1     8, 3    32, 1    32, 3    96, 1    96, 3
    nDCG-like                                  0.943    0.946    0.953    0.956    0.947    0.958
    nDCG-like, seeds differ by 0.3 sd              –    0.961        –    0.945        –    0.927
    nDCG-like, seeds differ by 1 sd                –    0.943        –    0.930        –    0.926
    normal                                     0.948    0.953    0.949    0.959    0.951    0.958
    paired difference, uncorrected t           0.948    0.961    0.948    0.968    0.953    0.966
    percentile bootstrap, nDCG-like            0.897    0.910        –        –        –        –

With one seed, a bootstrap-t covers as well as the correction (0.943 at 8 applicants), and BCa does not (0.882 at 8);
but three seeds are too few to resample. Two seeds shared by all applicants are too few for any of these methods (0.88
to 0.92).

With one seed, intervals hold for that seed alone. One applicant gives no interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from dynaq.means import mean_known

Values = npt.NDArray[np.float64]

CONFIDENCE = 0.95
NO_SEED = "one seed: intervals do not include the variation between seeds"
NO_RANGE = (-np.inf, np.inf)
SYMMETRIC = 1e-9  # below this skewness, Hall's transformation is the identity in double precision


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its interval; NaN where there is no value, or too few for an interval."""

    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether both bounds are finite numbers."""
        return bool(np.isfinite([self.low, self.high]).all())


@dataclass(frozen=True)
class Difference:
    """a - b, paired over applicants and seeds.

    better: "a" or "b"; None when the interval contains 0, so that the data cannot tell.
    """

    interval: Interval
    better: str | None


def bounds(
    values: Values, confidence: float = CONFIDENCE, *, symmetric: bool = False, within: tuple[float, float] = NO_RANGE
) -> tuple[Values, Values]:
    """Lower and upper bound of the mean, `[applicants, seeds, ...]` → `[...]` each; NaN below two applicants.

    symmetric: skip the correction for skewness. within: range of possible means.
    """
    x = np.asarray(values, dtype=np.float64)
    tail = x.shape[2:]
    x = x.reshape(x.shape[0], x.shape[1], -1)
    known = ~np.isnan(x)
    mean = _mean(x, known)
    apart = np.where(known, x - mean, 0.0) / np.maximum(known.sum((0, 1)), 1)
    applicants, seeds = known.any(1).sum(0), known.any(0).sum(0)
    by_applicant, by_seed = _cluster_variance(apart.sum(1), applicants), _cluster_variance(apart.sum(0), seeds)
    variance = by_applicant + by_seed
    safe = np.where(variance > 0, variance, 1.0)
    shares = (by_applicant / safe) ** 2 / np.maximum(applicants - 1, 1)
    shares = shares + (by_seed / safe) ** 2 / np.maximum(seeds - 1, 1)
    freedom = 1.0 / np.where(shares > 0, shares, 1.0)
    upper = stdtrit(freedom, (1.0 + confidence) / 2.0)
    skewness = np.zeros_like(mean) if symmetric else _skewness(apart.sum(1), applicants) * (by_applicant / safe) ** 1.5
    spread = np.where(applicants >= 2, np.sqrt(variance), np.nan)
    low = np.clip(mean - spread * _hall(upper, skewness), *within)
    high = np.clip(mean - spread * _hall(-upper, skewness), *within)
    return low.reshape(tail), high.reshape(tail)


def _mean(x: Values, known: npt.NDArray[np.bool_]) -> Values:
    """Mean over the known cells, `[applicants, seeds, n]` → `[n]`; NaN if there are none."""
    count = known.sum((0, 1))
    total = np.where(known, x, 0.0).sum((0, 1))
    mean: Values = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def _cluster_variance(influence: Values, count: npt.NDArray[np.int_]) -> Values:
    """Variance of a mean from each cluster's influence on it, `[clusters, n]` → `[n]`; 0 for a single cluster."""
    variance: Values = (influence**2).sum(0) * np.where(count > 1, count / np.maximum(count - 1, 1), 0.0)
    return variance


def _skewness(influence: Values, count: npt.NDArray[np.int_]) -> Values:
    """Skewness of the mean of independent applicants, `[applicants, n]` → `[n]`; 0 below three of them."""
    n = np.maximum(count, 3)
    deviation = np.sqrt((influence**2).sum(0) / (n - 1))
    cubes = (influence**3).sum(0) * n / ((n - 1) * (n - 2))
    scale = np.where(deviation > 0, deviation, 1.0)
    skewness: Values = np.where((count >= 3) & (deviation > 0), cubes / scale**3, 0.0) / np.sqrt(n)
    return skewness


def _hall(quantile: Values, skewness: Values) -> Values:
    """The studentised mean at a t quantile: the inverse of T + a/3·T² + a²/27·T³ + a/6, where a is its skewness."""
    a = np.where(np.abs(skewness) > SYMMETRIC, skewness, 1.0)
    bent = (np.cbrt(1.0 + a * (quantile - a / 6.0)) - 1.0) * 3.0 / a
    studentised: Values = np.where(np.abs(skewness) > SYMMETRIC, bent, quantile)
    return studentised


def interval(
    values: npt.ArrayLike,
    confidence: float = CONFIDENCE,
    *,
    symmetric: bool = False,
    within: tuple[float, float] = NO_RANGE,
) -> Interval:
    """The mean of `[applicants]` or `[applicants, seeds]` with its interval; the options are those of `bounds`."""
    x = np.asarray(values, np.float64)
    x = x if x.ndim > 1 else x.reshape(-1, 1)
    low, high = bounds(x, confidence, symmetric=symmetric, within=within)
    return Interval(mean_known(x), float(low), float(high))


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    comparisons: int = 1,
    confidence: float = CONFIDENCE,
    higher_is_better: bool = True,
) -> Difference:
    """Mean of a - b over the applicants and seeds that both have, `[applicants]` or `[applicants, seeds]` each.

    comparisons: number of comparisons made together; intervals are widened so that all of them hold simultaneously with
    `confidence` (by Bonferroni, whose intervals, unlike those of Holm, always agree with the verdicts).
    """
    level = 1.0 - (1.0 - confidence) / max(1, comparisons)
    found = interval(np.asarray(a, np.float64) - np.asarray(b, np.float64), level, symmetric=True)
    better = None
    if found.known and (found.low > 0 or found.high < 0):
        better = "a" if (found.low > 0) == higher_is_better else "b"
    return Difference(found, better)


def on_grid(used: Sequence[float], values: Sequence[float], grid: Values) -> Values:
    """A learning curve as a step function: at each point of `grid` the last value known by then, else NaN.

    used: numbers of judgements at which `values` were measured.
    """
    x, y = np.asarray(used, np.float64), np.asarray(values, np.float64)
    keep = ~np.isnan(y)
    x, y = x[keep], y[keep]
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    at = np.searchsorted(x, grid, side="right") - 1
    found = np.full(len(grid), np.nan)
    found[at >= 0] = y[at[at >= 0]]
    return found


@dataclass(frozen=True)
class Band:
    """A learning curve's mean with its bounds at each number of judgements."""

    judgements: Values
    mean: Values
    low: Values
    high: Values


def band(curves: Values, grid: Values, confidence: float = CONFIDENCE, within: tuple[float, float] = NO_RANGE) -> Band:
    """The band of curves `[applicants, seeds, points]` on `grid` `[points]`; its intervals are pointwise."""
    low, high = bounds(curves, confidence, within=within)
    return Band(grid, _mean(curves, ~np.isnan(curves)), low, high)


def steps_to_threshold(curves: Values, grid: Values, threshold: float, confidence: float = CONFIDENCE) -> Interval:
    """Number of judgements after which the mean curve first reaches the threshold; infinite if it never does.

    curves `[applicants, seeds, points]` on `grid` `[points]`. The bounds are where the upper and the lower end of the
    band reach it, and may be infinite too.
    """
    found = band(curves, grid, confidence)
    first = _first_at(found.mean, grid, threshold)
    if np.isnan(found.high).all():
        return Interval(first, float("nan"), float("nan"))
    return Interval(first, _first_at(found.high, grid, threshold), _first_at(found.low, grid, threshold))


def _first_at(curve: Values, grid: Values, threshold: float) -> float:
    reached = curve >= threshold
    return float(grid[reached.argmax()]) if reached.any() else float("inf")
