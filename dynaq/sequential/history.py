"""One person's history at work: what their own events did to the worth of jobs, by the dynamics that a block shows.

The recursions are those of `dynaq.sequential.people`, for one person and a few jobs only, so that the size of the
catalogue does not matter:

    worth(j)    = keep·reward(j) + drift(j) - λ·satiation(family of j)
    satiation   = Σ recovery^days over the person's events on the family
    keep, drift: after every event of reward r > 0 on a job i, with e = drift·r
                  keep ← (1 - e)·keep,  drift(j) ← (1 - e)·drift(j) + e·similar(i, j)

Worths order jobs, and are no rewards: the floor below which a reward does not fall is left out, since it would only
make ties at the end of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynaq.sequential.people import FAMILY_DISTANCE, Array, rewards_at, squared_distances


@dataclass(frozen=True)
class Change:
    """How a block of people changes, as far as their events show it.

    Args:
        cost: λ, what one more recent job of the same family costs in reward; 0 is no evidence of satiation.
        recovery: share of the satiation that is left a day later.
        drift: share of the way that interest moves toward a job that was applied to; 0 is no evidence of drift.
        reward_per_cosine: slope of the line through all events' rewards by their cosines, not below 0.
        far: squared distance of two jobs that have nothing to do with each other.
    """

    cost: float = 0.0
    recovery: float = 1.0
    drift: float = 0.0
    reward_per_cosine: float = 0.0
    far: float = 1.0

    @property
    def shown(self) -> bool:
        """Whether the events show any change; without, nothing is to be remembered."""
        return self.cost > 0.0 or self.drift > 0.0


@dataclass(frozen=True)
class Seen:
    """A job on which a person acted: its reward, and how many days ago that was, 0 for what is still to come."""

    reward: float
    days: float


def remembered(
    change: Change,
    rewards: npt.NDArray[np.floating],
    embedding: npt.NDArray[np.floating],
    seen: Sequence[Seen],
    seen_embedding: npt.NDArray[np.floating],
) -> Array:
    """What jobs are worth to a person after what they have seen, `[n]`.

    Args:
        change: of the block.
        rewards: `[n]`, expected of these jobs without the history, up to a common number.
        embedding: `[n, d]`, of these jobs, as `dynaq.agent.pair_features.job_embedding` makes it.
        seen: the person's events, the oldest first.
        seen_embedding: `[len(seen), d]`, of the jobs of these events.
    """
    worth = np.array(rewards, np.float64)
    squared = squared_distances(seen_embedding, embedding)
    if change.drift > 0.0:
        keep, drift = 1.0, np.zeros(len(worth))
        for event, near in zip(seen, rewards_at(squared, change.far), strict=True):
            moved = change.drift * max(event.reward, 0.0)
            keep *= 1.0 - moved
            drift += moved * (near - drift)
        worth = keep * worth + drift
    if change.cost > 0.0:
        alike = squared_distances(seen_embedding) <= FAMILY_DISTANCE**2
        leaders: list[int] = []  # as in `families_of`, which would copy all of them for every job
        for job, near_to in enumerate(alike):
            if not near_to[leaders].any():
                leaders.append(job)
        fresh = change.recovery ** np.array([event.days for event in seen])
        satiation = np.bincount(alike[:, leaders].argmax(1), fresh)
        within = squared[leaders] <= FAMILY_DISTANCE**2  # [families, n]
        worth -= change.cost * np.where(within.any(0), satiation[within.argmax(0)], 0.0)
    return worth
