"""The world model that estimates how far its judge can be believed.

Let k be the hidden truth of a pair (`dynaq.agent.judge_table`), phi its similarities, and f a Gaussian process over
jobs, one per applicant (Rasmussen & Williams 2006). Then

    P(k | phi, f) ∝ P(k | phi)·exp(f·u(k))        u: a label's distance from the prior's mean reward, in deviations
    P(answer = l | k, j) = (1 - sum(taste(j)))·confusion[k, l] + taste(j, l)

P(k | phi) and the confusion are estimated together from the answers of the whole block, anew after every round. Three
other causes of a favourable answer are told apart from a fit:

- random errors, by the confusion: an answer counts for the information it carries under the confusion;
- the judge's taste for a job or for similar ones, by what it says of them to *other* applicants for whom the texts do
  not recommend them;
- a judge who only echoes the similarities: then an applicant's answers on similar jobs do not confirm what an answer
  says beyond the similarities, and answers are discounted to that extent (`_borne_out`).

An answer becomes an observation of f by one step of Fisher scoring, as in Laplace's approximation (sec. 3.4). What an
agent believes of a judged pair combines, by Bayes' rule, the posterior from all *other* answers (leave-one-out, eq.
5.12) with the pair's own answer. What applicants did is taken as known, not as judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from dynaq.agent.bayes_world_model import LEAST_INFORMATION, OBSERVATION_VARIANCE, condition, deviation_of
from dynaq.agent.job_pool import Change, JobPool
from dynaq.agent.judge_table import (
    LEVELS,
    NOTHING,
    Acts,
    Answers,
    Array,
    JudgeModel,
    JudgeTable,
    estimate,
    sharpened,
    unknown_judge,
    usual_mix,
)
from dynaq.agent.judged_distances import JudgedDistances
from dynaq.agent.replay_buffer import JudgedPairs

TASTE_SCALE = 0.7  # length scale over which a taste extends to similar jobs
TASTE_COUNTS = 6.0  # number of answers at which a taste is half believed
MOST_TASTE = 0.98
BORNE_OUT_COUNTS = 3.0  # prior information in favour of the judge
# An applicant's first answers tell of the judge. Later ones are about jobs that everything so far speaks against, where
# the prior fits worst: counting all of them, a judge who never errs fell from 0.982 to 0.975 between 50 and 100 answers
# on development applicants of ESCO; with 60 it rises to 0.986. With 40, judges with random errors fall on O*NET.
TELLING = 60
MOST_SHIFT = 7.0  # log-odds; without a bound, neighbours of an unlikely job outweigh every answer about itself


@dataclass(frozen=True)
class _Judged:
    """The block's judged pairs `[agents, n]`, and what stays constant during one `observe`."""

    jobs: torch.Tensor
    valid: torch.Tensor
    real: torch.Tensor
    answers: torch.Tensor  # [agents, n, 4]
    mix: Array  # [4], the judge's usual answer
    cross: torch.Tensor  # squared distances to every job [agents, n, n_jobs]
    among: torch.Tensor  # and to each other [agents, n, n]


@dataclass(frozen=True)
class _Observations:
    """Answers as observations of f `[agents, n]`, with the score and information they derive from."""

    surprise: torch.Tensor
    variance: torch.Tensor
    score: torch.Tensor
    information: torch.Tensor


