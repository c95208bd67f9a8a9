"""Off-policy evaluation: how a new policy would have done, estimated from lists that another policy drew.

Lists were drawn with known probabilities (`dynaq.feedback.exposure_policy`), so what a logged list earned can be
weighted by how much likelier the new policy is to show the same job at the same rank:

    w_ir = P_new(job_ir at rank r) / P_logged(job_ir at rank r)
    IPS     1/n · sum over lists i, ranks r of w_ir·y_ir                      (Li et al. 2018, item-position model)
    SNIPS   per rank: sum of w·y over sum of w                                (Swaminathan & Joachims 2015)
    DR      1/n · sum of E_new[q(x, j, r)] + w_ir·(y_ir - q_ir)               (Dudík et al. 2011)

Assumptions: the reward of a job depends on the applicant, the job and its rank, but not on the other jobs of the list;
it is zero without an event; the logged propensities are those with which the lists were drawn. q is a ridge regression
on the job's place in both rankings and on the rank. It is cross-fitted: predictions for an applicant come from a fit
without that applicant, so that DR is unbiased even if q is poor, and less uncertain than IPS if q is good.

Weights are clipped at the square root of the number of lists (Ionides 2008). `coverage` is the mean clipped weight: the
share of the new policy's lists on which the log has information. It is low when the new policy shows jobs that were
never shown, or when the log has no exploration; the verdict is then "cannot tell". Intervals are percentile bootstraps
over applicants, because the lists of one applicant are not independent, with the percentiles widened as Student's t
widens the normal quantile (expanded percentile interval, Hesterberg 2015, arXiv 1411.5279).

Libraries: obp 0.5.7 (2023) does not install on Python 3.11 and needs older dependencies; scope-rl 0.2.1 (2023) is about
sequences of states. Neither is maintained, hence these few estimators of our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit

from dynaq.feedback.exposure_policy import SHARPNESS, rank_probabilities

FloatArray = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

MIN_LOGGED_APPLICANTS = 30  # with fewer, intervals cover the true value too rarely: 12 give about 0.86 instead of 0.95
MIN_COVERAGE = 0.7
MIN_EFFECTIVE = 30.0  # effective number of lists (Kish 1965)
REGRESSION_FOLDS = 5
RIDGE = 1.0
DRAWS = 1000
SLATES_AT_ONCE = 512


@dataclass(frozen=True)
class SlateLog:
    """n logged lists of at most k ranks.

    Args:
        applicants: `[n]` number of the applicant, from 0.
        shown: `[n, k]` job numbers, -1 after a list's end.
        propensities: `[n, k]` of the policy that drew the list.
        rewards: `[n, k]` what each rank earned.
    """

    applicants: Numbers
    shown: Numbers
    propensities: FloatArray
    rewards: FloatArray

    @property
    def filled(self) -> npt.NDArray[np.bool_]:
        """`[n, k]` bool: the ranks that hold a job."""
        return self.shown >= 0

    def __len__(self) -> int:
        return len(self.applicants)


@dataclass(frozen=True)
class RankingPolicy:
    """Draws lists around a ranking (`dynaq.feedback.exposure_policy.explore`).

    Args:
        rankings: `[n, pool]` for each logged list the job numbers from which this policy would draw, best first, -1
            after the end.
        sharpness: as in `explore`.
        as_logged: `[n]` whether this policy drew the list itself; then the logged propensities are used, because its
            ranking may have changed since.
    """

    rankings: Numbers
    sharpness: float = SHARPNESS
    as_logged: npt.NDArray[np.bool_] | None = None

    def probabilities(self, log: SlateLog) -> FloatArray:
        """P(the shown job at its rank), `[n, k]`; 0 for a job outside the ranking."""
        result = np.zeros(log.shown.shape)
        places, ranks = places_in(self.rankings, log.shown), np.arange(log.shown.shape[1])
        for length, rows in self._by_length():
            table = np.zeros((self.rankings.shape[1] + 1, len(ranks)))
            table[:length, :length] = rank_probabilities(length, self.sharpness)[:, : len(ranks)]
            result[rows] = table[places[rows], ranks]
        if self.as_logged is not None:
            result[self.as_logged] = log.propensities[self.as_logged]
        return np.where(log.filled, result, 0.0)

    def expected(self, base: FloatArray, slope: FloatArray, discount: FloatArray) -> FloatArray:
        """Expectation over drawn lists of base + discount_r·slope at each rank, `[n, k]`; base, slope `[n, pool]`."""
        result = np.zeros((len(self.rankings), len(discount)))
        for length, rows in self._by_length():
            table = np.zeros((length, len(discount)))
            table[:, :length] = rank_probabilities(length, self.sharpness)[:, : len(discount)]
            result[rows] = base[rows, :length] @ table + discount * (slope[rows, :length] @ table)
        return result

    def _by_length(self) -> list[tuple[int, Numbers]]:
        lengths = (self.rankings >= 0).sum(1)
        return [(int(n), np.flatnonzero(lengths == n)) for n in np.unique(lengths) if n > 0]


def places_in(rankings: Numbers, jobs: Numbers) -> Numbers:
    """Place of each job in its row's ranking, from 0; the width of the rankings if it is not ranked.

    rankings `[n, pool]`, jobs `[n, m]` → `[n, m]`.
    """
    places = np.full(jobs.shape, rankings.shape[1], np.int64)
    for start in range(0, len(jobs), SLATES_AT_ONCE):
        part = slice(start, start + SLATES_AT_ONCE)
        same = (jobs[part, :, None] == rankings[part, None, :]) & (jobs[part, :, None] >= 0)
        places[part] = np.where(same.any(2), same.argmax(2), rankings.shape[1])
    return places


@dataclass(frozen=True)
class Estimate:
    """A mean reward per list, with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OffPolicyEvaluation:
    """What the log says about a new policy compared with the current one.

    `dynaq promote --json` prints these fields, `new` under the name `candidate`.

    Args:
        slates, people: number of lists and of applicants in the log.
        new, current: estimator (`ips`, `snips`, `dr`) → mean reward per list of the new and the current policy.
        difference: new minus current, by the same estimators.
        coverage: share of the new policy's lists on which the log has information; 1 if it has it on all of them.
        effective: effective number of lists after weighting.
        verdict: better, worse, no difference, or cannot tell.
        reason: the verdict in a sentence.
    """

    slates: int
    people: int
    new: Mapping[str, Estimate]
    current: Mapping[str, Estimate]
    difference: Mapping[str, Estimate]
    coverage: float
    effective: float
    verdict: str
    reason: str


