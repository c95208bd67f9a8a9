from __future__ import annotations

import numpy as np
import pytest

from dynaq.sequential.dynamics_model import DRIFTS, RECOVERIES, LearnedDynamics
from dynaq.sequential.history import Change, Seen, remembered
from dynaq.sequential.people import families_of, median_squared, squared_distances

RNG = np.random.default_rng(0)
KINDS = np.repeat(np.eye(4, 6), 3, axis=0)
EMBEDDING = KINDS + 0.05 * RNG.standard_normal(KINDS.shape)  # four families of three jobs
BASE = RNG.uniform(0.0, 1.0, len(EMBEDDING))
EVENTS = ((0, 1.0, 9.0), (4, -0.1, 9.0), (1, 0.5, 3.0), (2, 1.0, 0.0))  # job, reward, days ago


def by_history(change: Change) -> np.ndarray:
    rows = [job for job, *_ in EVENTS]
    seen = [Seen(reward, days) for _, reward, days in EVENTS]
    return remembered(change, BASE, EMBEDDING, seen, EMBEDDING[rows])


def by_learner(change: Change) -> np.ndarray:
    """The same events through the recursions with which the dynamics were learned."""
    families = families_of(EMBEDDING)
    learned = LearnedDynamics(BASE[None], families, EMBEDDING)
    before = EVENTS[0][2]
    for job, reward, days in EVENTS:
        learned.rest(np.array([before - days]))
        learned.look(np.array([job]), BASE[[job]], np.array([reward]))
        before = days
    learned.rest(np.array([before]))
    learned.cost, learned.recovery = change.cost, RECOVERIES.index(change.recovery)
    learned.drifting = DRIFTS.index(change.drift)
    now = learned.dynamics()
    worth: np.ndarray = now.keep[0] * BASE + now.drift[0] - now.satiates[0] * now.satiation[0, families]
    return worth


@pytest.mark.parametrize(("cost", "drift"), [(0.4, 0.0), (0.0, 0.15), (0.4, 0.15)])
def test_one_persons_history_counts_as_in_what_was_learned_from_everybody(cost: float, drift: float) -> None:
    change = Change(cost, 0.7, drift, 1.0, median_squared(squared_distances(EMBEDDING)))
    assert np.abs(by_history(change) - BASE).max() > 0.05
    np.testing.assert_allclose(by_history(change), by_learner(change), atol=1e-6)


def test_without_evidence_of_change_nothing_is_remembered() -> None:
    assert not Change().shown
    np.testing.assert_array_equal(by_history(Change()), BASE)
