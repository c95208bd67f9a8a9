"""The textbook world model: a stacked network M(s, a; φ) fitted on judged rewards by gradient descent."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dynaq.agent.config import DynaQConfig
from dynaq.agent.job_pool import Change
from dynaq.agent.judge_table import Answers, JudgeTable
from dynaq.agent.pair_inputs import PairInputs, over_catalogue
from dynaq.agent.replay_buffer import JudgedPairs
from dynaq.agent.stacked_mlp import StackedMLP


class MLPWorldModel:
    """Predicts the reward of any job from its features, without an estimate of its own uncertainty.

    Attributes as `dynaq.agent.bayes_world_model.BayesWorldModel`; `believed` is what the judge said.
    """

    def __init__(
        self, inputs: PairInputs, prior_rewards: torch.Tensor, generators: list[torch.Generator], config: DynaQConfig
    ) -> None:
        self._inputs, self._config, self._generators = inputs, config, generators
        self._prior_rewards = prior_rewards
        self.table: JudgeTable | None = None
        self.text_rewards: torch.Tensor | None = None
        sizes = [inputs.width, *config.model_hidden]
        self.network = StackedMLP(inputs.state, sizes, generators, config.learning_rate, config.dropout)
        self.believed = prior_rewards[:, :0]
        self.deviation = torch.zeros_like(prior_rewards)
        if config.warm_start:
            for _ in range(config.warm_start_updates):
                jobs = self._random(inputs.n_jobs)
                self._update(jobs, prior_rewards.gather(1, jobs), torch.ones(jobs.shape, device=jobs.device))
        self.mean = self._predict()

    def _random(self, high: int) -> torch.Tensor:
        draws = [torch.randint(0, high, (self._config.batch_size,), generator=g) for g in self._generators]
        return torch.stack(draws).to(self._inputs.state.device)

    def _predict(self) -> torch.Tensor:
        return over_catalogue(self._inputs, self.network.predict)

    def _update(self, jobs: torch.Tensor, rewards: torch.Tensor, weights: torch.Tensor) -> None:
        error = self.network.forward(self._inputs.take(jobs)) - rewards
        self.network.descend(2.0 * error * weights / jobs.shape[1])

    def observe(self, judged: JudgedPairs) -> None:
        """A few gradient steps on batches of the judged pairs of each agent."""
        self.believed = judged.rewards[:, : judged.longest]
        counts = judged.counts[:, None]
        known = counts > 0
        # An agent without judgements keeps training on its prior: Adam's momentum would carry it away otherwise.
        weights = (known | self._config.warm_start).float()
        for _ in range(self._config.model_updates):
            drawn = self._random(1 << 30)
            slots, anywhere = drawn % counts.clamp_min(1), drawn % self._inputs.n_jobs
            jobs = torch.where(known, judged.jobs.gather(1, slots), anywhere)
            rewards = torch.where(known, judged.rewards.gather(1, slots), self._prior_rewards.gather(1, anywhere))
            self._update(jobs, rewards, weights)
        self.mean = self._predict()

    def exchanged(self, changes: Sequence[Change], judged: JudgedPairs) -> None:
        """Nothing: inputs and prior rewards are the pool's own, and follow it."""

    def anchor(self, gold: Answers | None) -> None:
        """Nothing: this model takes the judge as given."""

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors of a checkpoint."""
        return {f"model.{name}": tensor for name, tensor in self.network.state().items()}

    def load_state(self, state: dict[str, torch.Tensor], judged: JudgedPairs) -> None:
        """Restore what `state` returned."""
        self.network.load_state({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
        self.believed = judged.rewards[:, : judged.longest]
        self.mean = self._predict()
