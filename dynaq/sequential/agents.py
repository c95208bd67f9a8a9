"""Agents that show lists to people who change: a block of them over one catalogue, one call per session.

    cosine     the similarity of texts, never learning
    bandit     today's agents: the best jobs by the reward model, which knows nothing of the history
    mmr        the bandit's jobs, diversified by maximal marginal relevance (Carbonell & Goldstein 1998)
    history    the same reward model, freed of the history; the best list of the present session (γ = 0)
    planning   the same, and planning ahead (γ > 0)
    oracle     plans like the last, but knows how people change, and the judge's rewards if it is given them

None shows a job twice, and all are told which postings are open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dynaq.agent.config import DynaQConfig
from dynaq.agent.job_pool import WholeCatalogue
from dynaq.agent.pair_features import job_embedding
from dynaq.agent.replay_buffer import JudgedPairs
from dynaq.agent.stacked_mlp import agent_generator
from dynaq.agent.world_model import make_world_model
from dynaq.judging.judgement import LABELS
from dynaq.sequential.dynamics_model import LearnedDynamics
from dynaq.sequential.people import NO_JOB, Array, Dynamics, Indices, Mask, People, similar_rewards, soft_labels
from dynaq.sequential.planning import PlanConfig, Planner
from dynaq.tensor_cache import TensorCache


class Cosine:
    """Shows the jobs of the most similar texts, and learns nothing."""

    def __init__(self, cache: TensorCache, applicants: Sequence[str]) -> None:
        self._values = np.stack([cache.calculate_cosine_similarities(name) for name in applicants]).astype(np.float64)

    def propose(self, open_jobs: Mask, size: int, left: int) -> Indices:
        """Lists of `size` jobs, `[people, size]`, NO_JOB where too few are open.

        open_jobs: `[people, n_jobs]`, what may be shown. left: sessions to come after this one.
        """
        return best_open(self._values, open_jobs, size)

    def observe(self, lists: Indices, rewards: Array, gaps: Indices, offered: Mask, still: Mask) -> None:
        """What came of the lists, and the days until the next session.

        lists, rewards: `[people, size]`, NaN for jobs that were not looked at. gaps: `[people]`. offered, still:
        `[people, n_jobs]`, postings that were open before and after these days.
        """


class Bandit(Cosine):
    """Today's agents: a Bayesian reward model over the catalogue, and the jobs of the highest mean.

    config: names the reward model. capacity: most jobs that a person may see.
    """

    def __init__(
        self, cache: TensorCache, applicants: Sequence[str], capacity: int, config: DynaQConfig | None = None
    ) -> None:
        config = config or DynaQConfig()
        device = torch.device("cpu")
        pool = WholeCatalogue(cache, list(applicants), device)
        generators = [agent_generator(config.seed, name, "learn") for name in applicants]
        self.model = make_world_model(pool, pool.inputs(config.representation), generators, config, None)
        self._judged = JudgedPairs(len(applicants), cache.n_jobs, capacity, device)
        self._label_values = [config.label_values[label] for label in LABELS]
        self._who, self._slots = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)

    @property
    def base(self) -> Array:
        """Expected reward of every job without history, `[people, n_jobs]`."""
        return self.model.mean.double().numpy()

    def propose(self, open_jobs: Mask, size: int, left: int) -> Indices:
        return best_open(self.base, open_jobs, size)

    def observe(self, lists: Indices, rewards: Array, gaps: Indices, offered: Mask, still: Mask) -> None:
        people, places = np.nonzero(~np.isnan(rewards))
        self._remember(people, lists[people, places], rewards[people, places])
        self.model.observe(self._judged)

    def _remember(self, people: Indices, jobs: Indices, rewards: Array) -> None:
        """Append these pairs to the replay, in their order."""
        judged, who = self._judged, torch.from_numpy(people)
        order = np.zeros(len(people), np.int64)
        for person in np.unique(people):
            own = people == person
            order[own] = np.arange(own.sum())
        slots = judged.counts[who] + torch.from_numpy(order)
        judged.jobs[who, slots] = torch.from_numpy(jobs)
        judged.asked[who, torch.from_numpy(jobs)] = True
        judged.counts += torch.bincount(who, minlength=len(judged.counts))
        self._who, self._slots = torch.cat([self._who, who]), torch.cat([self._slots, slots])
        self._tell(who, slots, rewards)

    def _tell(self, who: torch.Tensor, slots: torch.Tensor, rewards: Array) -> None:
        """Set what the reward model is told of these slots."""
        self._judged.rewards[who, slots] = torch.from_numpy(rewards).float()
        self._judged.probabilities[who, slots] = torch.from_numpy(soft_labels(rewards, self._label_values)).float()


class DiverseBandit(Bandit):
    """The bandit with maximal marginal relevance: weight·reward - (1 - weight)·similarity to the list so far.

    weight: of the reward.
    """

    def __init__(self, cache: TensorCache, applicants: Sequence[str], capacity: int, weight: float, **values: Any):
        super().__init__(cache, applicants, capacity, **values)
        self._weight, self._similar = weight, similar_rewards(job_embedding(cache).numpy())

    def propose(self, open_jobs: Mask, size: int, left: int) -> Indices:
        free, chosen = open_jobs.copy(), []
        rows = np.arange(len(free))
        repeated = np.zeros(free.shape)
        for _ in range(size):
            best = best_open(self._weight * self.base - (1.0 - self._weight) * repeated, free, 1)[:, 0]
            chosen.append(best)
            free[rows, best] = False
            repeated = np.maximum(repeated, self._similar[best])
        return np.stack(chosen, axis=1)


class SequentialAgents(Bandit):
    """The bandit's reward model, what the block learned of how people change, and lists by planning with both.

    families: `[n_jobs]`. plan: with γ = 0, for the present session only.
    """

    def __init__(
        self,
        cache: TensorCache,
        applicants: Sequence[str],
        capacity: int,
        families: Indices,
        plan: PlanConfig,
        seed: int = 0,
        **values: Any,
    ) -> None:
        super().__init__(cache, applicants, capacity, **values)
        embedding = job_embedding(cache).double().numpy()
        self.changes = LearnedDynamics(self.base, families, embedding)
        self.planner = Planner(plan, families, self.changes.similar, seed)

    def dynamics(self) -> Dynamics:
        """How people are believed to change, and their present state."""
        return self.changes.dynamics()

    def propose(self, open_jobs: Mask, size: int, left: int) -> Indices:
        return self.planner.lists(self.base, self.dynamics(), open_jobs, size, left)

    def observe(self, lists: Indices, rewards: Array, gaps: Indices, offered: Mask, still: Mask) -> None:
        expected, rows = self.base, np.arange(len(lists))
        for jobs, told in zip(lists.T, rewards.T, strict=True):
            self.changes.look(jobs, expected[rows, jobs], told)
            who = np.flatnonzero(~np.isnan(told) & (jobs != NO_JOB))
            self._remember(who, jobs[who], told[who])
        self.changes.end_session(gaps, offered, still)
        self.changes.fit()
        self._tell(self._who, self._slots, self.changes.without_history())
        self.model.observe(self._judged)


class Oracle(SequentialAgents):
    """Knows the true state and dynamics of `people`, and with `truth` `[people, n_jobs]` the judge's rewards."""

    def __init__(self, *args: Any, people: People, truth: Array | None = None, **values: Any) -> None:
        self._true_people, self._truth = people, truth
        super().__init__(*args, **values)

    @property
    def base(self) -> Array:
        return super().base if self._truth is None else self._truth

    def dynamics(self) -> Dynamics:
        """The true ones."""
        return self._true_people.dynamics()


def best_open(values: Array, open_jobs: Mask, size: int) -> Indices:
    """The `size` open jobs of the highest values, `[people, size]`, NO_JOB where too few are open; ties by place."""
    masked = np.where(open_jobs, values, -np.inf)
    best = np.argsort(-masked, axis=1, kind="stable")[:, :size]
    return np.where(np.take_along_axis(masked, best, 1) > -np.inf, best, NO_JOB)
