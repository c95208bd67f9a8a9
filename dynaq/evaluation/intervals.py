"""What a comparison over applicants and seeds can tell: bootstrap intervals, paired differences, learning curves.

Values lie in a table `[applicants, seeds]`, NaN where nothing is known. Applicants and seeds are both samples of more
that one could have had, so both are resampled, each on its own (the two-way bootstrap of Owen 2007,
arXiv 0712.1111). It is right for randomness that all applicants of a seed share (one network for all of them) and a
little too wide where every applicant has their own. Of n applicants or seeds n - 1 are drawn, which makes the variance
unbiased (Rao & Wu 1988): three seeds are few, and the plain bootstrap would take a third of their variance away.

One seed cannot be resampled: intervals then hold for that seed alone. From one applicant nothing follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

DRAWS = 10_000
CHUNK = 4_000_000  # numbers held at once per factor
NO_SEED = "one seed: intervals do not hold what another seed would have changed"


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its bootstrap interval; NaN where nothing is known or nothing follows."""

    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether both bounds are numbers: there were values to average."""
        return bool(np.isfinite([self.low, self.high]).all())


@dataclass(frozen=True)
class Difference:
    """a - b, paired over applicants and seeds.

    better: "a", "b" or None when the interval holds 0, which is: the data cannot tell.
    """

    interval: Interval
    better: str | None


def resampled_means(values: Values, draws: int = DRAWS, seed: int = 0) -> Values:
    """Means over resampled applicants and seeds. `[applicants, seeds, ...]` → `[draws, ...]`.

    NaNs are left out; a draw without any known value is NaN, and so is everything with fewer than two applicants.
    """
    x = np.asarray(values, dtype=np.float64)
    tail = x.shape[2:]
    x = x.reshape(x.shape[0], x.shape[1], -1)
    x = x[~np.isnan(x).all(axis=(1, 2))]
    x = x[:, ~np.isnan(x).all(axis=(0, 2))]
    if x.shape[0] < 2:
        return np.full((draws, *tail), np.nan)
    known = ~np.isnan(x)
    filled = np.where(known, x, 0.0)
    found = []
    for rows, columns in _weights(x.shape[0], x.shape[1], draws, seed):
        total = np.einsum("das,ds->da", _product(rows, filled), columns)
        count = np.einsum("das,ds->da", _product(rows, known.astype(np.float64)), columns)
        found.append(np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0))
    means: Values = np.concatenate(found).reshape(draws, *tail)
    return means


def _product(rows: Values, x: Values) -> Values:
    """rows `[draws, applicants]`, x `[applicants, seeds, n]` → `[draws, n, seeds]`."""
    applicants, seeds, n = x.shape
    product: Values = (rows @ x.reshape(applicants, seeds * n)).reshape(len(rows), seeds, n).transpose(0, 2, 1)
    return product


def _weights(applicants: int, seeds: int, draws: int, seed: int) -> Iterator[tuple[Values, Values]]:
    """How often each applicant and each seed was drawn, `[n, applicants]` and `[n, seeds]`, chunk by chunk."""
    chunk = max(1, CHUNK // applicants)
    for start in range(0, draws, chunk):
        n = min(chunk, draws - start)
        yield _counts(applicants, n, seed, start, 0), _counts(seeds, n, seed, start, 1)


@lru_cache(maxsize=4)  # all metrics of a comparison are resampled alike
def _counts(of: int, n: int, *entropy: int) -> Values:
    if of == 1:
        return np.ones((n, 1))
    drawn = np.random.default_rng(entropy).multinomial(of - 1, np.full(of, 1.0 / of), size=n)
    return drawn.astype(np.float64)


def bounds(means: Values, confidence: float = 0.95) -> tuple[Values, Values]:
    """Percentile bounds over the first axis of what `resampled_means` gave; NaN draws are left out."""
    levels = [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0]
    shape = means.shape[1:]
    flat = means.reshape(len(means), -1)
    low, high = np.full((2, flat.shape[1]), np.nan)
    for column in np.flatnonzero(~np.isnan(flat).all(axis=0)):
        low[column], high[column] = np.nanquantile(flat[:, column], levels)
    return low.reshape(shape), high.reshape(shape)


def interval(values: Values, confidence: float = 0.95, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Mean of `[applicants, seeds]` with its bootstrap interval."""
    low, high = bounds(resampled_means(values, draws, seed), confidence)
    return Interval(mean_known(values), float(low), float(high))


def paired_difference(
    a: Values,
    b: Values,
    *,
    comparisons: int = 1,
    confidence: float = 0.95,
    higher_is_better: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """Mean of a - b over the applicants and seeds that both have, `[applicants, seeds]` each.

    comparisons: pairs that are looked at together; the interval is widened so that all of them hold at once with
    `confidence` (Bonferroni).
    """
    level = 1.0 - (1.0 - confidence) / max(1, comparisons)
    found = interval(np.asarray(a, np.float64) - np.asarray(b, np.float64), level, draws, seed)
    better = None
    if found.known and (found.low > 0 or found.high < 0):
        better = "a" if (found.low > 0) == higher_is_better else "b"
    return Difference(found, better)


def mean_known(values: Values) -> float:
    """NaN of nothing."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else float("nan")


def on_grid(used: Sequence[float], values: Sequence[float], grid: Values) -> Values:
    """A learning curve as steps: at each number of judgements of `grid` the last value known by then, else NaN."""
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


def band(curves: Values, grid: Values, confidence: float = 0.95, draws: int = 2000, seed: int = 0) -> Band:
    """curves `[applicants, seeds, points]` on `grid` `[points]`."""
    low, high = bounds(resampled_means(curves, draws, seed), confidence)
    mean = np.array([mean_known(curves[:, :, point]) for point in range(curves.shape[2])])
    return Band(grid, mean, low, high)


def steps_to_threshold(
    curves: Values, grid: Values, threshold: float, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Judgements after which the mean curve is first at or above the threshold; infinite when it never is.

    curves `[applicants, seeds, points]` on `grid` `[points]`. The bounds may be infinite too.
    """
    found = _first_at(
        np.array([[mean_known(curves[:, :, point]) for point in range(curves.shape[2])]]), grid, threshold
    )
    means = resampled_means(curves, draws, seed)
    if np.isnan(means).all():
        return Interval(float(found[0]), float("nan"), float("nan"))
    steps = _first_at(means, grid, threshold)
    # Between a number and infinity there is nothing, so the bounds are draws themselves.
    low = np.quantile(steps, (1.0 - confidence) / 2.0, method="lower")
    high = np.quantile(steps, (1.0 + confidence) / 2.0, method="higher")
    return Interval(float(found[0]), float(low), float(high))


def _first_at(means: Values, grid: Values, threshold: float) -> Values:
    reached = means >= threshold
    first: Values = np.where(reached.any(axis=1), grid[reached.argmax(axis=1)], np.inf)
    return first
