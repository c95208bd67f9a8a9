"""A block of Dyna-Q agents, one per applicant, that act, learn and plan together.

One round (Sutton 1990, Dyna-Q; Peng et al. 2018, arXiv 1801.06176, for a judged user in place of the environment):

    1. act: propose a slate of jobs that were not asked about before, best Q first, some at random
    2. ask the judge for the slates of the whole block in one call
    3. world model: condition on the answers
    4. direct learning: Q updates on judged pairs, with the reward as the model believes it
    5. planning: Q updates on jobs of the catalogue, judged or not, with the model's reward

The budget counts distinct pairs judged, from the ledger or by the judge alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from dynaq.config import DynaQConfig
from dynaq.errors import InputError, JudgeError
from dynaq.features import job_embedding, pair_features, raw_features, scaled_cosines
from dynaq.inputs import InteractionInputs, PairInputs, RawInputs
from dynaq.judge import LABELS, JudgementSource, Slate
from dynaq.mlp_model import MLPWorldModel
from dynaq.networks import agent_generator
from dynaq.q_learning import QFunction
from dynaq.replay import JudgedPairs
from dynaq.rewards import RewardStrategy
from dynaq.tensor_cache import TensorCache
from dynaq.world_model import BayesWorldModel, CosinePrior

if TYPE_CHECKING:
    from dynaq.pretrain import Pretrained


@dataclass(frozen=True)
class RoundMetrics:
    """One agent after one round.

    Args:
        applicant_id: whose agent.
        round: counted from 1.
        judgements_used: distinct pairs judged so far; 0 throughout for the cosine strategy, which asks nobody.
        mean_reward: mean reward of this round's slate under the strategy; NaN when every pair was abstained.
        cumulative_reward: sum of the rewards of all slates.
        epsilon: chance of a random job that this round acted with.
        w_cosine: weight of the cosine in the reward.
        q_loss: mean loss of the direct updates; NaN without any.
        model_loss: squared error of the model's predictions for this slate, made before it was judged.
        planning_loss: mean loss of the planning updates; NaN without any.
        abstained: pairs of this slate on which the judge abstained.
    """

    applicant_id: str
    round: int
    judgements_used: int
    mean_reward: float
    cumulative_reward: float
    epsilon: float
    w_cosine: float
    q_loss: float
    model_loss: float
    planning_loss: float
    abstained: int


class DynaQBlock:
    """Agents of `applicant_ids` over the catalogue of `cache`.

    Args:
        strategy: which reward they learn from.
        pretrained: cohort-wide networks to start from; None for the cosine prior.
        device: where the tensors live.

    Raises InputError for an unknown applicant, a duplicate, an empty cohort or an empty catalogue.
    """

    def __init__(
        self,
        cache: TensorCache,
        applicant_ids: Sequence[str],
        strategy: RewardStrategy,
        config: DynaQConfig,
        pretrained: Pretrained | None = None,
        device: str = "cpu",
    ) -> None:
        self.applicant_ids = list(applicant_ids)
        if not self.applicant_ids:
            raise InputError("no applicants to train; name at least one")
        if len(set(self.applicant_ids)) != len(self.applicant_ids):
            raise InputError("an applicant is named twice; name each once")
        if not cache.job_ids:
            raise InputError("the catalogue has no jobs; ingest some first")
        self.cache, self.strategy, self.config = cache, strategy, config
        self.device = torch.device(device)
        self.round = 0
        self.failures: dict[str, str] = {}
        agents, self._n_jobs = len(self.applicant_ids), len(cache.job_ids)
        self.generators = [agent_generator(config.seed, a, "learn") for a in self.applicant_ids]
        self._budget = min(config.budget, self._n_jobs)
        self.judged = JudgedPairs(agents, self._n_jobs, self._budget, self.device)
        self.cumulative = [0.0] * agents
        self._cosines = scaled_cosines(cache, self.applicant_ids).to(self.device)
        features = pair_features(cache, self.applicant_ids).to(self.device)
        self._inputs = self._make_inputs(features)
        self.model = self._make_model(features, pretrained)
        self.q = QFunction(self._inputs, self.generators, config, self.device)
        if config.warm_start:
            self._warm_start()

    def _make_inputs(self, features: torch.Tensor) -> PairInputs:
        if self.config.representation == "interaction":
            return InteractionInputs(features)
        states, actions = raw_features(self.cache, self.applicant_ids)
        return RawInputs(states.to(self.device), actions.to(self.device))

    def _make_model(self, features: torch.Tensor, pretrained: Pretrained | None) -> BayesWorldModel | MLPWorldModel:
        if self.config.world_model == "mlp":
            return MLPWorldModel(self._inputs, self._cosines, self.generators, self.config, self.device)
        values = torch.tensor([self.config.label_values[label] for label in LABELS], device=self.device)
        prior = pretrained.prior(self.cache.layout, self.device) if pretrained is not None else CosinePrior(values)
        embedding = job_embedding(self.cache).to(self.device)
        return BayesWorldModel(
            prior, features, self._cosines, embedding, self.applicant_ids, values, self.config.judge_noise
        )

    def _warm_start(self) -> None:
        """Fit Q on the rewards that the model expects before anything was judged."""
        self.q.start_from(self._expected_rewards())
        for _ in range(self.config.warm_start_updates):
            self._plan(1)
        self.q.sync(tau=1.0)

    @property
    def done(self) -> bool:
        """Every agent has spent its budget, asked about the whole catalogue, or failed."""
        return not any(self._room(i) for i in range(len(self.applicant_ids)))

    def _room(self, agent: int) -> int:
        """Pairs that the agent may still ask about."""
        if self.applicant_ids[agent] in self.failures:
            return 0
        left = self._budget - int(self.judged.counts[agent])
        return min(left, self._n_jobs - int(self.judged.asked[agent].sum()))

    @property
    def epsilon(self) -> torch.Tensor:
        """Chance of a random job on the next slate, `[agents]`."""
        c = self.config
        return (c.epsilon_start * c.epsilon_decay ** self.judged.counts.float()).clamp(min=c.epsilon_end)

    def q_values(self) -> npt.NDArray[np.float32]:
        """Q of every job of the catalogue, `[agents, n_jobs]`, in the order of `cache.job_ids`."""
        return self.q.values().cpu().numpy()

    def recommendations(self, k: int) -> list[list[tuple[str, float]]]:
        """The k jobs of the highest Q per agent, best first, judged or not; ties go to the earlier job."""
        ranked = []
        for q in self.q_values():
            order = np.argsort(-q, kind="stable")[:k]
            ranked.append([(self.cache.job_ids[j], float(q[j])) for j in order])
        return ranked

    def step(self, source: JudgementSource | None = None) -> list[RoundMetrics]:
        """One round of every agent that still has budget. Returns one record per such agent.

        Raises JudgeError when the judge fails; nothing was learned from the round then and it can be repeated.
        """
        if self.done:
            return []
        epsilon = self.epsilon.cpu()
        slates = self.propose()
        rewards, abstained, errors = self._ask(slates, source)
        self.round += 1
        if self.strategy.needs_judge:
            self.model.observe(self.judged)
        direct = self._learn()
        planned = self._plan(self.config.planning_updates)
        if self.round % self.config.target_sync == 0:
            self.q.sync()
        self._stop_broken(direct, planned)
        weight = self.strategy.cosine_weight(self.judged.counts)
        return [
            RoundMetrics(
                applicant_id=self.applicant_ids[i],
                round=self.round,
                judgements_used=int(self.judged.counts[i]) if self.strategy.needs_judge else 0,
                mean_reward=_mean(rewards[i]),
                cumulative_reward=self.cumulative[i],
                epsilon=float(epsilon[i]),
                w_cosine=float(weight[i]),
                q_loss=math.nan if direct is None else float(direct[i]),
                model_loss=_mean(errors[i]),
                planning_loss=math.nan if planned is None else float(planned[i]),
                abstained=abstained[i],
            )
            for i in slates
        ]

    def propose(self) -> dict[int, list[int]]:
        """Agent → catalogue indices of its next slate: best Q (plus ucb·deviation) first, random with chance ε."""
        scores = (self.q.values() + self.config.ucb * self.model.deviation).masked_fill(self.judged.asked, -math.inf)
        epsilon = self.epsilon.cpu()
        slates = {}
        for i, generator in enumerate(self.generators):
            size = min(self.config.slate_size, self._room(i))
            if size <= 0:
                continue
            slate: list[int] = torch.topk(scores[i], size).indices.tolist()
            if epsilon[i] > 0:
                slate = self._explore(i, slate, float(epsilon[i]), generator)
            slates[i] = slate
        return slates

    def _explore(self, agent: int, slate: list[int], epsilon: float, generator: torch.Generator) -> list[int]:
        free = torch.nonzero(~self.judged.asked[agent]).squeeze(1).cpu()
        order = iter(free[torch.randperm(len(free), generator=generator)].tolist())
        swap = (torch.rand(len(slate), generator=generator) < epsilon).tolist()
        kept = [job for job, swapped in zip(slate, swap, strict=True) if not swapped]
        while len(kept) < len(slate):
            job = next(order)
            if job not in kept:
                kept.append(job)
        return kept

    def _ask(
        self, slates: dict[int, list[int]], source: JudgementSource | None
    ) -> tuple[dict[int, list[float]], dict[int, int], dict[int, list[float]]]:
        """Rewards under the strategy, abstentions, and squared errors of the model's predictions, per agent."""
        weight = self.strategy.cosine_weight(self.judged.counts)
        if not self.strategy.needs_judge:
            rewards = {}
            for i, jobs in slates.items():
                cosines = self._cosines[i, jobs]
                self.judged.asked[i, jobs] = True
                self._keep_cosines(i, jobs, cosines)
                rewards[i] = cosines.tolist()
                self.cumulative[i] += sum(rewards[i])
            return rewards, dict.fromkeys(slates, 0), {i: [] for i in slates}
        if source is None:
            raise InputError(f"strategy {self.strategy.name!r} needs a judge; name one with --judge")
        asked = [Slate(self.applicant_ids[i], tuple(self.cache.job_ids[j] for j in jobs)) for i, jobs in slates.items()]
        answers = source.fetch(asked)
        for slate, answer in zip(asked, answers, strict=True):
            if [j.job_id for j in answer] != list(slate.job_ids):
                raise JudgeError(f"the judge answered other jobs than those asked for {slate.applicant_id!r}")
        rewards, abstained, errors = {}, {}, {}
        for (i, jobs), answer in zip(slates.items(), answers, strict=True):
            predicted = self.model.mean[i, jobs].tolist()
            self.judged.add(i, jobs, answer)
            known = [(j, p, a.reward) for j, p, a in zip(jobs, predicted, answer, strict=True) if a.reward is not None]
            w = float(weight[i])
            rewards[i] = [w * float(self._cosines[i, j]) + (1.0 - w) * reward for j, _, reward in known]
            errors[i] = [(p - reward) ** 2 for _, p, reward in known]
            abstained[i] = len(jobs) - len(known)
            self.cumulative[i] += sum(rewards[i])
        return rewards, abstained, errors

    def _keep_cosines(self, agent: int, jobs: list[int], cosines: torch.Tensor) -> None:
        start = int(self.judged.counts[agent])
        self.judged.jobs[agent, start : start + len(jobs)] = torch.tensor(jobs, device=self.device)
        self.judged.rewards[agent, start : start + len(jobs)] = cosines
        self.judged.counts[agent] = start + len(jobs)

    def _expected_rewards(self) -> torch.Tensor:
        """Reward of every job under the strategy as the model expects it now, `[agents, n_jobs]`."""
        weight = self.strategy.cosine_weight(self.judged.counts)[:, None]
        return self.strategy.blend(self._cosines, self.model.mean, weight)

    def _learn(self) -> torch.Tensor | None:
        """Direct updates on judged pairs with believed rewards. Returns the mean loss `[agents]`."""
        n = self.judged.longest
        if n == 0 or self.config.direct_updates == 0:
            return None
        jobs, valid = self.judged.jobs[:, :n], self.judged.valid().float()
        weight = self.strategy.cosine_weight(self.judged.counts)[:, None]
        believed = self.model.believed if self.strategy.needs_judge else self.judged.rewards[:, :n]
        rewards = self.strategy.blend(self._cosines.gather(1, jobs), believed, weight)
        total = torch.zeros(len(self.applicant_ids), device=self.device)
        for _ in range(self.config.direct_updates):
            if n > self.config.batch_size:
                order = torch.stack([torch.rand(n, generator=g) for g in self.generators]).to(self.device)
                slots = torch.topk(order * valid, self.config.batch_size, dim=1).indices
                total += self.q.update(jobs.gather(1, slots), rewards.gather(1, slots), valid.gather(1, slots))
            else:
                total += self.q.update(jobs, rewards, valid)
        return total / self.config.direct_updates

    def _plan(self, updates: int) -> torch.Tensor | None:
        """Planning updates with the model's rewards. Returns the mean loss `[agents]`."""
        if updates == 0 or (self.config.planning == "replay" and self.judged.longest == 0):
            return None
        expected = self._expected_rewards()
        total = torch.zeros(len(self.applicant_ids), device=self.device)
        for _ in range(updates):
            jobs, weights = self.planning_jobs(expected)
            total += self.q.update(jobs, expected.gather(1, jobs), weights)
        return total / updates

    def planning_jobs(self, expected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Jobs to ask the world model about, `[agents, batch]`, and their weights.

        The whole catalogue when it fits; else half of the batch where reward plus uncertainty is highest (prioritised
        as in Moore & Atkeson 1993), half at random, so that no job is forgotten.
        """
        agents = len(self.applicant_ids)
        if self.config.planning == "replay":
            valid = self.judged.valid().float()
            return self.judged.jobs[:, : self.judged.longest], valid
        batch = self.config.planning_batch
        if self._n_jobs <= batch:
            jobs = torch.arange(self._n_jobs, device=self.device)[None].expand(agents, -1)
        else:
            best = torch.topk(expected + self.model.deviation, batch // 2, dim=1).indices
            draws = [torch.randint(0, self._n_jobs, (batch - batch // 2,), generator=g) for g in self.generators]
            jobs = torch.cat([best, torch.stack(draws).to(self.device)], dim=1)
        return jobs, torch.ones(jobs.shape, device=self.device)

    def _stop_broken(self, direct: torch.Tensor | None, planned: torch.Tensor | None) -> None:
        """An agent whose loss is not finite stops with its name and step; the others are separate and go on."""
        for kind, losses in (("direct", direct), ("planning", planned)):
            if losses is None:
                continue
            for i in torch.nonzero(~torch.isfinite(losses)).flatten().tolist():
                applicant = self.applicant_ids[i]
                jobs = self.judged.jobs[i, : int(self.judged.counts[i])][-self.config.slate_size :].tolist()
                batch = ", ".join(self.cache.job_ids[j] for j in jobs)
                self.failures.setdefault(
                    applicant, f"applicant {applicant!r}, round {self.round}: {kind} loss is not finite after {batch}"
                )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
