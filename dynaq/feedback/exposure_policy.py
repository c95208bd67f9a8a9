"""Which jobs are shown: a list drawn around the agent's ranking, with known probabilities.

A service that always shows the same list cannot learn how another list would have done. So the shown list is drawn from
a Plackett–Luce model (Plackett 1975) whose weights depend only on a job's place in the agent's ranking: the job at
place i has weight i^-sharpness, and ranks are filled from the top by drawing among the remaining jobs in proportion to
their weights. `sharpness` 0 gives a random order, infinity the ranking itself.

Because the weights depend on places and not on scores, the probability that place i is shown at rank r is one matrix
for all applicants (`rank_probabilities`). It is exact up to quadrature, not estimated from draws: in the equivalent
exponential race, each job arrives after an exponential time with its weight as the rate, and

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
SHARPNESS = 2.0  # about seven of the top ten are among ten shown jobs, and 60 % of lists begin with the top job
SHARPEST = 20.0  # the largest finite sharpness; larger values are practically infinity
STEP = 0.1  # of the quadrature in log time; halving it changes no probability by more than 1e-13

FloatArray = npt.NDArray[np.float64]


def explore(
    ranking: Sequence[str], k: int, rng: np.random.Generator, sharpness: float = SHARPNESS
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Draw the jobs to show. Returns them with the probability of each to be shown at its rank.

    ranking: distinct job ids, best first; only the first POOL can be shown.
    k: number of jobs to show, or all of the pool if it has fewer.
    sharpness: infinity shows the ranking unchanged, with probabilities of 1.
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
        # Arrival times of the race, as logarithms so that tiny weights stay distinguishable.
        arrival = np.log(rng.exponential(size=len(pool))) + sharpness * np.log(np.arange(1, len(pool) + 1))
        places = np.argsort(arrival, kind="stable")[:k]
    return tuple(pool[i] for i in places), tuple(probabilities[places, np.arange(len(places))].tolist())


@lru_cache(maxsize=64)
def rank_probabilities(pool: int, sharpness: float = SHARPNESS) -> FloatArray:
    """P(place i of the ranking is shown at rank r), `[pool, pool]`, read-only and cached; 0.2 s for a pool of 100.

    Rows and columns sum to 1. Raises InputError for an empty pool or an invalid sharpness.
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
        """count `[pool, nodes]`: the distribution of the number of jobs outside `places` that have arrived."""
        if len(places) == 1:
            i = places[0]
            table[i] = count @ (rates[i] * time * np.exp(-rates[i] * time)) * STEP
            return
        left, right = places[: len(places) // 2], places[len(places) // 2 :]
        leave_one_out(left, _counted(count, arrived[right]))
        leave_one_out(right, _counted(count, arrived[left]))

    none_arrived = np.zeros((pool, len(time)))
    none_arrived[0] = 1.0
    leave_one_out(range(pool), none_arrived)
    return table


def _counted(count: FloatArray, arrived: FloatArray) -> FloatArray:
    """The distribution `count` of the number of arrivals after adding more jobs. arrived `[jobs, nodes]`."""
    count = count.copy()
    for p in arrived:
        count[1:] = count[1:] * (1.0 - p) + count[:-1] * p
        count[0] *= 1.0 - p
    return count