def evaluate(
    log: SlateLog, new: RankingPolicy, current: RankingPolicy, *, confidence: float = 0.95, seed: int = 0
) -> OffPolicyEvaluation:
    """Compare two policies on one log. The verdict depends on the interval of the difference by DR."""
    applicants = len(np.unique(log.applicants))
    if applicants < MIN_LOGGED_APPLICANTS:
        reason = (
            f"the log has lists of {applicants} applicants, and {MIN_LOGGED_APPLICANTS} are needed for intervals that "
            "can be trusted; show lists to more applicants"
        )
        return OffPolicyEvaluation(len(log), applicants, {}, {}, {}, np.nan, np.nan, "cannot tell", reason)
    discount = 1.0 / np.log2(np.arange(2, log.shown.shape[1] + 2))
    model = _Regression(log, (new.rankings, current.rankings), discount)
    parts = {name: _Contributions(log, policy, model) for name, policy in (("a", new), ("b", current))}
    totals = np.concatenate([parts["a"].per_applicant, parts["b"].per_applicant], axis=1)
    width = parts["a"].per_applicant.shape[1]
    point = totals.sum(0)[None]
    draws = _resampled(totals, seed)
    values = {}
    for name, sums in (("point", point), ("draws", draws)):
        a, b = _estimates(sums[:, :width]), _estimates(sums[:, width:])
        values[name] = {"a": a, "b": b, "d": {key: a[key] - b[key] for key in a}}
    tails = _tails(applicants, confidence)
    found = {
        side: {
            key: Estimate(float(values["point"][side][key][0]), *np.quantile(values["draws"][side][key], tails))
            for key in values["point"][side]
        }
        for side in ("a", "b", "d")
    }
    coverage, effective = parts["a"].coverage, parts["a"].effective
    verdict, reason = _verdict(log, found["d"]["dr"], coverage, effective, confidence)
    return OffPolicyEvaluation(
        len(log), applicants, found["a"], found["b"], found["d"], coverage, effective, verdict, reason
    )


def _verdict(
    log: SlateLog, difference: Estimate, coverage: float, effective: float, confidence: float
) -> tuple[str, str]:
    if bool((log.propensities[log.filled] >= 1.0).all()) and coverage < 1.0:
        return "cannot tell", (
            "lists were shown without exploration (every propensity is 1), so the log says nothing about other lists"
        )
    if coverage < MIN_COVERAGE:
        return "cannot tell", (
            f"the log covers {coverage:.1%} of what the new run would show, and {MIN_COVERAGE:.0%} are needed"
        )
    if effective < MIN_EFFECTIVE:
        return "cannot tell", (
            f"the weighted lists are worth {effective:.0f} of the new run's own, and {MIN_EFFECTIVE:.0f} are needed"
        )
    figures = (
        f"{difference.value:+.3f} per list ({confidence:.0%} interval {difference.low:+.3f} to {difference.high:+.3f})"
    )
    if difference.high < 0.0:
        return "worse", f"the new run earns less than what serves now: {figures}"
    if difference.low > 0.0:
        return "better", f"the new run earns more than what serves now: {figures}"
    return "no difference", f"the difference to what serves now cannot be told from chance: {figures}"


