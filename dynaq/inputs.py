"""What a stacked network reads: a pair's features, fetched for chosen jobs or for the whole catalogue in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch

CATALOGUE_CHUNK = 4096


class PairInputs(Protocol):
    """Features of the pairs of a block."""

    width: int
    n_jobs: int

    def take(self, jobs: torch.Tensor) -> torch.Tensor:
        """jobs `[agents, batch]` int64 → `[agents, batch, width]`."""
        ...


class InteractionInputs:
    """Similarities of applicant and job, computed once per block."""

    def __init__(self, features: torch.Tensor) -> None:
        self._features = features
        self.n_jobs, self.width = features.shape[1], features.shape[2]

    def take(self, jobs: torch.Tensor) -> torch.Tensor:
        return self._features.gather(1, jobs[..., None].expand(-1, -1, self.width))


class RawInputs:
    """State and action concatenated, as the textbook agent reads them."""

    def __init__(self, states: torch.Tensor, actions: torch.Tensor) -> None:
        self._states, self._actions = states, actions
        self.n_jobs, self.width = len(actions), states.shape[1] + actions.shape[1]

    def take(self, jobs: torch.Tensor) -> torch.Tensor:
        states = self._states[:, None].expand(-1, jobs.shape[1], -1)
        return torch.cat([states, self._actions[jobs]], dim=-1)


def over_catalogue(
    inputs: PairInputs, agents: int, network: Callable[[torch.Tensor], torch.Tensor], device: torch.device
) -> torch.Tensor:
    """The network's value of every job, `[agents, n_jobs]`, without gradients, in pieces of the catalogue."""
    with torch.no_grad():
        return torch.cat([network(inputs.take(jobs)) for jobs in _pieces(inputs.n_jobs, agents, device)], dim=1)


def _pieces(n_jobs: int, agents: int, device: torch.device) -> Iterator[torch.Tensor]:
    for start in range(0, n_jobs, CATALOGUE_CHUNK):
        piece = torch.arange(start, min(start + CATALOGUE_CHUNK, n_jobs), device=device)
        yield piece[None].expand(agents, -1)
