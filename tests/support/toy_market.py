"""A small synthetic market: jobs and applicants near topics in embedding space, relevance graded by topic.

An applicant looks most like jobs of one topic (relevance 1) and wants those of the next (relevance 3), so that the
cosine alone ranks badly and what the judge says has to be learned.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynaq.agent.config import DynaQConfig
from dynaq.agent.dyna_q import DynaQBlock
from dynaq.agent.reward_strategy import make_strategy
from dynaq.errors import JudgeError
from dynaq.judging.judgement import Judgement, Slate, abstention, judgement_from_probabilities
from dynaq.layout import BLOCK_DIM, EXTENDED
from dynaq.records import Candidate, Job
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache

TOPICS = 6
GRADE_LABELS = {3: (1.0, 0.0, 0.0, 0.0), 2: (0.0, 1.0, 0.0, 0.0), 1: (0.0, 0.0, 1.0, 0.0), 0: (0.0, 0.0, 0.0, 1.0)}
# Every third applicant's judge is silent on every fourth job, so that agents advance unevenly.
ABSTAINED = {(f"ann{i:02d}", f"job{j:03d}") for i in range(0, 16, 3) for j in range(i % 4, 60, 4)}


@dataclass(frozen=True)
class ToyMarket:
    """cache: over a real store; grades: applicant → job → 0 to 3; store: where the records are."""

    cache: TensorCache
    grades: Mapping[str, Mapping[str, float]]
    store: Path


def toy_market(
    folder: Path, jobs: int = 60, applicants: int = 16, seed: int = 0, dimension: int = BLOCK_DIM
) -> ToyMarket:
    """Write a store into `folder` and load it."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((TOPICS, dimension)) / dimension**0.5
    job_ids = [f"job{i:03d}" for i in range(jobs)]
    applicant_ids = [f"ann{i:02d}" for i in range(applicants)]
    job_topic = rng.integers(0, TOPICS, jobs)
    looks_like = rng.integers(0, TOPICS, applicants)
    wants = (looks_like + 1) % TOPICS

    def near(centres: np.ndarray) -> np.ndarray:
        return (centres + 0.8 * rng.standard_normal(centres.shape) / dimension**0.5).astype(np.float32)

    store = open_store(folder, create=True)
    store.put_meta(layout="extended", dimension=dimension)
    store.put_records("job", (Job(id=id_, title=f"Job {id_}") for id_ in job_ids))
    store.put_records("candidate", (Candidate(id=id_, bio=f"I am {id_}") for id_ in applicant_ids))
    store.put_vectors("job", job_ids, {b: near(topics[job_topic]) for b in EXTENDED.action}, [f"h{i}" for i in job_ids])
    mixed = 0.7 * topics[looks_like] + 0.3 * topics[wants]
    store.put_vectors(
        "candidate", applicant_ids, {b: near(mixed) for b in EXTENDED.state}, [f"h{i}" for i in applicant_ids]
    )
    grades = {
        applicant_id: {
            id_: 3.0 if topic == wants[i] else 1.0 if topic == looks_like[i] else 0.0
            for id_, topic in zip(job_ids, job_topic, strict=True)
        }
        for i, applicant_id in enumerate(applicant_ids)
    }
    cache = TensorCache.copy_from_database(store)
    store.close()
    return ToyMarket(cache, grades, folder)


def grade_judgement(applicant_id: str, job_id: str, grade: float) -> Judgement:
    """Relevance 3, 2, 1, 0 is APPLY, SAVE, CLICK, IGNORE."""
    return judgement_from_probabilities(applicant_id, job_id, GRADE_LABELS[int(grade)], judge="toy")


class GradeSource:
    """A JudgementSource that answers from the grades and remembers what it was asked.

    Args:
        abstains: pairs on which it abstains.
        fails: whether the call with this number (from 1) raises JudgeError.
        answer: replaces the answer on one pair.
    """

    def __init__(
        self,
        grades: Mapping[str, Mapping[str, float]],
        abstains: Collection[tuple[str, str]] = (),
        fails: Callable[[int], bool] = lambda call: False,
        answer: Callable[[str, str, float], Judgement] = grade_judgement,
    ) -> None:
        self._grades, self._abstains, self._fails, self._answer = grades, abstains, fails, answer
        self.calls = 0
        self.asked: list[tuple[str, str]] = []

    def fetch(self, slates: Sequence[Slate]) -> list[list[Judgement]]:
        self.calls += 1
        if self._fails(self.calls):
            raise JudgeError("the judge is away")
        self.asked += [(slate.applicant_id, job_id) for slate in slates for job_id in slate.job_ids]
        return [[self._judge(slate.applicant_id, job_id) for job_id in slate.job_ids] for slate in slates]

    def _judge(self, applicant_id: str, job_id: str) -> Judgement:
        if (applicant_id, job_id) in self._abstains:
            return abstention(applicant_id, job_id, judge="toy", note="no answer")
        return self._answer(applicant_id, job_id, self._grades[applicant_id][job_id])

    def asked_of(self, applicant_id: str) -> list[str]:
        return [job_id for asked, job_id in self.asked if asked == applicant_id]


SMALL = {
    "world_model": "bayes",
    "weighting": "annealed",
    "budget": 20,
    "slate_size": 5,
    "warm_start_updates": 20,
    "q_hidden": (16, 8),
    "model_hidden": (16, 8),
}


def small_config(**values: object) -> DynaQConfig:
    """Widths and budgets for tests; `preset` works as in YAML."""
    own = {"world_model": "mlp"} if values.get("preset") == "reference" else {}
    return DynaQConfig.load(None, SMALL | own | values)


def block_of(market: ToyMarket, applicants: int = 16, strategy: str = "llm", **values: Any) -> DynaQBlock:
    """A block of the first applicants; `values` as for `small_config`."""
    config = small_config(**values)
    return DynaQBlock(market.cache, market.cache.applicant_ids[:applicants], make_strategy(strategy, config), config)