class TrustWorldModel:
    """A `dynaq.agent.world_model.WorldModel` with one estimate of the judge for the whole block.

    Args:
        pool: the agents' jobs.
        values: reward of each label `[4]`.
        gold: pairs of known truth that the judge answered, of any applicant; they anchor the estimate.
    """

    def __init__(self, pool: JobPool, values: torch.Tensor) -> None:
        # [agents, n_jobs, width]; the first two are the standardised cosine and 1.
        self._phi: Array = pool.similarity_features().double().cpu().numpy()
        self._values, self._pool = values, pool
        self._distances = JudgedDistances(pool)
        self._left_out = values.new_zeros(len(self._phi), 0)  # f at judged pairs without their own answers
        self.gold: Answers | None = None
        self.table: JudgeTable | None = NOTHING
        self._follow(unknown_judge(self._phi.shape[-1]))
        self._before = self._judge, self._left_out
        self.believed = self.text_rewards[:, :0]
        self.mean = self.text_rewards.clone()
        self.deviation = self._scale.clone()

    def _follow(self, judge: JudgeModel) -> None:
        """Recompute the prior of every pair from the estimate."""
        self._judge = judge
        self._log_static = torch.from_numpy(judge.static(self._phi)).to(self._values)
        static = self._log_static.exp()
        self.text_rewards: torch.Tensor = static @ self._values
        self._scale = deviation_of(static, self._values)

    def _tilt(self, at: torch.Tensor | None = None) -> torch.Tensor:
        """u `[agents, n, 4]` for all jobs, or for the jobs `at` `[agents, n]`."""
        mean, scale = self.text_rewards, self._scale
        if at is not None:
            mean, scale = mean.gather(1, at), scale.gather(1, at)
        return (self._values - mean[..., None]) / scale[..., None]

    @staticmethod
    def _shifted(f: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """What f `[agents, n]` adds to the log-odds of each label against IGNORE, `[agents, n, 4]`."""
        shift = f[..., None] * u
        return (shift - shift[..., -1:]).clamp(-MOST_SHIFT, MOST_SHIFT)

    def exchanged(self, changes: Sequence[Change], judged: JudgedPairs) -> None:
        """Some places hold other jobs; prior, mean and deviation follow with the next `observe`."""
        for agent, places in changes:
            self._phi[agent, places] = self._pool.similarity_features(agent, places).double().cpu().numpy()
        self._distances.exchanged(changes, judged)

    def observe(self, judged: JudgedPairs) -> None:
        """Estimate the judge from all judged pairs of the block, then condition on them."""
        n = judged.longest
        if n == 0:
            return
        self._before = self._judge, self._left_out
        pairs = self._read(judged, n)
        taste = self._estimate(pairs)
        log_static = self._log_static.gather(1, pairs.jobs[..., None].expand(-1, -1, LEVELS))
        u = self._tilt(pairs.jobs)
        confusion = self._borne_out(pairs, taste, log_static, u)
        like, each = self._likelihood(pairs, taste, confusion)
        seen = self._observations(pairs, log_static, u, like, each)
        shift, deviation = condition(
            pairs.cross, pairs.among, seen.surprise, seen.variance, at=pairs.jobs, valid=pairs.valid
        )
        f = shift[..., -1]
        self.deviation = self._scale * deviation
        mean = torch.softmax(self._log_static + self._shifted(f, self._tilt()), dim=-1) @ self._values
        self._left_out = f.gather(1, pairs.jobs)
        posterior = torch.softmax(log_static + self._shifted(self._left_out, u) + like, dim=-1)
        self.believed = torch.where(pairs.real, judged.rewards[:, :n], posterior @ self._values)
        agents = torch.arange(len(mean), device=mean.device)[:, None].expand_as(pairs.jobs)
        mean[agents[pairs.valid], pairs.jobs[pairs.valid]] = self.believed[pairs.valid]
        self.mean = mean

    def _read(self, judged: JudgedPairs, n: int) -> _Judged:
        """The block's judged pairs, with their distances."""
        self._distances.follow(judged)
        jobs = judged.jobs[:, :n]
        cross = torch.stack(self._distances.slots[:n], dim=1)
        among = cross.gather(2, jobs[:, None, :].expand(-1, n, -1))
        valid, real, answers = judged.valid(), judged.real(), judged.probabilities[:, :n].clone()
        asked = valid & ~real
        said = answers[asked].double().cpu().numpy()
        mix = usual_mix(said)
        answers[asked] = torch.from_numpy(sharpened(said, mix)).to(answers)
        return _Judged(jobs, valid, real, answers, mix, cross, among)

    def _borne_out(
        self, pairs: _Judged, taste: torch.Tensor, log_static: torch.Tensor, u: torch.Tensor
    ) -> torch.Tensor:
        """The confusion, discounted to the extent that answers on similar jobs do not confirm what an answer adds."""
        confusion = torch.from_numpy(self._judge.confusion).to(taste)
        asked = pairs.valid & ~pairs.real
        if not bool(asked.any()):
            return confusion
        like, each = self._likelihood(pairs, taste, confusion)
        seen = self._observations(pairs, log_static, u, like, each)
        at = torch.arange(pairs.jobs.shape[1], device=taste.device).expand_as(pairs.jobs)
        shift, _ = condition(pairs.among, pairs.among, seen.surprise, seen.variance, at=at, valid=pairs.valid)
        left = shift[..., -1]
        found = float((seen.score * left)[asked].sum()) + BORNE_OUT_COUNTS
        expected = float((seen.information * left.square())[asked].sum()) + BORNE_OUT_COUNTS
        share = min(1.0, max(0.0, found / expected))
        return share * confusion + (1.0 - share) * pairs.answers[asked].mean(0)

    def _likelihood(
        self, pairs: _Judged, taste: torch.Tensor, confusion: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """log P(answer | k) of the actual answers `[agents, n, 4]`, and P(l | k) of every label `[agents, n, 4, 4]`."""
        each = (1.0 - taste.sum(-1))[..., None, None] * confusion + taste[..., None, :]
        like = torch.einsum("anl,ankl->ank", pairs.answers, torch.log(each.clamp_min(1e-9)))
        return like, each

    def _observations(
        self, pairs: _Judged, log_static: torch.Tensor, u: torch.Tensor, like: torch.Tensor, each: torch.Tensor
    ) -> _Observations:
        """One step of Fisher scoring at f = 0; an empty slot gets a variance so large that it has no effect."""
        p = log_static.exp()
        posterior = torch.softmax(log_static + like, dim=-1)
        score = (torch.where(pairs.real[..., None], pairs.answers, posterior) * u).sum(-1)
        answered = torch.einsum("ank,ankl->anl", p, each)
        told = torch.einsum("ank,ankl,ank->anl", p, each, u) / answered.clamp_min(1e-12)
        informed = (answered * told.square()).sum(-1)
        information = LEAST_INFORMATION + torch.where(pairs.real, (p * u.square()).sum(-1), informed)
        variance = OBSERVATION_VARIANCE + 1.0 / information
        variance = torch.where(pairs.valid, variance, torch.full_like(variance, 1e6))
        return _Observations(score / information * pairs.valid, variance, score, informed)

    def _estimate(self, pairs: _Judged) -> torch.Tensor:
        """Update the judge and its table. Returns each judged pair's taste `[agents, n, 4]`."""
        asked = pairs.valid & ~pairs.real
        taste = torch.zeros(*asked.shape, LEVELS, device=asked.device, dtype=self._values.dtype)
        agents, jobs = _agents_and_jobs(pairs, asked)
        answers = pairs.answers[asked].double().cpu().numpy()
        known = np.full(len(agents), np.nan)
        rows = Answers(self._phi[agents, jobs], answers, agents, self._pool.rows(agents, jobs), known)
        # f at these pairs from the last round: an applicant's other answers are evidence, too.
        f = torch.zeros(asked.shape, device=asked.device, dtype=self._values.dtype)
        f[:, : self._left_out.shape[1]] = self._left_out
        beyond = self._shifted(f, self._tilt(pairs.jobs))[asked].double().cpu().numpy()
        telling = (asked.cumsum(1) <= TELLING)[asked].cpu().numpy()
        if self.gold is not None:
            rows = joined(rows, replace(self.gold, answers=sharpened(self.gold.answers, pairs.mix)))
            beyond = np.concatenate([beyond, np.zeros((len(self.gold.answers), LEVELS))])
            telling = np.append(telling, np.ones(len(self.gold.answers), bool))
        acts = self._acts(pairs)
        if not len(rows.answers) and not len(acts.done):
            return taste
        first, beyond = rows.only(telling), beyond[telling]
        judge, _, _ = estimate(first, self._judge, beyond=beyond, acts=acts)
        if not len(rows.answers):
            self._follow(judge)
            return taste
        distinct, where = np.unique(rows.job, return_inverse=True)
        embedding = self._pool.embedding(distinct)
        near = torch.exp(torch.cdist(embedding, embedding).square() / (-2.0 * TASTE_SCALE**2)).double().cpu().numpy()
        recommended = 1.0 - np.exp(judge.static(rows.phi)[:, -1])
        spread = tastes(rows, where, near, recommended, judge.confusion[-1])
        judge, self.table, _ = estimate(first, judge, spread[telling], beyond, acts)
        self._follow(judge)
        taste[asked] = torch.from_numpy(spread[: len(agents)]).to(taste)
        return taste

    def _acts(self, pairs: _Judged) -> Acts:
        done = pairs.valid & pairs.real
        return Acts(self._phi[_agents_and_jobs(pairs, done)], pairs.answers[done].double().cpu().numpy())

    def anchor(self, gold: Answers | None) -> None:
        """Pairs of known truth that the judge answered, of any applicant; they anchor the estimate."""
        self.gold = gold

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors of a checkpoint: the start of the last round, whose estimate `load_state` repeats."""
        judge, left_out = self._before
        tensors = {
            "trust.theta": torch.from_numpy(judge.theta),
            "trust.confusion": torch.from_numpy(judge.confusion),
            "trust.error": torch.tensor(judge.error, dtype=torch.float64),
            "trust.left_out": left_out,
        }
        if self.gold is not None:
            tensors |= {f"trust.gold.{name}": torch.from_numpy(array) for name, array in vars(self.gold).items()}
        return tensors

    def load_state(self, state: dict[str, torch.Tensor], judged: JudgedPairs) -> None:
        """Restore what `state` returned, and recompute the rest from the judged pairs."""
        prefix = "trust.gold."
        gold = {name.removeprefix(prefix): t.numpy() for name, t in state.items() if name.startswith(prefix)}
        self.gold = Answers(**gold) if gold else None
        theta, confusion = state["trust.theta"].numpy(), state["trust.confusion"].numpy()
        self._follow(JudgeModel(theta, confusion, float(state["trust.error"])))
        self._left_out = state["trust.left_out"].to(self._values)
        self.observe(judged)


def _agents_and_jobs(pairs: _Judged, some: torch.Tensor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices of the pairs that the mask `some` `[agents, n]` picks."""
    return some.nonzero()[:, 0].cpu().numpy(), pairs.jobs[some].cpu().numpy()


def tastes(rows: Answers, where: npt.NDArray[np.int64], near: Array, fit: Array, usual: Array) -> Array:
    """What a judge says of a job to applicants it does not fit, in excess of what it usually says of a misfit.

    where: `[rows]` index into the distinct jobs. near: `[jobs, jobs]`, their similarity. fit: `[rows]`, P(fits). usual:
    `[4]`, the answers to misfits. Only other applicants' answers count: an applicant's own are the evidence that the
    taste is to correct. Returns `[rows, 4]`.
    """
    misfits = (1.0 - fit)[:, None] * rows.answers
    total = np.zeros((len(near), LEVELS))
    np.add.at(total, where, misfits)
    others = (near @ total)[where]
    for agent in np.unique(rows.agent):
        own = np.flatnonzero(rows.agent == agent)
        others[own] -= near[np.ix_(where[own], where[own])] @ misfits[own]
    others = np.maximum(others, 0.0)
    share = (others + TASTE_COUNTS * usual) / (others.sum(1, keepdims=True) + TASTE_COUNTS)
    excess: Array = MOST_TASTE * np.clip(share - usual, 0.0, None)
    excess[:, -1] = 0.0
    return excess


def joined(a: Answers, b: Answers) -> Answers:
    """The rows of both."""
    return Answers(*(np.concatenate([x, y]) for x, y in zip(vars(a).values(), vars(b).values(), strict=True)))
