"""Judges of a known quality: what they say of every pair is made from the relevance and one kind of error.

`dynaq.evaluation.simulated` says how the errors become answers. Each kind of error is a score of its own, with mean 0
and deviation 1:

    random    a standard normal number for each pair: errors that nobody can foresee
    family    a liking for the jobs that are nearest to one random job (a tenth of the catalogue)
    length    the logarithm of the description's length
    echo      no error: the cosine stands in the grade's place, and the judge has no opinion of its own
    popular   a liking for a random tenth of the catalogue, the same for everybody
    title     words that the job's title has in common with the applicant's titles and skills
    keywords  the share of the job's skills that the applicant's profile names, word for word

All kinds err at random as well, the systematic ones half as strongly as systematically. The AUC asked for is that over
all pairs of the cohort; at 0.5 there is no signal at all. The cosine of an echo is standardised per applicant and
shifted, so that it is above 0.5 for three times as many pairs as are relevant; an echo is no better than that, and
`reached` says what came out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynaq.agent.pair_features import job_embedding
from dynaq.evaluation.ranking import auc
from dynaq.evaluation.simulated import CUTS, VALUES, LabelJudge, labels_of_quality
from dynaq.qrels import Qrels
from dynaq.tensor_cache import TensorCache

Array = npt.NDArray[np.float64]

KINDS = ("random", "family", "length", "echo", "popular", "title", "keywords")
GROUP = 0.1  # of the catalogue: a family, or what is pushed
ALSO_RANDOM = 0.5
# Without noise, an echo answers IGNORE to all but its top pairs, of which there are ECHO_SHARE times as many as
# relevant ones.
ECHO_SHARE = 3.0


@dataclass(frozen=True)
class CohortPairs:
    """All pairs of some applicants: grades and cosines (standardised per applicant) `[applicants, n_jobs]`."""

    applicants: tuple[str, ...]
    grades: Array
    cosines: Array
    family: Array
    length: Array
    titles: Array
    keywords: Array

    @classmethod
    def of(cls, cache: TensorCache, qrels: Qrels, applicants: Sequence[str], seed: int) -> CohortPairs:
        grades = np.zeros((len(applicants), len(cache.job_ids)))
        for i, applicant in enumerate(applicants):
            for job_id, grade in qrels.grades(applicant).items():
                grades[i, cache.job_index(job_id)] = grade
        cosines = np.stack([cache.calculate_cosine_similarities(a) for a in applicants]).astype(np.float64)
        cosines = (cosines - cosines.mean(1, keepdims=True)) / cosines.std(1, keepdims=True)
        embedding = job_embedding(cache).double().numpy()
        centre = embedding[np.random.default_rng([seed, 7]).integers(len(embedding))]
        distance = np.square(embedding - centre).sum(1)
        family = (distance <= np.quantile(distance, GROUP)).astype(np.float64)
        texts = [cache.job_text(j) for j in range(len(cache.job_ids))]
        lengths = np.log1p([len(job.description) for job in texts])
        words = [_words(job.title) for job in texts]
        asked = [[skill.lower() for skill in (*job.technical_skills, *job.soft_skills)] for job in texts]
        titles, keywords = np.zeros(grades.shape), np.zeros(grades.shape)
        for i, applicant in enumerate(applicants):
            own = cache.applicant_text(cache.applicant_index(applicant))
            known = _words(" ".join([*(e.title for e in own.experience), *own.hard_skills]))
            titles[i] = [len(known & title) / max(1, len(title)) for title in words]
            says = " ".join([own.bio, *(e.title for e in own.experience), *own.hard_skills]).lower()
            keywords[i] = [sum(skill in says for skill in skills) / max(1, len(skills)) for skills in asked]
        return cls(tuple(applicants), grades, cosines, family, lengths, titles, keywords)


def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in re.findall(r"[a-z]+", text.lower()) if len(word) > 3)


def _standard(x: Array) -> Array:
    """Mean 0, deviation 1."""
    scaled: Array = (x - x.mean()) / x.std()
    return scaled


class SimulatedJudge(LabelJudge):
    """Of one kind and AUC. `labels` `[applicants, n_jobs]`: index into LABELS of every answer."""

    def __init__(self, cache: TensorCache, pairs: CohortPairs, kind: str, target: float, seed: int) -> None:
        self._relevant = pairs.grades > 0
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        noise = rng.standard_normal(pairs.grades.shape)
        pushed = (rng.random(pairs.grades.shape[1]) < GROUP).astype(np.float64)
        tastes = {"family": pairs.family, "length": pairs.length, "popular": pushed}
        tastes |= {"title": pairs.titles, "keywords": pairs.keywords}
        error = _standard(tastes[kind]) + ALSO_RANDOM * noise if kind in tastes else noise
        signal = pairs.grades
        if kind == "echo":
            signal = pairs.cosines - np.quantile(pairs.cosines, 1.0 - ECHO_SHARE * self._relevant.mean()) + CUTS[-1]
        super().__init__(cache, pairs.applicants, labels_of_quality(signal, error, self._relevant, target))
        self.rewards = VALUES[self.labels]
        self.reached = auc(self.rewards[self._relevant], self.rewards[~self._relevant])

    def table(self) -> Array:
        """The true P(answer | does not fit), P(answer | fits) over all pairs, `[2, 4]`."""
        answers = np.eye(4)[self.labels]
        return np.stack([answers[~self._relevant].mean(0), answers[self._relevant].mean(0)])
