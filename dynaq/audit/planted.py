"""A self-test of the audit: judges of known bias, whose answers are drawn, and whether the audit finds it.

A reward is `quality of the pair + noise of the answer + bias`, cut to the range of rewards. A pair has the same quality
under all levels; the noise is drawn anew for each level, as a language model's answer changes with any word. The
bias lies on the side `other` of one contrast, whose lower rewards are the disadvantage. Hundreds of audits are measured
at once, by the same functions as real ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dynaq.audit.attributes import ATTRIBUTES, CONTRASTS, Contrast
from dynaq.audit.differences import differences, found_differences, paired_log_ratio, scoring_rates
from dynaq.audit.limits import FOUR_FIFTHS
from dynaq.evaluation.intervals import Values
from dynaq.judging.judgement import LABEL_VALUES

BIAS = -0.1  # of the planted judge, in units of reward: a tenth of the way from CLICK to APPLY
QUALITY_DEVIATION, NOISE_DEVIATION = 0.25, 0.1
AUDITS = 200


@dataclass(frozen=True)
class SelfTest:
    """What came of planted audits.

    Args:
        audits: unbiased ones, and as many biased ones.
        profiles, jobs: of each.
        bias: that was planted, in units of reward.
        noise: standard deviation of an answer.
        power: share of the biased audits in which the biased contrast was found, on the right side.
        false_alarms: share of the unbiased audits that would have failed, by any contrast or impact ratio.
    """

    audits: int
    profiles: int
    jobs: int
    bias: float
    noise: float
    power: float
    false_alarms: float

    def to_json(self) -> dict[str, Any]:
        """As the audit's record has it."""
        return asdict(self)


def simulated_scores(
    rng: np.random.Generator, profiles: int, jobs: int, audits: int, contrast: Contrast, bias: float, noise: float
) -> dict[str, Values]:
    """Level -> rewards `[profiles, jobs, audits]` of audits whose judge has this bias against `contrast.other`.

    Levels are named as in the packaged attributes; those of the contrast's attribute only have the bias.
    """
    quality = rng.normal(0.35, QUALITY_DEVIATION, (profiles, jobs, audits))
    low, high = min(LABEL_VALUES.values()), max(LABEL_VALUES.values())
    scores = {}
    for attribute in ATTRIBUTES:
        for level in attribute.levels:
            biased = attribute.name == contrast.attribute and level in contrast.other
            answer = quality + rng.normal(0.0, noise, quality.shape) + (bias if biased else 0.0)
            scores[f"{attribute.name}/{level}"] = np.clip(answer, low, high)
    return scores


def scores_of(contrast: Contrast, scores: Mapping[str, Values]) -> dict[str, Values]:
    """The scores of a contrast's own levels, by level."""
    return {level: scores[f"{contrast.attribute}/{level}"] for level in (*contrast.other, *contrast.reference)}


def alarms(scores: Mapping[str, Values], contrasts: Sequence[Contrast]) -> tuple[Values, Values]:
    """Which contrasts make an audit fail, and the mean differences: `[contrasts, audits]` each.

    scores: `[profiles, jobs, audits]` by attribute and level.
    """
    comparisons = 2 * len(contrasts)
    values = np.concatenate([differences(scores_of(one, scores), [one]) for one in contrasts], axis=1)
    found = found_differences(values, comparisons)
    pairs = int(np.prod(next(iter(scores.values())).shape[:2]))
    ratios = [paired_log_ratio(*scoring_rates(scores_of(one, scores), one), pairs, comparisons) for one in contrasts]
    adverse = np.stack([(np.abs(log) > half) & (-np.abs(log) < np.log(FOUR_FIFTHS)) for _, _, log, half in ratios])
    return (found | adverse).astype(np.float64), values.mean(0)


def self_test(
    profiles: int,
    jobs: int,
    *,
    bias: float = BIAS,
    noise: float = NOISE_DEVIATION,
    audits: int = AUDITS,
    seed: int = 0,
) -> SelfTest:
    """Audit `audits` judges with the bias, and as many without."""
    contrasts = [contrast for contrast in CONTRASTS if contrast.decides]
    rng = np.random.default_rng(seed)
    biased, means = alarms(simulated_scores(rng, profiles, jobs, audits, contrasts[0], bias, noise), contrasts)
    fair, _ = alarms(simulated_scores(rng, profiles, jobs, audits, contrasts[0], 0.0, noise), contrasts)
    right = (biased[0] > 0) & (np.sign(means[0]) == np.sign(bias))
    return SelfTest(audits, profiles, jobs, bias, noise, float(right.mean()), float(fair.any(0).mean()))
