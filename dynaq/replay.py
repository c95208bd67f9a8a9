"""Replay buffer of a block: the judged pairs of each agent, in the order in which they were judged."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dynaq.judge import LABELS, Judgement


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
        self.probabilities = torch.zeros(agents, capacity, len(LABELS), device=device)
        self.rewards = torch.zeros(agents, capacity, device=device)
        self.counts = torch.zeros(agents, dtype=torch.int64, device=device)
        self.asked = torch.zeros(agents, n_jobs, dtype=torch.bool, device=device)

    @property
    def longest(self) -> int:
        """Pairs of the agent that has the most."""
        return int(self.counts.max()) if len(self.counts) else 0

    def valid(self) -> torch.Tensor:
        """`[agents, longest]` bool, True where a slot holds a pair."""
        return self.filled()[:, : self.longest]

    def filled(self) -> torch.Tensor:
        """The same for all slots, `[agents, capacity]`."""
        return torch.arange(self.jobs.shape[1], device=self.counts.device)[None] < self.counts[:, None]

    def add(self, agents: Sequence[int], jobs: Sequence[int], judgements: Sequence[Judgement]) -> None:
        """Keep what was judged, remember what was asked: one entry per pair. Abstentions are remembered only."""
        known = [i for i, judgement in enumerate(judgements) if judgement.reward is not None]
        self._remember(agents, jobs)
        self._append(
            [agents[i] for i in known],
            [jobs[i] for i in known],
            [judgements[i].reward for i in known],
            [judgements[i].probabilities for i in known],
        )

    def add_known(self, agents: Sequence[int], jobs: Sequence[int], rewards: Sequence[float]) -> None:
        """Keep pairs whose reward needs no judge."""
        self._remember(agents, jobs)
        self._append(agents, jobs, rewards, [(0.0,) * len(LABELS)] * len(jobs))

    def _remember(self, agents: Sequence[int], jobs: Sequence[int]) -> None:
        self.asked[torch.tensor(agents, dtype=torch.int64), torch.tensor(jobs, dtype=torch.int64)] = True

    def _append(
        self,
        agents: Sequence[int],
        jobs: Sequence[int],
        rewards: Sequence[float | None],
        probabilities: Sequence[tuple[float, ...]],
    ) -> None:
        """Each pair into its agent's next slot; one transfer to the device for the whole block."""
        if not agents:
            return
        counts: list[int] = self.counts.tolist()
        slots = []
        for agent in agents:
            slots.append(counts[agent])
            counts[agent] += 1
        device = self.jobs.device
        at = (torch.tensor(agents, device=device), torch.tensor(slots, device=device))
        self.jobs[at] = torch.tensor(jobs, device=device)
        self.rewards[at] = torch.tensor(rewards, device=device)
        self.probabilities[at] = torch.tensor(probabilities, device=device)
        self.counts.copy_(torch.tensor(counts))

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
        """What `state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
