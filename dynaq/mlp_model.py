"""The textbook world model: a stacked network M(s, a; φ) fitted on judged rewards by gradient descent."""

from __future__ import annotations

import torch

from dynaq.config import DynaQConfig
from dynaq.inputs import PairInputs, over_catalogue
from dynaq.networks import StackedMLP
from dynaq.replay import JudgedPairs


class MLPWorldModel:
    """Predicts the reward of any job from its features; knows nothing of its own uncertainty.

    Attributes as `dynaq.world_model.BayesWorldModel`; `believed` is what the judge said.
    """

    noise = 0.0

    def __init__(
        self,
        inputs: PairInputs,
        prior_rewards: torch.Tensor,
        generators: list[torch.Generator],
        config: DynaQConfig,
        device: torch.device,
    ) -> None:
        self._inputs, self._config, self._device, self._generators = inputs, config, device, generators
        agents = len(generators)
        self.network = StackedMLP([inputs.width, *config.model_hidden], generators, config.dropout).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate, fused=True)
        self.believed = prior_rewards[:, :0]
        self.deviation = torch.zeros(agents, inputs.n_jobs, device=device)
        if config.warm_start:
            for _ in range(config.warm_start_updates):
                jobs = self._random(inputs.n_jobs)
                self._update(jobs, prior_rewards.gather(1, jobs))
        self.mean = self._predict()

    def _random(self, high: int) -> torch.Tensor:
        draws = [torch.randint(0, high, (self._config.batch_size,), generator=g) for g in self._generators]
        return torch.stack(draws).to(self._device)

    def _predict(self) -> torch.Tensor:
        self.network.eval()
        mean = over_catalogue(self._inputs, len(self._generators), self.network, self._device)
        self.network.train()
        return mean

    def _update(self, jobs: torch.Tensor, rewards: torch.Tensor) -> None:
        loss = (self.network(self._inputs.take(jobs)) - rewards).square().mean(1).sum()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()

    def observe(self, judged: JudgedPairs) -> None:
        """A few gradient steps on batches of the judged pairs of each agent."""
        n = judged.longest
        self.believed = judged.rewards[:, :n]
        if n == 0:
            return
        highest = judged.counts.clamp_min(1)
        for _ in range(self._config.model_updates):
            slots = self._random(1 << 30) % highest[:, None]
            self._update(judged.jobs.gather(1, slots), judged.rewards.gather(1, slots))
        self.mean = self._predict()

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors of a checkpoint."""
        tensors = {f"model.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for i, parameter in enumerate(self.network.parameters()):
            for name, tensor in self.optimizer.state.get(parameter, {}).items():
                tensors[f"model_adam.{i}.{name}"] = tensor
        return tensors

    def load_state(self, state: dict[str, torch.Tensor], judged: JudgedPairs) -> None:
        prefix = "model."
        self.network.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
        for i, parameter in enumerate(self.network.parameters()):
            prefix = f"model_adam.{i}."
            slots = {k[len(prefix) :]: v.to(self._device) for k, v in state.items() if k.startswith(prefix)}
            if slots:
                self.optimizer.state[parameter] = slots
        self.believed = judged.rewards[:, : judged.longest]
        self.mean = self._predict()
