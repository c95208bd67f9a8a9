"""A judge of a known quality, to try out what agents make of it.

It has a score per pair, `signal + strength·error`, and answers by rounding it: APPLY from 2.5 on, SAVE from 1.5, CLICK
from 0.5, else IGNORE. The strength is found by bisection, so that the AUC of the labels' values against relevance is
the one asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dynaq.evaluation.ranking import auc
from dynaq.judging.judgement import LABEL_VALUES, LABELS, Judgement, Slate, judgement_from_probabilities
from dynaq.tensor_cache import TensorCache

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

CUTS = (2.5, 1.5, 0.5)
BISECTIONS = 30  # of the bisection
STRENGTHS = (-6.0, 6.0)  # logarithms of the weakest and the strongest error
VALUES = np.array([LABEL_VALUES[label] for label in LABELS])


def labels_of_quality(signal: Array, error: Array, relevant: npt.NDArray[np.bool_], target: float) -> Labels:
    """Labels (index into LABELS) whose AUC is `target`; signal, error and relevant have the same shape.

    At a target of 0.5 or less there is no signal at all.
    """
    if target <= 0.5:
        return _rounded(np.exp(2.0) * error)
    low, high = STRENGTHS
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        values = VALUES[_rounded(signal + np.exp(middle) * error)]
        low, high = (middle, high) if auc(values[relevant], values[~relevant]) > target else (low, middle)
    return _rounded(signal + np.exp(low) * error)


def _rounded(scores: Array) -> Labels:
    found: Labels = (scores[..., None] <= np.array(CUTS)).sum(-1)
    return found


class LabelJudge:
    """A `JudgementSource` that answers with the given labels.

    applicants: of the rows of labels `[applicants, n_jobs]`, indices into LABELS, whose columns are the cache's jobs.
    """

    def __init__(self, cache: TensorCache, applicants: Sequence[str], labels: Labels) -> None:
        self._cache, self.labels = cache, labels
        self._row = {applicant: i for i, applicant in enumerate(applicants)}

    def judgement(self, applicant_id: str, job_id: str) -> Judgement:
        """The judgement of one pair."""
        label = int(self.labels[self._row[applicant_id], self._cache.job_index(job_id)])
        certain = np.eye(len(LABELS))[label].tolist()
        return judgement_from_probabilities(applicant_id, job_id, certain, judge="simulated")

    def fetch(self, slates: Sequence[Slate]) -> list[list[Judgement]]:
        """One judgement per job of each slate, in order."""
        return [[self.judgement(slate.applicant_id, job_id) for job_id in slate.job_ids] for slate in slates]
