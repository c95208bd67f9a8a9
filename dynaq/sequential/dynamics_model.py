"""What agents learn of how people change: the transition model M(s, a) → (r, s').

The state's history is encoded by exponentially decayed means: how often each family was seen, with several rates of
decay, and what jobs were liked, weighted into an interest over the catalogue, with several rates of drift. Given an
action these recursions give the next state; what has to be learned is which rates hold, what a family's recent jobs
cost, and how fast its postings close. For each pair of rates the cost λ is a generalised least-squares fit of

    reward - drift = intercept + slope·keep·prior - λ·satiation + g + error

    prior: what the reward model expected before the first answer
    g:     a mixed model of what each person likes: an effect of each family, a Gaussian process over jobs, and a slope
           on how similar the job is to all others that the person liked, before or later

over all events of the block. Without g, what an answer says of similar jobs would be mistaken for a change of the
person. Satiation counts only for jobs of which something was expected when they were shown, because a reward at the
floor falls no further; such a job's reward at the floor says only that it was no higher, and is imputed (Tobin 1958, by
a few steps of expectation-maximisation). The pair of rates of the least error is believed, if it explains more than no
change does by the Bayesian information criterion.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

from dynaq.sequential.people import FLOOR, NO_JOB, Array, Dynamics, Indices, Mask, similar_rewards, squared_distances

RECOVERIES = (0.3, 0.5, 0.7, 0.85, 0.95)  # per day
DRIFTS = (0.0, 0.03, 0.06, 0.1, 0.15, 0.25)  # the first: no drift
FLOORED_STEPS = 3
PROMISING = 0.2  # expected reward from which on satiation can be seen
FAMILY_VARIANCE, TASTE_VARIANCE, TASTE_LENGTH = 1.0, 0.3, 1.0  # of g: a family's effect, and by the jobs' distance
ANSWER_VARIANCE = 0.005
EXPOSURE_DAYS = 60.0  # days at the mean rate that a family's closing rate starts with
LEAST_EVENTS = 20  # before any change is believed


class LearnedDynamics:
    """Learned from what a block of people did, over jobs of `families` `[n_jobs]`.

    prior: `[people, n_jobs]`, rewards expected before the first answer. embedding: `[n_jobs, d]`. likes_raise: whether
    the slope on what a person liked otherwise is left out where it is negative: in a family of near-duplicates, all
    others' rewards together are a job's own with the sign changed, and would explain everything.
    """

    def __init__(self, prior: Array, families: Indices, embedding: Array, *, likes_raise: bool = False) -> None:
        self._families, self.prior, self._likes_raise = families, prior, likes_raise
        self.similar = similar_rewards(embedding)
        near = np.exp(squared_distances(embedding) / (-2.0 * TASTE_LENGTH**2))
        self._covariance = TASTE_VARIANCE * near + FAMILY_VARIANCE * (families[:, None] == families)
        people, n_families = len(prior), int(families.max()) + 1
        self._satiation = np.zeros((len(RECOVERIES), people, n_families))
        self._keep = np.ones((len(DRIFTS), people))
        self._drift = np.zeros((len(DRIFTS), people, len(families)))
        self._rows: list[Array] = []  # expected, reward, satiation by rate, keep by rate, drift by rate
        self._who: list[Indices] = []
        self._jobs: list[Indices] = []
        self._closed, self._exposed = np.zeros(n_families), np.zeros(n_families)
        self._days: list[float] = []
        self.recovery, self.drifting, self.cost = 0, 0, 0.0  # the believed rates' places, and λ

    def look(self, jobs: Indices, expected: Array, rewards: Array) -> None:
        """One job per person was seen, `[people]`: what was expected without history, and the reward, NaN if unseen."""
        who = np.flatnonzero(~np.isnan(rewards) & (jobs != NO_JOB))
        at, family, reward = jobs[who], self._families[jobs[who]], rewards[who]
        features = [self._satiation[:, who, family], self._keep[:, who], self._drift[:, who, at]]
        self._rows.append(np.concatenate([expected[None, who], reward[None], *features]).T)
        self._who.append(who)
        self._jobs.append(at)
        self._satiation[:, who, family] += 1.0
        moved = np.array(DRIFTS)[:, None] * np.maximum(reward, 0.0)
        self._keep[:, who] *= 1.0 - moved
        self._drift[:, who] += moved[..., None] * (self.similar[at] - self._drift[:, who])

    def rest(self, days: npt.NDArray[Any]) -> None:
        """Days passed for each person, `[people]`, and nobody looked at postings."""
        self._satiation *= np.array(RECOVERIES)[:, None, None] ** days[:, None]

    def end_session(self, gaps: Indices, offered: Mask, still: Mask) -> None:
        """Days passed, `[people]`; of the jobs `[people, n_jobs]` that were on offer before, some still are."""
        self.rest(gaps)
        self._days.append(float(gaps.mean()))
        # A posting that was open for one person's gap and not afterwards has closed within these days.
        closed = (offered & ~still).sum(0)
        exposed = (offered * (gaps[:, None] - 0.5 * (gaps[:, None] - 1) * (offered & ~still))).sum(0)
        np.add.at(self._closed, self._families, closed)
        np.add.at(self._exposed, self._families, exposed)

    def fit(self) -> None:
        """Choose the rates and the cost that explain the events so far."""
        rows = np.concatenate(self._rows)
        if len(rows) < LEAST_EVENTS:
            return
        who, jobs = np.concatenate(self._who), np.concatenate(self._jobs)
        expected, reward = rows[:, 0], rows[:, 1]
        satiation = rows[:, 2 : 2 + len(RECOVERIES)] * (expected > PROMISING)[:, None]
        keep, drift = np.split(rows[:, 2 + len(RECOVERIES) :], 2, axis=1)
        liked = np.zeros(len(rows))
        for events, _ in (factors := self._factors(who, jobs)):
            near = self.similar[np.ix_(jobs[events], jobs[events])]
            np.fill_diagonal(near, 0.0)
            liked[events] = near @ np.maximum(reward[events], 0.0)
        prior = keep * self.prior[who, jobs][:, None]
        columns = _whitened(factors, np.column_stack([np.ones(len(rows)), liked, prior, drift, satiation]))
        told = reward.copy()
        for step in range(FLOORED_STEPS):
            self._choose(columns, _whitened(factors, told[:, None])[:, 0])
            if step + 1 < FLOORED_STEPS:
                d = self.drifting
                likely = keep[:, d] * expected + drift[:, d] - self.cost * satiation[:, self.recovery]
                told = np.where((reward <= FLOOR) & (expected > PROMISING), np.minimum(likely, FLOOR), reward)

    def _factors(self, who: Indices, jobs: Indices) -> list[tuple[Indices, Array]]:
        """Each person's events, and the Cholesky factor of their covariance."""
        found = []
        for person in np.unique(who):
            events = np.flatnonzero(who == person)
            covariance = self._covariance[np.ix_(jobs[events], jobs[events])]
            found.append((events, np.linalg.cholesky(covariance + ANSWER_VARIANCE * np.eye(len(events)))))
        return found

    def _choose(self, columns: Array, told: Array) -> None:
        """Set rates and cost to those of the best fit of whitened rewards by whitened columns, as `fit` makes them."""
        n, kinds = len(told), len(DRIFTS)
        every = np.column_stack([columns, told])
        products = every.T @ every  # all that least squares of any of these columns needs
        fits = []
        for d in range(kinds):
            target = np.zeros(every.shape[1])
            target[[-1, 2 + kinds + d]] = 1.0, -1.0
            own = [0, 1, 2 + d]
            if self._likes_raise and _fitted(products, own, target)[0][1] < 0.0:
                own.remove(1)
            fits.append((_criterion(_fitted(products, own, target)[1], n, int(d > 0)), 0, d, 0.0))
            for r in range(len(RECOVERIES)):
                weights, error = _fitted(products, [*own, 2 + 2 * kinds + r], target)
                if weights[-1] < 0.0:
                    fits.append((_criterion(error, n, int(d > 0) + 1), r, d, float(-weights[-1])))
        _, self.recovery, self.drifting, self.cost = min(fits)

    def dynamics(self) -> Dynamics:
        """What is believed now."""
        people = self._keep.shape[1]
        overall = self._closed.sum() / max(1.0, self._exposed.sum())
        rates = (self._closed + EXPOSURE_DAYS * overall) / (self._exposed + EXPOSURE_DAYS)
        return Dynamics(
            satiates=np.full(people, self.cost),
            drifts=np.full(people, DRIFTS[self.drifting]),
            recovery=RECOVERIES[self.recovery],
            days=float(np.mean(self._days)) if self._days else 1.0,
            hazards=rates[self._families],
            keep=self._keep[self.drifting],
            drift=self._drift[self.drifting],
            satiation=self._satiation[self.recovery],
        )

    def without_history(self) -> Array:
        """The rewards of all events in their order, freed of what the history did to them, `[events]`."""
        rows = np.concatenate(self._rows)
        expected, reward = rows[:, 0], rows[:, 1]
        satiation = rows[:, 2 + self.recovery]
        keep = rows[:, 2 + len(RECOVERIES) + self.drifting]
        drift = rows[:, 2 + len(RECOVERIES) + len(DRIFTS) + self.drifting]
        freed = (reward - drift + self.cost * satiation) / np.maximum(keep, 0.2)
        # At the floor it is an upper bound only.
        freed = np.where((reward <= FLOOR) & (freed > reward), np.clip(expected, reward, freed), freed)
        return np.clip(freed, FLOOR, 1.0)


def _whitened(factors: list[tuple[Indices, Array]], columns: Array) -> Array:
    found = np.empty_like(columns)
    for events, factor in factors:
        found[events] = solve_triangular(factor, columns[events], lower=True)
    return found


def _fitted(products: Array, columns: list[int], target: Array) -> tuple[Array, float]:
    """Least-squares weights of some columns for a combination of them, and the sum of squared errors.

    products: inner products of all columns.
    """
    inner, cross = products[np.ix_(columns, columns)], products[columns] @ target
    weights = np.linalg.solve(inner + 1e-6 * np.eye(len(columns)), cross).astype(np.float64)
    return weights, float(target @ products @ target - 2.0 * weights @ cross + weights @ inner @ weights)


def _criterion(error: float, n: int, dynamics: int) -> float:
    """Bayesian information criterion of a fit, smaller is better; each dynamic counts as two parameters."""
    return n * math.log(max(error, 1e-9) / n) + 2 * dynamics * math.log(n)
