"""How people changed, learned from what they did: the service's feedback, in the order in which it came."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa

from dynaq.agent.pair_features import job_embedding
from dynaq.errors import InputError
from dynaq.feedback.answers import EVENT_LABELS, settle
from dynaq.judging.judgement import LABEL_VALUES
from dynaq.sequential.dynamics_model import LearnedDynamics
from dynaq.sequential.people import NO_JOB, Array, Indices
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
    known = set(cache.applicant_ids)
    rows = [
        (applicant, at, cache.job_index(job), LABEL_VALUES[EVENT_LABELS[event]])
        for (applicant, job), (event, at) in settle(events).items()
        if applicant in known and cache.has_job(job)
    ]
    if not rows:
        raise InputError("no event is of an applicant and a job of this store; there is nothing to learn from")
    rows.sort()
    applicants = list(dict.fromkeys(applicant for applicant, *_ in rows))
    own = [[row[1:] for row in rows if row[0] == applicant] for applicant in applicants]
    cosines = np.stack([cache.calculate_cosine_similarities(name) for name in applicants]).astype(np.float64)
    learned = LearnedDynamics(_expected(cosines, own), families, job_embedding(cache).double().numpy())
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


def _expected(cosines: Array, own: list[list[tuple[datetime, int, float]]]) -> Array:
    """`[people, n_jobs]`, by least squares over the events; their mean where all cosines are alike."""
    at = np.array([cosines[person, job] for person, done in enumerate(own) for _, job, _ in done])
    rewards = np.array([reward for done in own for *_, reward in done])
    spread = float(at.var())
    slope = float(((at - at.mean()) * (rewards - rewards.mean())).mean()) / spread if spread > 0.0 else 0.0
    expected: Array = rewards.mean() + slope * (cosines - at.mean())
    return expected
