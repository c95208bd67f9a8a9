from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from dynaq.errors import InputError
from dynaq.feedback.events import FEEDBACK_SCHEMA
from dynaq.sequential.dynamics_model import LearnedDynamics
from dynaq.sequential.logged import learn_from_events
from dynaq.sequential.people import People, PersonConfig, similar_rewards
from tests.support.toy_market import ToyMarket

NAMES = [f"p{i}" for i in range(16)]
START = datetime(2026, 1, 1, tzinfo=UTC)


def told(market: ToyMarket, tires: bool) -> LearnedDynamics:
    """Sixteen people see all jobs of one family after another, in bouts of four on every tenth day.

    Everybody saves each job; who tires ignores the third and fourth of a bout.
    """
    jobs = market.cache.job_ids
    families = np.arange(len(jobs)) // 4
    rows = []
    for person, name in enumerate(market.cache.applicant_ids[:16]):
        for nth, job in enumerate(jobs[:40]):
            at = START + timedelta(days=10 * (nth // 4), minutes=nth + person)
            event = "ignore" if tires and nth % 4 >= 2 else "save"
            rows.append((f"{name}-{job}", name, job, event, at, "page"))
    return learn_from_events(
        pa.Table.from_arrays(
            [
                pa.array(column, field.type)
                for column, field in zip(zip(*rows, strict=True), FEEDBACK_SCHEMA, strict=True)
            ],
            schema=FEEDBACK_SCHEMA,
        ),
        market.cache,
        families,
    )


def test_people_who_ignore_what_they_have_just_seen_are_found_to_tire(market: ToyMarket) -> None:
    assert told(market, tires=True).cost > 0.1
    assert told(market, tires=False).cost == 0.0


def test_near_duplicates_do_not_hide_that_people_tire() -> None:
    """All others of a family together are a job's own reward with its sign changed, which must not explain it."""
    jobs, rng = 48, np.random.default_rng(0)
    families = np.arange(jobs) // 8
    embedding = 1.6 * np.eye(6, 8)[families] + 0.01 * rng.standard_normal((jobs, 8))
    people = People(PersonConfig(satiation=0.4), NAMES, families, similar_rewards(embedding), 0)
    base = np.where(rng.random((len(NAMES), 6)) < 0.5, 0.9, 0.1)[:, families]
    costs = []
    learners = [LearnedDynamics(np.full(base.shape, 0.4), families, embedding, likes_raise=on) for on in (False, True)]
    for _ in range(4):
        for _ in range(5):
            seen = np.array([rng.choice(np.flatnonzero(row)) for row in people.open])
            rewards = people.look(seen, base[np.arange(len(NAMES)), seen])
            for learner in learners:
                learner.look(seen, np.full(len(NAMES), 0.4), rewards)
        gaps = people.end_session()
        for learner in learners:
            learner.rest(gaps)
    for learner in learners:
        learner.fit()
        costs.append(learner.cost)
    assert costs[0] < 0.15 < 0.2 < costs[1] < 0.4  # of 0.4


def test_events_of_nobody_known_are_an_error_for_people(market: ToyMarket) -> None:
    with pytest.raises(InputError, match="nothing to learn from"):
        learn_from_events(FEEDBACK_SCHEMA.empty_table(), market.cache, np.zeros(len(market.cache.job_ids), np.int64))
