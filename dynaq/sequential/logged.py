"""How people changed, learned from what they did: the service's feedback, in the order in which it came."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from dynaq.agent.pair_features import job_embedding
from dynaq.errors import InputError
from dynaq.feedback.answers import EVENT_LABELS, settle
from dynaq.judging.judgement import LABEL_VALUES
from dynaq.sequential.dynamics_model import LearnedDynamics
from dynaq.sequential.history import Change
from dynaq.sequential.people import (
    NO_JOB,
    Array,
    Indices,
    families_of,
    median_squared,
    squared_distances,
)
from dynaq.tensor_cache import TensorCache

SECONDS_PER_DAY = 86_400.0


def learn_from_events(events: pa.Table, cache: TensorCache, families: Indices) -> LearnedDynamics:
    """What the events say of satiation and drift; nothing of closing dates, which they do not hold.

    The expected reward of a pair is a line through all events by their cosines. Of each pair the event that stands
    counts, at its time. Events of applicants and jobs that the cache lacks are ignored.

    Args:
        events: with the columns of `dynaq.feedback.events.FEEDBACK_SCHEMA`, as a store has them.
        cache: catalogue and cohort.
        families: `[n_jobs]`, see `dynaq.sequential.people.families_of`.

    Raises InputError when no event is left.
    """
    return _learn(_Told.of(events, cache), families, job_embedding(cache).double().numpy())


def change_in(events: pa.Table, cache: TensorCache) -> Change:
    """What `learn_from_events` finds in the same events, for `dynaq.sequential.history.remembered`.

    Families are those of `families_of`. The tables that this takes grow with the square of the cache's jobs; give it a
    cache of the jobs that the events are about. Raises InputError when no event is left.
    """
    told, embedding = _Told.of(events, cache), job_embedding(cache).double().numpy()
    learned = _learn(told, families_of(embedding), embedding)
    now = learned.dynamics()
    return Change(
        cost=learned.cost,
        recovery=now.recovery,
        drift=float(now.drifts[0]),
        reward_per_cosine=max(told.slope, 0.0),
        far=median_squared(squared_distances(embedding)),
    )


@dataclass(frozen=True)
class _Told:
    """Events by person, and the line through all of them by their cosines.

    own: of each person (time, job, reward) by time. cosines: `[people, n_jobs]`. mean, centre: of rewards and cosines.
    slope: reward per cosine.
    """

    own: list[list[tuple[datetime, int, float]]]
    cosines: Array
    mean: float
    centre: float
    slope: float

    @classmethod
    def of(cls, events: pa.Table, cache: TensorCache) -> _Told:
        known = set(cache.applicant_ids)
        rows = [
            (applicant, at, cache.job_index(job), LABEL_VALUES[EVENT_LABELS[event]])
            for (applicant, job), (event, at) in settle(events).items()
            if applicant in known and cache.has_job(job)
        ]
        if not rows:
            raise InputError("no event is of an applicant and a job of this store; there is nothing to learn from")
        by_person: dict[str, list[tuple[datetime, int, float]]] = {}
        for applicant, at, job, reward in sorted(rows):
            by_person.setdefault(applicant, []).append((at, job, reward))
        own = list(by_person.values())
        cosines = np.stack([cache.calculate_cosine_similarities(name) for name in by_person]).astype(np.float64)
        x = np.array([cosines[person, job] for person, done in enumerate(own) for _, job, _ in done])
        y = np.array([reward for done in own for *_, reward in done])
        spread = float(x.var())
        slope = float(((x - x.mean()) * (y - y.mean())).mean()) / spread if spread > 0.0 else 0.0
        return cls(own, cosines, float(y.mean()), float(x.mean()), slope)

    @property
    def expected(self) -> Array:
        """`[people, n_jobs]`, by least squares over the events; their mean where all cosines are alike."""
        expected: Array = self.mean + self.slope * (self.cosines - self.centre)
        return expected


def _learn(told: _Told, families: Indices, embedding: Array) -> LearnedDynamics:
    own, learned = told.own, LearnedDynamics(told.expected, families, embedding, likes_raise=True)
    prior, people = learned.prior, np.arange(len(own))
    for nth in range(max(map(len, own))):
        jobs, rewards, gaps = np.full(len(own), NO_JOB), np.full(len(own), np.nan), np.zeros(len(own))
        for person, done in enumerate(own):
            if nth < len(done):
                at, jobs[person], rewards[person] = done[nth]
                gaps[person] = (at - done[max(nth - 1, 0)][0]).total_seconds() / SECONDS_PER_DAY
        learned.rest(gaps)
        learned.look(jobs, prior[people, jobs], rewards)
    learned.fit()
    return learned
