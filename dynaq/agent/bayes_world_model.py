"""The Bayesian world model: predicts what the judge would answer on any job of the catalogue, and how certainly.

Three steps, each a stacked computation over the agents of a block:

1. A static prior p(label | s, a), from networks pre-trained on other applicants if there are any, else from the cosine.
2. A Gaussian process over jobs, fitted to what the judge said beyond that prior (Rasmussen & Williams 2006, ch. 2): a
   surprise on one job shifts the jobs that resemble it, weighted by the answer's information (`surprises`). The
   kernel is a squared exponential on the job embedding; shifts are in units of the prior's own deviation.
3. A calibrated head p(label | static prior, shift of the process), pre-trained too; without one the shift is added.

A judge that errs is not believed blindly. Let p(k) be the prediction for the pair without its own answer: after the
answer l, the truth is k with probability p(k)·confusion[k, l] / Σ_j p(j)·confusion[j, l] (`AnswerNoise`), and the
believed reward is the mean under that. Of a judge that never errs it is the answer itself. What an applicant did is not
a judge's guess, so it is the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from dynaq.agent.answer_noise import AnswerNoise
from dynaq.agent.job_pool import Change, JobPool
from dynaq.agent.judge_table import Answers, JudgeTable
from dynaq.agent.judged_distances import JudgedDistances
from dynaq.agent.pair_features import log_rank
from dynaq.agent.replay_buffer import JudgedPairs
from dynaq.judging.judgement import LABELS

SHIFT_SCALES = (0.7, 1.2)  # length scales: near neighbours, and the wider neighbourhood
PROCESS_VARIANCE = 2.0  # of shifts, see `surprises`
OBSERVATION_VARIANCE = 0.3  # how much two jobs of the same embedding may still differ
LEAST_INFORMATION = 0.05  # of an answer; bounds the influence of a very unexpected one
SURE = 0.01  # added to the prior's variance of the reward
COSINE_SLOPE = 1.5  # reward per unit of cosine, for the prior of agents that were not pre-trained
CLASS_VARIANCE = 0.11
CONTEXT = len(LABELS) + 2 + len(SHIFT_SCALES)  # width of the head's input
CHUNK_BYTES = 1 << 28  # of kernel rows held at once


class Prior(Protocol):
    """Static prior and head of a block's agents (`dynaq.pretraining.prior.PretrainedPrior` or `CosinePrior`)."""

    noise: AnswerNoise
    static: torch.Tensor  # p(label | s, a) [agents, n_jobs, 4]

    def exchanged(self, changes: Sequence[Change]) -> None:
        """Recompute `static` of the jobs that some places hold now."""
        ...

    def head(self, context: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        """p(label | context) `[..., 4]` of a context `[agents, n, CONTEXT]`, or None when there is no head."""
        ...


class CosinePrior:
    """Cold start: the reward rises with how far the cosine is above the applicant's mean over the catalogue.

    values: `[4]`, the labels' rewards.
    """

    def __init__(self, pool: JobPool, values: torch.Tensor) -> None:
        self.noise = AnswerNoise.random(0.0)
        self._pool, self._values = pool, values
        self.static = self._static()

    def _static(self) -> torch.Tensor:
        centred = 2.0 * (self._pool.cosines - self._pool.mean_cosine)  # back from [0, 1] to the cosine's own scale
        return class_probabilities(COSINE_SLOPE * centred, torch.full_like(centred, CLASS_VARIANCE), self._values)

    def exchanged(self, changes: Sequence[Change]) -> None:
        """Recompute `static`, of all jobs at once."""
        self.static = self._static()

    def head(self, context: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        """None: this prior has no head."""
        return None


def class_probabilities(mean: torch.Tensor, variance: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A Gaussian belief about the reward as a distribution over the labels, `[..., 4]`."""
    return torch.softmax(-0.5 * (values - mean[..., None]) ** 2 / variance[..., None], dim=-1)


class BayesWorldModel:
    """Posterior over the judge's reward for the whole catalogue, per agent.

    noise: a share of random answers to assume in place of what the prior knows of the judge's errors.

    Attributes after `observe`:
        mean, deviation: `[agents, n_jobs]`, in units of reward.
        believed: `[agents, longest]`, the reward of each judged pair that the model believes.
    """

    def __init__(
        self,
        prior: Prior,
        pool: JobPool,
        values: torch.Tensor,
        noise: float | None = None,
    ) -> None:
        self._prior, self._values, self._pool = prior, values, pool
        self.table: JudgeTable | None = None
        self.text_rewards: torch.Tensor | None = None
        assumed = prior.noise if noise is None else AnswerNoise.random(noise, prior.noise.usual)
        self.noise = assumed.to(values.device)
        self._follow_prior()
        self._distances = JudgedDistances(pool)
        self.deviation = PROCESS_VARIANCE**0.5 * self._scale
        self.believed = self._static_mean[:, :0]
        self.mean = self._predict(self._no_shift(self._static.shape[1]))[1]

    def _follow_prior(self) -> None:
        self._static = self._prior.static
        self._static_mean = self._static @ self._values
        self._scale = deviation_of(self._static, self._values)

    def exchanged(self, changes: Sequence[Change], judged: JudgedPairs) -> None:
        """Some places hold other jobs; mean and deviation follow with the next `observe`."""
        self._prior.exchanged(changes)
        self._follow_prior()
        self._distances.exchanged(changes, judged)

    def _no_shift(self, n: int) -> torch.Tensor:
        return self._static_mean.new_zeros(len(self._static), n, len(SHIFT_SCALES))

    def _context(self, shift: torch.Tensor) -> torch.Tensor:
        return head_context(self._static, self._static_mean, shift, self._pool.log_rank(self._static_mean))

    def _predict(self, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distribution over labels `[agents, n_jobs, 4]` and expected reward `[agents, n_jobs]`."""
        # Built only for a prior that reads it: the context ranks the whole catalogue, in every round.
        probabilities = self._prior.head(lambda: self._context(shift))
        if probabilities is not None:
            return probabilities, probabilities @ self._values
        mean = self._static_mean + self._scale * shift[..., -1]
        return class_probabilities(mean, torch.full_like(mean, CLASS_VARIANCE), self._values), mean

    def observe(self, judged: JudgedPairs) -> None:
        """Condition on all judged pairs of the block."""
        n = judged.longest
        if n == 0:
            return
        self._distances.follow(judged)
        agents = len(self._static)
        per_agent = 4 * n * self._static.shape[1]
        step = max(1, CHUNK_BYTES // per_agent)
        answers = judged.probabilities[:, :n].clone()
        asked = judged.valid() & ~judged.real()
        answers[asked] = self.noise.read(answers[asked])
        shifts, deviations = [], []
        for start in range(0, agents, step):
            part = slice(start, min(start + step, agents))
            shift, deviation = self._condition(judged, answers, part)
            shifts.append(shift)
            deviations.append(deviation)
        self.deviation = self._scale * torch.cat(deviations)
        probabilities, mean = self._predict(torch.cat(shifts))
        jobs = judged.jobs[:, :n]
        self.believed = judged.rewards[:, :n]
        if not self.noise.faultless:
            # At a judged job the shift excludes that job's own answer.
            predicted = probabilities.gather(1, jobs[..., None].expand(-1, -1, 4))
            truth = self.noise.truth(predicted, answers)
            self.believed = torch.where(judged.real(), self.believed, truth @ self._values)
        valid = judged.valid()
        rows = torch.arange(agents, device=jobs.device)[:, None].expand_as(jobs)
        mean[rows[valid], jobs[valid]] = self.believed[valid]
        self.mean = mean

    def anchor(self, gold: Answers | None) -> None:
        """Nothing: this model takes the judge as given."""

    def state(self) -> dict[str, torch.Tensor]:
        """Nothing: everything follows from the judged pairs."""
        return {}

    def load_state(self, state: dict[str, torch.Tensor], judged: JudgedPairs) -> None:
        """Recompute everything from the judged pairs."""
        self.observe(judged)

    def _condition(self, judged: JudgedPairs, answers: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior shift `[part, n_jobs, scales]`, leave-one-out at judged jobs, and standard deviation."""
        n = answers.shape[1]
        jobs, valid = judged.jobs[part, :n], judged.valid()[part]
        static = self._static[part].gather(1, jobs[..., None].expand(-1, -1, 4))
        surprise, variance = surprises(
            static,
            answers[part],
            valid,
            self._values,
            self.noise,
            judged.real()[part],
        )
        cross = torch.stack([d[part] for d in self._distances.slots[:n]], dim=1)  # [part, n, n_jobs]
        among = cross.gather(2, jobs[:, None, :].expand(-1, n, -1))
        return condition(cross, among, surprise, variance, at=jobs, valid=valid)


def deviation_of(static: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the reward under p(label) `[..., 4]`, with SURE added, `[...]`."""
    mean = static @ values
    return ((static @ values.square() - mean.square()).clamp_min(0.0) + SURE).sqrt()


def head_context(
    static: torch.Tensor, static_mean: torch.Tensor, shift: torch.Tensor, ranks: torch.Tensor | None = None
) -> torch.Tensor:
    """The head's input `[agents, n_jobs, CONTEXT]`: log-probabilities, mean and log-rank of the prior, then shifts.

    ranks: log-rank of the prior's mean in the catalogue, `[agents, n_jobs]`; None where the jobs are all of it.
    """
    ranks = log_rank(static_mean) if ranks is None else ranks
    return torch.cat([torch.log(static + 1e-4), static_mean[..., None], ranks[..., None], shift], dim=-1)


def surprises(
    static: torch.Tensor,
    answers: torch.Tensor,
    valid: torch.Tensor,
    values: torch.Tensor,
    noise: AnswerNoise,
    real: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What answers say beyond the static prior, and how uncertain that is.

    The process moves the odds of the labels, p(label) ∝ static·exp(shift·u), where u is a label's distance from the
    prior's mean reward in units of the prior's deviation. An answer l is seen with probability
    q(l) = Σ_k p(k)·confusion[k, l], so its score is g(l) = Σ_k p(k)·confusion[k, l]·u(k) / q(l), the mean of u after
    that answer, and its Fisher information I = Σ q(l)·g(l)². One step of Fisher scoring, as in the Laplace
    approximation (Rasmussen & Williams 2006, sec. 3.4), gives the observation g/I of variance 1/I. Answers that the
    prior was sure of say little, and a noisy judge's false answers on such pairs cancel.

    static, answers `[agents, n, 4]`; valid, real `[agents, n]`, where real marks what the applicant did. Returns
    observation and variance `[agents, n]`; an empty slot gets a variance so large that it has no effect.
    """
    mean, scale = static @ values, deviation_of(static, values)
    beyond = (values - mean[..., None]) / scale[..., None]
    answered, told = static, beyond
    if not noise.faultless:
        answered = noise.answered(static)
        told = noise.answered(static * beyond) / answered.clamp_min(1e-12)
    if real is not None:
        answered = torch.where(real[..., None], static, answered)
        told = torch.where(real[..., None], beyond, told)
    information = LEAST_INFORMATION + (answered * told.square()).sum(-1)
    score = (answers * told).sum(-1)
    variance = OBSERVATION_VARIANCE + 1.0 / information
    return score / information * valid, torch.where(valid, variance, torch.full_like(variance, 1e6))


def condition(
    cross: torch.Tensor,
    among: torch.Tensor,
    surprise: torch.Tensor,
    variance: torch.Tensor,
    at: torch.Tensor,
    valid: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The Gaussian process posterior at each length scale.

    cross `[agents, n, m]`, among `[agents, n, n]`: squared distances of the n observed jobs to the m queried ones and
    to each other. at, valid `[agents, n]`: positions of the observed jobs among the queried ones, where the posterior
    is leave-one-out (Rasmussen & Williams 2006, eq. 5.12). Returns shift `[agents, m, scales]` and the deviation
    `[agents, m]` at the last scale.
    """
    shifts = []
    deviation = cross.new_empty(0)
    for scale in SHIFT_SCALES:
        kernel = PROCESS_VARIANCE * torch.exp(cross / (-2.0 * scale**2))
        own = PROCESS_VARIANCE * torch.exp(among / (-2.0 * scale**2))
        own = 0.5 * (own + own.transpose(1, 2)) + torch.diag_embed(variance)
        # cholesky would raise for the whole block; here only an agent whose matrix fails gets NaN: its loss stops it.
        factor, failed = torch.linalg.cholesky_ex(own)
        factor = torch.where(failed[:, None, None] > 0, torch.nan, factor)
        inverse = torch.cholesky_inverse(factor)
        weights = (inverse @ surprise[..., None]).squeeze(-1)
        shift = torch.einsum("anj,an->aj", kernel, weights)
        left_out = surprise - weights / inverse.diagonal(dim1=1, dim2=2)
        rows = torch.arange(len(at), device=at.device)[:, None].expand_as(at)
        shift[rows[valid], at[valid]] = left_out[valid]
        shifts.append(shift)
        explained = torch.linalg.solve_triangular(factor, kernel, upper=False).square().sum(1)
        deviation = (PROCESS_VARIANCE - explained).clamp_min(1e-9).sqrt()
    return torch.stack(shifts, dim=-1), deviation
