"""Q of a block of agents and its updates.

    Q(s, a) = V(s) + f(s, a; θ) + T(s, a)
    y       = r + γ · max over candidate actions a' of Q(s', a'; θ⁻)          (Watkins 1989; Mnih et al. 2015)

f is a stacked network that generalises over jobs, T one learned value per job as in tabular Dyna-Q (Sutton 1990), V
the state's value (dueling, Wang et al. 2016). The state of an applicant does not change within a run, s' = s, so the
maximum is one number per agent between two target syncs: it is computed once over the whole catalogue, and V is that
number times γ, which leaves f and T the reward to explain.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from dynaq.config import DynaQConfig
from dynaq.inputs import PairInputs, over_catalogue
from dynaq.networks import StackedMLP


def bellman_target(reward: torch.Tensor, next_value: torch.Tensor, gamma: float) -> torch.Tensor:
    """y = r + γ·next_value. reward `[agents, batch]`; next_value `[agents, 1]`, or `[agents, batch]` for `same`."""
    return reward + gamma * next_value


class QFunction:
    """Stacked Q, its target copy and its optimizer.

    Args:
        inputs: features of pairs, of `agents` agents.
        generators: one per agent, for initial weights and dropout.
    """

    def __init__(
        self, inputs: PairInputs, generators: list[torch.Generator], config: DynaQConfig, device: torch.device
    ) -> None:
        self._inputs, self._config, self._device = inputs, config, device
        agents = len(generators)
        sizes = [inputs.width, *config.q_hidden]
        self.network = StackedMLP(sizes, generators, config.dropout).to(device)
        self.target_network = StackedMLP(sizes, [torch.Generator() for _ in generators]).to(device).eval()
        self.target_network.requires_grad_(False)
        self.table = torch.zeros(agents, inputs.n_jobs, device=device)
        self.value = torch.zeros(agents, 1, device=device)
        self.target_table = self.table.clone()
        self.target_value = self.value.clone()
        self.next_max = torch.zeros(agents, 1, device=device)  # max over the catalogue of the target's Q
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate, fused=True)
        self.sync(tau=1.0)

    def values(self) -> torch.Tensor:
        """Q of every job, `[agents, n_jobs]`."""
        self.network.eval()
        out = over_catalogue(self._inputs, len(self.table), self.network, self._device) + self.table + self.value
        self.network.train()
        return out

    def target_values(self) -> torch.Tensor:
        """Q⁻ of every job, `[agents, n_jobs]`."""
        network = over_catalogue(self._inputs, len(self.table), self.target_network, self._device)
        return network + self.target_table + self.target_value

    @torch.no_grad()
    def sync(self, tau: float | None = None) -> None:
        """θ⁻ ← τθ + (1-τ)θ⁻, then the maximum that holds until the next sync."""
        tau = self._config.tau if tau is None else tau
        for target, source in zip(self.target_network.parameters(), self.network.parameters(), strict=True):
            target.lerp_(source, tau)
        self.target_table.lerp_(self.table, tau)
        self.target_value.lerp_(self.value, tau)
        values = self.target_values()
        if self._config.double_q:
            self.next_max = values.gather(1, self.values().argmax(1, keepdim=True))
        else:
            self.next_max = values.max(1, keepdim=True).values
        if self._config.dueling:
            self.value = self._config.gamma * self.next_max

    @torch.no_grad()
    def start_from(self, rewards: torch.Tensor) -> None:
        """Put the state's value at its fixed point for known rewards `[agents, n_jobs]`: γ·max r / (1 - γ)."""
        if self._config.dueling:
            best = rewards.max(1, keepdim=True).values
            self.next_max = best / (1.0 - self._config.gamma)
            self.value = self._config.gamma * self.next_max

    def update(self, jobs: torch.Tensor, rewards: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """One gradient step and one tabular step on the transitions (s, a, r, s).

        jobs, rewards, weights `[agents, batch]`, weight 0 for padding. Returns the loss `[agents]` before the step.
        """
        next_value = self._next_value(jobs)
        target = bellman_target(rewards, next_value, self._config.gamma)
        predicted = self.network(self._inputs.take(jobs)) + (self.table.gather(1, jobs) + self.value)
        each = (
            functional.huber_loss(predicted, target, reduction="none")
            if self._config.loss == "huber"
            else (predicted - target).square()
        )
        loss = (each * weights).sum(1) / weights.sum(1).clamp_min(1.0)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.sum())  # agents' losses are summed; each touches its own parameters only
        self.optimizer.step()
        if self._config.tabular:
            with torch.no_grad():
                error = (target - predicted) * weights
                self.table.scatter_add_(1, jobs, self._config.tabular_rate * error)
        return loss.detach()

    def _next_value(self, jobs: torch.Tensor) -> torch.Tensor:
        if self._config.target_action == "max":
            return self.next_max
        with torch.no_grad():
            own = self.target_network(self._inputs.take(jobs))
            same: torch.Tensor = own + self.target_table.gather(1, jobs) + self.target_value
            return same

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors of a checkpoint."""
        tensors = {f"q.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"q_target.{name}": tensor for name, tensor in self.target_network.state_dict().items()}
        for i, parameter in enumerate(self.network.parameters()):
            for name, tensor in self.optimizer.state.get(parameter, {}).items():
                tensors[f"adam.{i}.{name}"] = tensor
        for name in ("table", "value", "target_table", "target_value", "next_max"):
            tensors[name] = getattr(self, name)
        return tensors

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.network.load_state_dict({k[len("q.") :]: v for k, v in state.items() if k.startswith("q.")})
        prefix = "q_target."
        self.target_network.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
        for i, parameter in enumerate(self.network.parameters()):
            prefix = f"adam.{i}."
            slots = {k[len(prefix) :]: v.to(self._device) for k, v in state.items() if k.startswith(prefix)}
            if slots:
                self.optimizer.state[parameter] = slots
        for name in ("table", "value", "target_table", "target_value", "next_max"):
            setattr(self, name, state[name].to(self._device).clone())
