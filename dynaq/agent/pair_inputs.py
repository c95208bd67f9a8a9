"""Inputs of a stacked network: an agent's state and the features of its actions, for some jobs or the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from dynaq.agent.pair_features import pair_features, raw_features
from dynaq.tensor_cache import TensorCache

CATALOGUE_BYTES = 1 << 26  # of inputs held at once


class PairInputs(Protocol):
    """Features of the pairs of a block."""

    state: torch.Tensor  # [agents, 1, state_width]
    width: int
    n_jobs: int
    everything: torch.Tensor  # [agents, n_jobs], every job in order; `take` recognises this object and copies nothing

    def take(self, jobs: torch.Tensor) -> torch.Tensor:
        """jobs `[agents, batch]` int64 → `[agents, batch, width]`."""
        ...

    def piece(self, start: int, end: int) -> torch.Tensor:
        """Features of a range of the catalogue, `[agents, end - start, width]`."""
        ...


class InteractionInputs:
    """Similarities of applicant and job, computed once per block; they already contain the state."""

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features
        self.n_jobs, self.width = features.shape[1], features.shape[2]
        self.state = features.new_empty(len(features), 1, 0)
        self.everything = _everything(self.state, self.n_jobs)

    def take(self, jobs: torch.Tensor) -> torch.Tensor:
        """jobs `[agents, batch]` int64 → `[agents, batch, width]`."""
        if jobs is self.everything:
            return self.features
        return self.features.gather(1, jobs[..., None].expand(-1, -1, self.width))

    def piece(self, start: int, end: int) -> torch.Tensor:
        """`[agents, end - start, width]` of the jobs of a range, a view."""
        return self.features[:, start:end]


class RawInputs:
    """Unprocessed states and actions, the input of the textbook agent."""

    def __init__(self, states: torch.Tensor, actions: torch.Tensor) -> None:
        self.state, self._actions = states[:, None], actions
        self.n_jobs, self.width = actions.shape
        self.everything = _everything(self.state, self.n_jobs)

    def take(self, jobs: torch.Tensor) -> torch.Tensor:
        """jobs `[agents, batch]` int64 → `[agents, batch, action_dim]`."""
        if jobs is self.everything:
            return self.piece(0, self.n_jobs)
        return self._actions[jobs]

    def piece(self, start: int, end: int) -> torch.Tensor:
        """`[agents, end - start, action_dim]` of the jobs of a range, one view for all agents."""
        return self._actions[start:end].expand(len(self.state), -1, -1)


def _everything(state: torch.Tensor, n_jobs: int) -> torch.Tensor:
    return torch.arange(n_jobs, device=state.device)[None].expand(len(state), -1)


def make_inputs(
    cache: TensorCache, applicant_ids: Sequence[str], representation: str, device: torch.device
) -> PairInputs:
    """The inputs that `DynaQConfig.representation` names."""
    if representation == "interaction":
        return InteractionInputs(pair_features(cache, applicant_ids).to(device))
    states, actions = raw_features(cache, applicant_ids)
    return RawInputs(states.to(device), actions.to(device))


def over_catalogue(inputs: PairInputs, network: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The network's value of every job, `[agents, n_jobs]`, computed in pieces to bound memory."""
    step = max(1, CATALOGUE_BYTES // (4 * len(inputs.state) * inputs.width))
    starts = range(0, inputs.n_jobs, step)
    return torch.cat([network(inputs.piece(start, min(start + step, inputs.n_jobs))) for start in starts], dim=1)
