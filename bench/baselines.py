"""What the agents are compared with: rankers that learn from the same judged pairs, one applicant at a time.

Each takes the applicant's view of the catalogue and a function that judges jobs, and returns its ranking scores of the
whole catalogue at each budget. All of them ask in slates of five and never ask twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from dynaq.agent.answer_noise import AnswerNoise
from dynaq.agent.bayes_world_model import CLASS_VARIANCE, class_probabilities
from dynaq.judging.judgement import LABEL_VALUES, LABELS

Array = npt.NDArray[np.float64]
SLATE = 5
JudgeJobs = Callable[[Sequence[int]], Array]  # catalogue indices -> rewards


@dataclass(frozen=True)
class View:
    """One applicant. cosine `[n]` in [-1, 1]; similarities `[n, pairs]`; embedding `[n, d]` of the jobs.

    What pre-training tells the agents and their baselines alike: expected `[n]`, the reward before the first answer,
    None without pre-training; noise, the judge's errors.
    """

    cosine: Array
    similarities: Array
    embedding: Array
    kernel: Array
    expected: Array | None = None
    noise: AnswerNoise = field(default_factory=partial(AnswerNoise.random, 0.0))


def _best(scores: Array, asked: list[int]) -> list[int]:
    scores = scores.copy()
    scores[asked] = -np.inf
    return [int(j) for j in np.argsort(-scores, kind="stable")[:SLATE]]


def cosine_ranking(view: View, judge: JudgeJobs, budgets: Sequence[int], rng: np.random.Generator) -> dict[int, Array]:
    """The ranking by cosine, which needs no judgement."""
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


PROCESS_VARIANCE, OBSERVATION_VARIANCE, COSINE_SLOPE = 0.1, 0.01, 1.5
NOISE_STEPS = 3  # iterations in which each answer is weighted by what the others predict


def gaussian_process(
    view: View, judge: JudgeJobs, budgets: Sequence[int], rng: np.random.Generator
) -> dict[int, Array]:
    """Gaussian process over jobs with a cosine prior and greedy slates: the strongest known baseline."""
    return _process(view, judge, budgets, COSINE_SLOPE * (view.cosine - view.cosine.mean()), AnswerNoise.random(0.0))


def informed_gaussian_process(
    view: View, judge: JudgeJobs, budgets: Sequence[int], rng: np.random.Generator
) -> dict[int, Array]:
    """The same with what the agents are given: the pre-trained prior, and the judge's errors."""
    assert view.expected is not None
    return _process(view, judge, budgets, view.expected, view.noise)


def _process(
    view: View, judge: JudgeJobs, budgets: Sequence[int], prior: Array, noise: AnswerNoise
) -> dict[int, Array]:
    asked: list[int] = []
    rewards: list[float] = []
    out = {0: prior}
    mean = prior
    while len(asked) < max(budgets):
        slate = _best(mean, asked)
        asked += slate
        rewards += [float(r) for r in judge(slate)]
        beyond = np.array(rewards) - prior[asked]
        among = PROCESS_VARIANCE * view.kernel[np.ix_(asked, asked)]
        trust = np.ones(len(asked))
        for _ in range(0 if noise.faultless else NOISE_STEPS):
            inverse = np.linalg.inv(among + np.diag(OBSERVATION_VARIANCE / trust))
            left_out = np.array(rewards) - (inverse @ beyond) / np.diag(inverse)  # Rasmussen & Williams 2006, eq. 5.12
            trust = np.maximum(_right(left_out, np.array(rewards), noise), 1e-3)
        weights = np.linalg.solve(among + np.diag(OBSERVATION_VARIANCE / trust), beyond)
        mean = prior + PROCESS_VARIANCE * view.kernel[:, asked] @ weights
        if len(asked) in budgets:
            out[len(asked)] = mean
    return out


def _right(predicted: Array, rewards: Array, noise: AnswerNoise) -> Array:
    """Probability `[n]` that each answer is the truth, as the agents' own model has it."""
    values = torch.tensor([LABEL_VALUES[label] for label in LABELS], dtype=torch.float64)
    mean, answered = torch.from_numpy(predicted), torch.from_numpy(rewards)
    answers = torch.nn.functional.one_hot((answered[:, None] - values).abs().argmin(1), len(LABELS)).float()
    p = class_probabilities(mean, torch.full_like(mean, CLASS_VARIANCE), values).float()
    found: Array = (noise.truth(p, answers) * answers).sum(-1).double().numpy()
    return found


BASELINES = {
    "cosine ranking": cosine_ranking,
    "random + ridge": random_ridge,
    "LinUCB": lin_ucb,
    "Gaussian process": gaussian_process,
    "  pre-trained, told the noise": informed_gaussian_process,
}