class _Regression:
    """q(x, j, r) = base(x, j) + discount_r·slope(x, j), both linear in the job's discounted places, cross-fitted."""

    def __init__(self, log: SlateLog, rankings: tuple[Numbers, Numbers], discount: FloatArray) -> None:
        self._rankings, self._discount = rankings, discount
        features = self._features(log.shown)
        rows = np.concatenate([features, features * discount[:, None]], axis=2)
        self._weights = np.zeros((len(log), rows.shape[2]))
        order = {applicant: i for i, applicant in enumerate(np.unique(log.applicants))}
        folds = np.array([order[applicant] % REGRESSION_FOLDS for applicant in log.applicants.tolist()])
        for fold in np.unique(folds):
            use = (folds != fold)[:, None] & log.filled
            x, y = rows[use], log.rewards[use]
            gram = x.T @ x + RIDGE * np.eye(x.shape[1])
            self._weights[folds == fold] = np.linalg.solve(gram, x.T @ y)
        self.shown = np.einsum("nkd,nd->nk", rows, self._weights)

    def _features(self, jobs: Numbers) -> FloatArray:
        """`[n, m, 3]`: a constant 1, and the discounted place in each ranking, 0 if the job is not ranked."""
        columns = [np.ones(jobs.shape)]
        for ranking in self._rankings:
            places = places_in(ranking, jobs)
            columns.append(np.where(places < ranking.shape[1], 1.0 / np.log2(places + 2.0), 0.0))
        return np.stack(columns, axis=2)

    def expected(self, policy: RankingPolicy) -> FloatArray:
        """E over the policy's lists of q at each rank, `[n, k]`."""
        features = self._features(policy.rankings)
        half = features.shape[2]
        base = np.einsum("npd,nd->np", features, self._weights[:, :half])
        slope = np.einsum("npd,nd->np", features, self._weights[:, half:])
        return policy.expected(base, slope, self._discount)


class _Contributions:
    """A policy's sums per applicant `[applicants, 3 + 2k]`: lists, IPS, DR, then weighted rewards and weights by rank.

    Lists that the policy drew itself count in DR with what they earned, without the regression.
    """

    def __init__(self, log: SlateLog, policy: RankingPolicy, model: _Regression) -> None:
        filled = log.filled
        weights = policy.probabilities(log) / np.where(filled, log.propensities, 1.0)
        weights = np.minimum(weights, np.sqrt(len(log)))
        earned = weights * log.rewards
        robust = model.expected(policy) + weights * (log.rewards - model.shown)
        if policy.as_logged is not None:
            robust[policy.as_logged] = log.rewards[policy.as_logged]
        robust = np.where(filled, robust, 0.0)
        columns = np.concatenate(
            [np.ones((len(log), 1)), earned.sum(1, keepdims=True), robust.sum(1, keepdims=True), earned, weights],
            axis=1,
        )
        _, applicant = np.unique(log.applicants, return_inverse=True)
        self.per_applicant = np.zeros((applicant.max() + 1, columns.shape[1]))
        np.add.at(self.per_applicant, applicant, columns)
        self.coverage = float(weights.sum() / filled.sum())
        by_rank = weights.sum(0) ** 2 / np.maximum((weights**2).sum(0), 1e-300)
        self.effective = float(by_rank[filled.any(0)].mean())


def _estimates(sums: FloatArray) -> dict[str, FloatArray]:
    """The estimators from summed contributions `[draws, 3 + 2k]`."""
    n, k = sums[:, 0], (sums.shape[1] - 3) // 2
    earned, weights = sums[:, 3 : 3 + k], sums[:, 3 + k :]
    normalised = np.divide(earned, weights, out=np.zeros_like(earned), where=weights > 0).sum(1)
    return {"ips": sums[:, 1] / n, "snips": normalised, "dr": sums[:, 2] / n}


def _tails(applicants: int, confidence: float) -> tuple[float, float]:
    """Bootstrap percentiles whose interval is as wide as Student's t would make it."""
    t = stdtrit(applicants - 1, (1.0 + confidence) / 2.0)
    upper = float(ndtr(t * np.sqrt(applicants / (applicants - 1))))
    return 1.0 - upper, upper


def _resampled(totals: FloatArray, seed: int) -> FloatArray:
    """Sums over applicants drawn with replacement, `[DRAWS, columns]`."""
    rng = np.random.default_rng(seed)
    applicants = len(totals)
    parts = []
    for start in range(0, DRAWS, 50):
        times = rng.multinomial(applicants, np.full(applicants, 1.0 / applicants), size=min(50, DRAWS - start))
        parts.append(times @ totals)
    return np.concatenate(parts)
