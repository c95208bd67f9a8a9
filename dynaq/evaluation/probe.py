"""Whether a judge can tell jobs apart at all, found out with a few pairs before many are paid for.

An agent learns from differences between answers. A judge that gives nearly every pair the same answer teaches nothing,
however many pairs are bought: a model too small for its method, or thresholds fitted for other postings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dynaq.judging.judgement import Judgement, Slate
from dynaq.tensor_cache import TensorCache

PROBE_PAIRS = 64
PROBE_APPLICANTS = 8
LEAST_PAIRS = 8  # answers from which on a verdict is given
BLIND_SHARE = 0.95
# Where an applicant's strata of jobs begin, as shares of the catalogue ordered by falling cosine. They are narrow at
# the top, where a judge that sees anything must answer otherwise than at the bottom.
STRATA = (0.0, 0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85)
# Share of all pairs that may earn more than IGNORE before thresholds count as fitted for other postings. Thresholds
# are fitted such that 30 % do; the probe's error is about 0.08.
PLAUSIBLE = (0.08, 0.65)


def probe_slates(cache: TensorCache, cohort: Sequence[str], *, seed: int = 0) -> list[Slate]:
    """Up to PROBE_PAIRS pairs of up to PROBE_APPLICANTS applicants: for each the nearest job, and one of each stratum.

    The same store, cohort and seed give the same pairs. A small cohort or catalogue gives fewer.
    """
    rng = np.random.default_rng(seed)
    chosen = sorted(rng.permutation(len(cohort))[:PROBE_APPLICANTS])
    slates = []
    for applicant_id in (cohort[i] for i in chosen):
        order = np.argsort(-cache.calculate_cosine_similarities(applicant_id), kind="stable")
        edges = np.unique([*(round(share * len(order)) for share in STRATA), len(order)])
        places = [0, *(int(rng.integers(low, high)) for low, high in pairwise(edges[1:]))]
        slates.append(Slate(applicant_id, tuple(cache.job_ids[order[place]] for place in places)))
    return slates


@dataclass(frozen=True)
class Finding:
    """What the probe's answers show.

    Args:
        asked, answered: pairs, with and without abstentions.
        label: the most frequent answer; "" without any.
        share: its share of the answers.
        above_ignore: estimated probability of more than IGNORE over all pairs of cohort and catalogue.
        note: the most frequent remark of an abstention.
    """

    asked: int
    answered: int
    label: str
    share: float
    above_ignore: float
    note: str = ""

    @property
    def enough(self) -> bool:
        """Whether there are enough pairs for a verdict."""
        return self.asked >= LEAST_PAIRS

    @property
    def blind(self) -> bool:
        """Whether the judge gives (nearly) all pairs one answer, or none."""
        return self.enough and (self.answered < LEAST_PAIRS / 2 or self.share >= BLIND_SHARE)

    @property
    def implausible(self) -> bool:
        """Whether far more or fewer pairs earn more than IGNORE than thresholds are fitted for."""
        return self.enough and not PLAUSIBLE[0] <= self.above_ignore <= PLAUSIBLE[1]

    def __str__(self) -> str:
        if self.answered < LEAST_PAIRS / 2:
            return f"answers {self.answered} of {self.asked} pairs" + (f" ({self.note})" if self.note else "")
        return f"answers {self.label} to {round(self.share * self.answered)} of {self.answered} pairs"


def examine(answers: Sequence[Sequence[Judgement]]) -> Finding:
    """What the answers to `probe_slates`, in their order, show."""
    every = [answer for slate in answers for answer in slate]
    known = [answer for answer in every if not answer.abstained]
    [(label, count)] = Counter(str(answer.label) for answer in known).most_common(1) or [("", 0)]
    notes = Counter(answer.note for answer in every if answer.abstained).most_common(1)
    widths = np.diff([*STRATA, 1.0])
    total = weight = 0.0
    for slate in answers:
        # The catalogue may be too small for all strata; then each of the slate's pairs counts alike.
        each = widths if len(slate) == len(widths) else np.ones(len(slate))
        for width, answer in zip(each / each.sum(), slate, strict=True):
            if not answer.abstained:
                total, weight = total + width * (1 - answer.p_ignore), weight + width
    return Finding(
        len(every),
        len(known),
        label,
        count / len(known) if known else 0.0,
        float(total / weight) if weight else float("nan"),
        notes[0][0] if notes else "",
    )
