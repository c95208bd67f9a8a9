"""Replay buffer of a block: the judged pairs of each agent, in the order in which they were judged."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dynaq.judge import Judgement


class JudgedPairs:
    """Judged pairs of `agents` agents over `n_jobs` jobs, padded to the agent with the most.

    Attributes:
        jobs: `[agents, capacity]` int64 catalogue indices, 0 where empty.
        probabilities: `[agents, capacity, 4]` in the order of LABELS.
        rewards: `[agents, capacity]` as the judge gave them.
        counts: `[agents]` int64.
        asked: `[agents, n_jobs]` bool; judged, or abstained in this run.
    """

    def __init__(self, agents: int, n_jobs: int, capacity: int, device: torch.device) -> None:
        self.jobs = torch.zeros(agents, capacity, dtype=torch.int64, device=device)
        self.probabilities = torch.zeros(agents, capacity, 4, device=device)
        self.rewards = torch.zeros(agents, capacity, device=device)
        self.counts = torch.zeros(agents, dtype=torch.int64, device=device)
        self.asked = torch.zeros(agents, n_jobs, dtype=torch.bool, device=device)

    @property
    def longest(self) -> int:
        """Pairs of the agent that has the most."""
        return int(self.counts.max()) if len(self.counts) else 0

    def valid(self) -> torch.Tensor:
        """`[agents, longest]` bool, True where a slot holds a pair."""
        return torch.arange(self.longest, device=self.counts.device)[None] < self.counts[:, None]

    def add(self, agent: int, jobs: Sequence[int], judgements: Sequence[Judgement]) -> list[float]:
        """Keep what was judged, remember what was asked. Returns the rewards kept; abstentions give none."""
        device = self.jobs.device
        self.asked[agent, torch.as_tensor(list(jobs), dtype=torch.int64, device=device)] = True
        kept = [(job, j) for job, j in zip(jobs, judgements, strict=True) if j.reward is not None]
        start = int(self.counts[agent])
        end = start + len(kept)
        rewards = [float(j.reward) for _, j in kept if j.reward is not None]
        if kept:
            self.jobs[agent, start:end] = torch.tensor([job for job, _ in kept], device=device)
            self.probabilities[agent, start:end] = torch.tensor([j.probabilities for _, j in kept], device=device)
            self.rewards[agent, start:end] = torch.tensor(rewards, device=device)
            self.counts[agent] = end
        return rewards

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors of a checkpoint."""
        return {
            "judged.jobs": self.jobs,
            "judged.probabilities": self.probabilities,
            "judged.rewards": self.rewards,
            "judged.counts": self.counts,
            "judged.asked": self.asked,
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
