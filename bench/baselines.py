"""What the agents are compared with: rankers that learn from the same judged pairs, one applicant at a time.

Each takes the applicant's view of the catalogue and a function that judges jobs, and returns its ranking scores of the
whole catalogue at each budget. All of them ask in slates of five and never ask twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
SLATE = 5
JudgeJobs = Callable[[Sequence[int]], Array]  # catalogue indices -> rewards


@dataclass(frozen=True)
class View:
    """One applicant. cosine `[n]` in [-1, 1]; similarities `[n, pairs]`; embedding `[n, d]` of the jobs."""

    cosine: Array
    similarities: Array
    embedding: Array
    kernel: Array


def _best(scores: Array, asked: list[int]) -> list[int]:
    scores = scores.copy()
    scores[asked] = -np.inf
    return [int(j) for j in np.argsort(-scores, kind="stable")[:SLATE]]


def cosine_ranking(view: View, judge: JudgeJobs, budgets: Sequence[int], rng: np.random.Generator) -> dict[int, Array]:
    """Asks nobody."""
    return dict.fromkeys(budgets, view.cosine)


def _ridge_features(view: View) -> Array:
    return np.concatenate([view.similarities, view.embedding, np.ones((len(view.cosine), 1))], axis=1)


def random_ridge(view: View, judge: JudgeJobs, budgets: Sequence[int], rng: np.random.Generator) -> dict[int, Array]:
    """Random exploration; ridge regression of the reward on similarities and job embedding."""
    x = _ridge_features(view)
    order = [int(j) for j in rng.permutation(len(x))[: max(budgets)]]
    rewards = judge(order)
    out = {}
    for n in budgets:
        out[n] = view.cosine if n == 0 else x @ _ridge(x[order[:n]], rewards[:n])
    return out


def _ridge(x: Array, y: Array, penalty: float = 1.0) -> Array:
    """Weights in the dual form: fewer judged pairs than features."""
    weights: Array = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
    return weights


def lin_ucb(view: View, judge: JudgeJobs, budgets: Sequence[int], rng: np.random.Generator) -> dict[int, Array]:
    """LinUCB, disjoint arms' features shared (Li et al. 2010, arXiv 1003.0146), alpha 0.5."""
    alpha, penalty = 0.5, 1.0
    x = _ridge_features(view)
    asked: list[int] = []
    rewards: list[float] = []
    out = {0: view.cosine}
    scores = view.cosine
    while len(asked) < max(budgets):
        slate = _best(scores, asked)
        asked += slate
        rewards += [float(r) for r in judge(slate)]
        chosen = x[asked]
        inverse = np.linalg.inv(chosen @ chosen.T + penalty * np.eye(len(asked)))
        cross = x @ chosen.T
        mean = cross @ (inverse @ np.array(rewards))
        variance = ((x * x).sum(1) - ((cross @ inverse) * cross).sum(1)) / penalty
        scores = mean + alpha * np.sqrt(np.maximum(variance, 0.0))
        if len(asked) in budgets:
            out[len(asked)] = mean
    return out


def gaussian_process(
    view: View, judge: JudgeJobs, budgets: Sequence[int], rng: np.random.Generator
) -> dict[int, Array]:
    """Gaussian process over jobs with a cosine prior and greedy slates: the strongest known baseline."""
    variance, noise, slope = 0.1, 0.01, 1.5
    prior = slope * (view.cosine - view.cosine.mean())
    asked: list[int] = []
    rewards: list[float] = []
    out = {0: prior}
    mean = prior
    while len(asked) < max(budgets):
        slate = _best(mean, asked)
        asked += slate
        rewards += [float(r) for r in judge(slate)]
        among = variance * view.kernel[np.ix_(asked, asked)] + noise * np.eye(len(asked))
        mean = prior + variance * view.kernel[:, asked] @ np.linalg.solve(among, np.array(rewards) - prior[asked])
        if len(asked) in budgets:
            out[len(asked)] = mean
    return out


BASELINES = {
    "cosine ranking": cosine_ranking,
    "random + ridge": random_ridge,
    "LinUCB": lin_ucb,
    "Gaussian process": gaussian_process,
}
