"""Q of a block of agents and its updates.

    Q(s, a) = V(s) + f(s, a; θ) + T(s, a)
    y       = r + γ · max over all actions a' of Q(s', a'; θ⁻)                (Watkins 1989; Mnih et al. 2015)

f is a stacked network that generalises over jobs, T is one learned value per job as in tabular Dyna-Q (Sutton 1990),
and V is the state's value (dueling, Wang et al. 2016). An applicant's state does not change within a run (s' = s), so
the maximum is one number per agent between two target syncs. It is computed once over the whole catalogue, and V is γ
times that number, so that f and T only have to explain the reward.
"""

from __future__ import annotations

import torch

from dynaq.agent.config import DynaQConfig
from dynaq.agent.pair_inputs import PairInputs, over_catalogue
from dynaq.agent.stacked_mlp import StackedMLP

TENSORS = ("table", "value", "target_table", "target_value", "next_max")  # in a checkpoint, besides the networks


def bellman_target(reward: torch.Tensor, next_value: torch.Tensor, gamma: float) -> torch.Tensor:
    """y = r + γ·next_value. reward `[agents, batch]`; next_value `[agents, 1]`, or like reward for `same`."""
    return reward + gamma * next_value


class QFunction:
    """Stacked Q, the parameters of its target, and its updates.

    Args:
        inputs: features of the agents' pairs.
        generators: one per agent, for initial weights and dropout.
    """

    def __init__(self, inputs: PairInputs, generators: list[torch.Generator], config: DynaQConfig) -> None:
        self._inputs, self._config = inputs, config
        agents, device = len(generators), inputs.state.device
        sizes = [inputs.width, *config.q_hidden]
        self.network = StackedMLP(inputs.state, sizes, generators, config.learning_rate, config.dropout)
        self.target_parameters = self.network.copy_of_parameters()
        self.table = torch.zeros(agents, inputs.n_jobs, device=device)
        self.value = torch.zeros(agents, 1, device=device)
        self.target_table = self.table.clone()
        self.target_value = self.value.clone()
        self.next_max = torch.zeros(agents, 1, device=device)  # max over the catalogue of the target's Q
        self.sync(tau=1.0)

    def values(self) -> torch.Tensor:
        """Q of every job, `[agents, n_jobs]`."""
        return over_catalogue(self._inputs, self.network.predict) + self.table + self.value

    def target_values(self) -> torch.Tensor:
        """Q⁻ of every job, `[agents, n_jobs]`."""
        network = over_catalogue(self._inputs, lambda x: self.network.predict(x, self.target_parameters))
        return network + self.target_table + self.target_value

    def sync(self, tau: float | None = None) -> None:
        """θ⁻ ← τθ + (1-τ)θ⁻, then recompute the maximum, which stays fixed until the next sync."""
        tau = self._config.tau if tau is None else tau
        self.target_parameters.flat.lerp_(self.network.parameters.flat, tau)
        self.target_table.lerp_(self.table, tau)
        self.target_value.lerp_(self.value, tau)
        values = self.target_values()
        if self._config.double_q:  # van Hasselt et al. 2016
            self.next_max = values.gather(1, self.values().argmax(1, keepdim=True))
        else:
            self.next_max = values.max(1, keepdim=True).values
        if self._config.dueling:
            self.value = self._config.gamma * self.next_max

    def start_from(self, rewards: torch.Tensor) -> None:
        """Set the state's value to its fixed point for known rewards `[agents, n_jobs]`: γ·max r / (1 - γ)."""
        if self._config.dueling:
            best = rewards.max(1, keepdim=True).values
            self.next_max = best / (1.0 - self._config.gamma)
            self.value = self._config.gamma * self.next_max

    def update(self, jobs: torch.Tensor, rewards: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """One gradient step and one tabular step on the transitions (s, a, r, s).

        jobs, rewards, weights `[agents, batch]`, weight 0 for padding. Returns the loss `[agents]` before the step.
        """
        target = bellman_target(rewards, self._next_value(jobs), self._config.gamma)
        error = self.network.forward(self._inputs.take(jobs)) + self.table.gather(1, jobs) + self.value - target
        share = weights / weights.sum(1, keepdim=True).clamp_min(1.0)
        if self._config.loss == "huber":
            size = error.abs()
            each, slope = torch.where(size < 1.0, 0.5 * error.square(), size - 0.5), error.clamp(-1.0, 1.0)
        else:
            each, slope = error.square(), 2.0 * error
        self.network.descend(slope * share)
        if self._config.tabular:
            # A job that is repeated in the batch takes one averaged step: the sum of its steps could diverge.
            times = torch.zeros_like(self.table).scatter_add_(1, jobs, weights).gather(1, jobs).clamp_min(1.0)
            self.table.scatter_add_(1, jobs, -self._config.tabular_rate * error * weights / times)
        return (each * share).sum(1)

    def forget(self, agent: int, places: torch.Tensor) -> None:
        """Forget the learned values of jobs that an agent's places no longer hold."""
        self.table[agent, places] = 0.0
        self.target_table[agent, places] = 0.0

    def _next_value(self, jobs: torch.Tensor) -> torch.Tensor:
        if self._config.target_action == "max":
            return self.next_max
        own = self.network.predict(self._inputs.take(jobs), self.target_parameters)
        return own + self.target_table.gather(1, jobs) + self.target_value

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors of a checkpoint."""
        tensors = {f"q.{name}": tensor for name, tensor in self.network.state().items()}
        tensors["q_target.parameters"] = self.target_parameters.flat
        return tensors | {name: getattr(self, name) for name in TENSORS}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what `state` returned."""
        self.network.load_state({k.removeprefix("q."): v for k, v in state.items() if k.startswith("q.")})
        self.target_parameters.flat.copy_(state["q_target.parameters"])
        for name in TENSORS:
            setattr(self, name, state[name].to(self.table.device).clone())
