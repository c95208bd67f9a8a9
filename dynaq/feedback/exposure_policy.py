"""Which jobs are shown, with known probabilities: a ranking that explores a little.

Whoever always shows the same list can never tell how another one would have done. So the list that is shown is drawn
around the agent's ranking by a Plackett–Luce model (Plackett 1975) whose weights depend on a job's place in the ranking
alone: the job at place i has weight i^-sharpness, and ranks are filled from the top by drawing among the jobs that
are left in proportion to their weights. `sharpness` 0 is a random order, infinity the ranking itself.

As the weights depend on places and not on scores, the probability of place i to be shown at rank r is one matrix for
all applicants (`rank_probabilities`). It is exact up to quadrature, not estimated from draws: in the exponential race
that is equivalent to the model, each job arrives after an exponential time with its weight as rate, and

    P(i at rank r) = integral over t of w_i·exp(-w_i·t)·P(r - 1 of the others have arrived by t)

Off-policy evaluation needs this marginal (`dynaq.feedback.off_policy`), and
`dynaq.feedback.events.Exposure.propensities` holds it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dynaq.errors import InputError

POOL = 100  # places of the ranking that may be shown; a run folder keeps as many
SHARPNESS = 2.0  # seven of the first ten places are among the ten shown; six lists of ten begin with the first place
SHARPEST = 20.0  # beyond, only infinity makes a difference
STEP = 0.1  # of the quadrature in log time; half of it changes no probability by more than 1e-13

FloatArray = npt.NDArray[np.float64]


def explore(
    ranking: Sequence[str], k: int, rng: np.random.Generator, sharpness: float = SHARPNESS
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Draw the jobs to show, and the probability of each to be shown at its rank.

    ranking: job ids, best first, each once; only the first POOL can be shown.
    k: how many to show; fewer are shown where the pool has fewer.
    sharpness: infinity shows the ranking as it is, with probabilities of 1.
    Raises InputError for a k below 1, or a sharpness that is neither from 0 to SHARPEST nor infinity.
    """
    if k < 1:
        raise InputError(f"{k} jobs cannot be shown; ask for at least 1")
    pool = ranking[:POOL]
    if not pool:
        return (), ()
    probabilities = rank_probabilities(len(pool), sharpness)
    if math.isinf(sharpness):
        places = np.arange(len(pool))[:k]
    else:
        # Arrivals of the race; their logarithm keeps tiny weights apart.
        arrival = np.log(rng.exponential(size=len(pool))) + sharpness * np.log(np.arange(1, len(pool) + 1))
        places = np.argsort(arrival, kind="stable")[:k]
    return tuple(pool[i] for i in places), tuple(probabilities[places, np.arange(len(places))].tolist())


@lru_cache(maxsize=64)
def rank_probabilities(pool: int, sharpness: float = SHARPNESS) -> FloatArray:
    """P(place i of the ranking is shown at rank r), `[pool, pool]`, read-only; made once, 0.2 s for a pool of 100.

    Rows and columns sum to 1. Raises InputError for an empty pool, or another sharpness.
    """
    if pool < 1:
        raise InputError("an empty ranking has no probabilities")
    if not (0.0 <= sharpness <= SHARPEST or sharpness == math.inf):
        raise InputError(f"sharpness {sharpness} is not a number from 0 to {SHARPEST:.0f}, or infinity")
    table = np.eye(pool) if math.isinf(sharpness) else _race(pool, sharpness)
    table.flags.writeable = False
    return table


def _race(pool: int, sharpness: float) -> FloatArray:
    rates = np.arange(1, pool + 1, dtype=np.float64) ** -sharpness
    # In log time the integrand is smooth and dies out at both ends, where the trapezoid rule converges fastest.
    time = np.exp(np.arange(math.log(1e-12 / rates.sum()), math.log(50.0 / rates[-1]), STEP))
    arrived = -np.expm1(-rates[:, None] * time)  # [pool, nodes]
    table = np.zeros((pool, pool))

    def leave_one_out(places: range, count: FloatArray) -> None:
        """count `[pool, nodes]`: P(so many of the jobs outside of `places` have arrived)."""
        if len(places) == 1:
            i = places[0]
            table[i] = count @ (rates[i] * time * np.exp(-rates[i] * time)) * STEP
            return
        left, right = places[: len(places) // 2], places[len(places) // 2 :]
        leave_one_out(left, _counted(count, arrived[right]))
        leave_one_out(right, _counted(count, arrived[left]))

    nobody = np.zeros((pool, len(time)))
    nobody[0] = 1.0
    leave_one_out(range(pool), nobody)
    return table


def _counted(count: FloatArray, arrived: FloatArray) -> FloatArray:
    """The distribution of the number of arrivals with more jobs counted in. arrived `[jobs, nodes]`."""
    count = count.copy()
    for p in arrived:
        count[1:] = count[1:] * (1.0 - p) + count[:-1] * p
        count[0] *= 1.0 - p
    return count
