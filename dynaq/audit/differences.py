"""Statistics of counterfactuals: differences, impact ratios, and how large an effect would have been found.

Profiles are the sample: each is judged under every level on the same jobs, so all comparisons are paired within it. An
alarm stops a promotion and audits are repeated, so the intervals of an audit hold for all its comparisons at once
(Bonferroni, as in `dynaq.evaluation.intervals`) with CERTAINTY. All functions take further axes at the end, so that
hundreds of simulated audits are measured at once.

Scoring rate and impact ratio follow New York City's rule on automated employment decision tools (6 RCNY § 5-300, Local
Law 144 of 2021): the scoring rate of a category is the share of its scores above the median of all; its impact ratio
is its rate divided by that of the most favoured category. Ratios below FOUR_FIFTHS are adverse impact by the EEOC's
rule of thumb where they are statistically significant, too (29 CFR § 1607.4 D).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from dynaq.audit.attributes import Contrast
from dynaq.audit.limits import CERTAINTY, POWER
from dynaq.evaluation.intervals import Interval, Values, bounds, interval


def simultaneous(comparisons: int) -> float:
    """Confidence of one interval, so that those of all comparisons hold at once with CERTAINTY."""
    return 1.0 - (1.0 - CERTAINTY) / max(1, comparisons)


@dataclass(frozen=True)
class Effect:
    """A mean difference.

    Args:
        interval: simultaneous with the audit's other comparisons.
        detectable: size of a difference that would have been found with the probability POWER; NaN if unknown.
    """

    interval: Interval
    detectable: float

    @property
    def found(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval.known and (self.interval.low > 0 or self.interval.high < 0)


@dataclass(frozen=True)
class Impact:
    """Scoring rates of two sides, and the ratio of the lower to the higher one with its simultaneous interval.

    detectable: the impact ratio, nearest to 1, that would have been found with the probability POWER.
    """

    other: float
    reference: float
    ratio: Interval
    detectable: float

    @property
    def found(self) -> bool:
        """Whether the sides differ credibly: the interval excludes 1."""
        return self.ratio.known and self.ratio.high < 1.0


def means_of_sides(scores: Mapping[str, Values], contrast: Contrast) -> tuple[Values, Values]:
    """Scores of both sides of a contrast, `[profiles, jobs, ...]` each: means over levels, NaN where one lacks it."""
    other = np.mean([scores[level] for level in contrast.other], axis=0)
    reference = np.mean([scores[level] for level in contrast.reference], axis=0)
    missing = np.isnan(other) | np.isnan(reference)
    return np.where(missing, np.nan, other), np.where(missing, np.nan, reference)


def per_profile(scores: Values) -> Values:
    """Mean over the jobs, `[profiles, jobs, ...]` → `[profiles, ...]`; NaN for a profile without any score."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # mean of an empty slice
        found: Values = np.nanmean(scores, axis=1)
    return found


def differences(scores: Mapping[str, Values], contrasts: Sequence[Contrast]) -> Values:
    """Mean score of `other` minus `reference`, per profile: `[profiles, contrasts, ...]`."""
    sides = [means_of_sides(scores, contrast) for contrast in contrasts]
    return np.stack([per_profile(other - reference) for other, reference in sides], axis=1)


def found_differences(values: Values, comparisons: int) -> npt.NDArray[np.bool_]:
    """Which means are credibly not 0, `[profiles, ...]` → `[...]`."""
    low, high = bounds(values[:, None], simultaneous(comparisons), symmetric=True)
    found: npt.NDArray[np.bool_] = (low > 0) | (high < 0)
    return found


def effect(values: Values, comparisons: int) -> Effect:
    """The mean of `[profiles]` differences."""
    level = simultaneous(comparisons)
    found = interval(values, level, symmetric=True)
    return Effect(found, detectable(found, int((~np.isnan(values)).sum()), level))


def detectable(found: Interval, profiles: int, level: float) -> float:
    """The difference that an interval of this width excludes 0 for with the probability POWER; NaN without an interval.

    (t[1 - α/2] + t[POWER])·se, the usual approximation to the noncentral t (Chow, Shao & Wang 2008, ch. 3).
    """
    if not found.known or profiles < 2:
        return float("nan")
    half = (found.high - found.low) / 2.0
    quantile, power = stdtrit(profiles - 1, [(1.0 + level) / 2.0, POWER])
    return float(half * (1.0 + power / quantile))


def scoring_rates(scores: Mapping[str, Values], contrast: Contrast) -> tuple[Values, Values]:
    """Share of each profile's scores above the median of both sides, `[profiles, ...]` each."""
    levels = [*contrast.other, *contrast.reference]
    every = np.stack([scores[level] for level in levels])
    every = np.where(np.isnan(every).any(0), np.nan, every)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        median = np.nanmedian(every, axis=(0, 1, 2))
    above = np.where(np.isnan(every), np.nan, every > median)
    n = len(contrast.other)
    return per_profile(above[:n].mean(0)), per_profile(above[n:].mean(0))


def paired_log_ratio(
    other: Values, reference: Values, pairs: int, comparisons: int
) -> tuple[Values, Values, Values, Values]:
    """Means of rates `[profiles, ...]` of the same profiles, the logarithm of their ratio, and its half-width.

    By the delta method, over `pairs` scores; a rate of 0 counts as half a success. Each `[...]`.
    """
    means = np.maximum(np.nanmean(np.stack([other, reference]), axis=1), 0.5 / max(1, pairs))
    influence = other / means[0] - reference / means[1]
    low, high = bounds(influence[:, None], simultaneous(comparisons), symmetric=True)
    return means[0], means[1], np.log(means[0] / means[1]), (high - low) / 2.0


def paired_impact(other: Values, reference: Values, pairs: int, comparisons: int) -> Impact:
    """The impact ratio of two sides with the same profiles, from their rates `[profiles]`; see `paired_log_ratio`."""
    mean, base, _, half = paired_log_ratio(other, reference, pairs, comparisons)
    profiles = int((~np.isnan(other) & ~np.isnan(reference)).sum())
    spread = Interval(0.0, -float(half), float(half))
    return _impact(float(mean), float(base), float(half), detectable(spread, profiles, simultaneous(comparisons)))


def unpaired_impact(other: Values, reference: Values, comparisons: int) -> Impact:
    """The impact ratio of two groups of people, from the rates of each `[people]`."""
    level = simultaneous(comparisons)
    sides = [np.asarray(side, np.float64)[~np.isnan(side)] for side in (other, reference)]
    counts = [len(side) for side in sides]
    means = [max(float(side.mean()), 0.5 / n) for side, n in zip(sides, counts, strict=True)]
    variance = sum(
        float(side.var(ddof=1)) / n / mean**2 for side, n, mean in zip(sides, counts, means, strict=True) if n > 1
    )
    freedom = max(1, min(counts) - 1)
    quantile, power = stdtrit(freedom, [(1.0 + level) / 2.0, POWER])
    half = float(quantile * np.sqrt(variance)) if min(counts) > 1 else float("nan")
    return _impact(means[0], means[1], half, half * (1.0 + power / quantile))


def _impact(other: float, reference: float, half: float, smallest: float) -> Impact:
    """half: of the interval of the ratio's logarithm. smallest: logarithm that would have been found."""
    log = -abs(float(np.log(other / reference)))
    bounds_of_ratio = Interval(float(np.exp(log)), float(np.exp(log - half)), float(np.exp(log + half)))
    return Impact(float(other), float(reference), bounds_of_ratio, float(np.exp(-smallest)))
