"""Replay buffer of a block: the judged pairs of each agent, in the order in which they were judged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import torch

from dynaq.judging.judgement import LABELS, Judgement


class JudgedPairs:
    """Judged pairs of `agents` agents over `n_jobs` jobs, padded to the agent with the most.

    Attributes:
        jobs: `[agents, capacity]` int64 catalogue indices, 0 where empty.
        probabilities: `[agents, capacity, 4]` in the order of LABELS.
        rewards: `[agents, capacity]`, the judge's.
        counts: `[agents]` int64.
        given: `[agents]` int64, number of leading slots that hold what the applicant did, not a judge's answer.
        asked: `[agents, n_jobs]` bool, True for pairs judged, given, or abstained on in this run.
    """

    def __init__(self, agents: int, n_jobs: int, capacity: int, device: torch.device) -> None:
        self.jobs = torch.zeros(agents, capacity, dtype=torch.int64, device=device)
        self.probabilities = torch.zeros(agents, capacity, len(LABELS), device=device)
        self.rewards = torch.zeros(agents, capacity, device=device)
        self.counts = torch.zeros(agents, dtype=torch.int64, device=device)
        self.given = torch.zeros(agents, dtype=torch.int64, device=device)
        self.asked = torch.zeros(agents, n_jobs, dtype=torch.bool, device=device)

    @property
    def longest(self) -> int:
        """The largest number of pairs that any agent has."""
        return int(self.counts.max()) if len(self.counts) else 0

    def valid(self) -> torch.Tensor:
        """`[agents, longest]` bool, True where a slot holds a pair."""
        return self.filled()[:, : self.longest]

    def filled(self) -> torch.Tensor:
        """`[agents, capacity]` bool, like `valid` for all slots."""
        return torch.arange(self.jobs.shape[1], device=self.counts.device)[None] < self.counts[:, None]

    def real(self) -> torch.Tensor:
        """`[agents, longest]` bool, True where a slot holds what the applicant did."""
        return torch.arange(self.longest, device=self.counts.device)[None] < self.given[:, None]

    @property
    def spent(self) -> torch.Tensor:
        """`[agents]` int64, pairs that count against the budget."""
        return self.counts - self.given

    def give(self, agents: Sequence[int], jobs: Sequence[int], judgements: Sequence[Judgement]) -> None:
        """Keep what applicants did. Must come before anything that a judge said."""
        self.add(agents, jobs, judgements)
        self.given = self.counts.clone()

    def add(self, agents: Sequence[int], jobs: Sequence[int], judgements: Sequence[Judgement]) -> None:
        """Keep judged pairs and mark them as asked, one entry per pair; abstentions are only marked as asked."""
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
        """Write each pair into its agent's next slot, with one transfer to the device per array for the whole block."""
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

    def draw(self, batch: int, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Distinct slots of judged pairs `[agents, min(batch, capacity)]`, filled up with empty slots.

        Neither the shape nor an agent's random numbers depend on how many pairs other agents have.
        """
        filled = self.filled()
        agents, capacity = filled.shape
        if capacity <= batch:
            return torch.arange(capacity, device=filled.device)[None].expand(agents, -1)
        order = torch.stack([torch.rand(capacity, generator=g) for g in generators]).to(filled.device)
        return torch.topk(order * filled, batch, dim=1).indices

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors of a checkpoint."""
        return {
            "judged.jobs": self.jobs,
            "judged.probabilities": self.probabilities,
            "judged.rewards": self.rewards,
            "judged.counts": self.counts,
            "judged.given": self.given,
            "judged.asked": self.asked,
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what `state` returned, slots included. Checkpoints without `judged.given` hold judged pairs only."""
        device = self.jobs.device
        for name in self.state():
            if name in state:
                setattr(self, name.removeprefix("judged."), state[name].to(device, copy=True))


def first_of_each(
    judgements: Iterable[Judgement],
    applicants: Sequence[str],
    in_catalogue: Callable[[str], bool],
    limit: int,
    known: Sequence[Collection[str]] | None = None,
) -> list[list[Judgement]]:
    """Per applicant, the first judgement of each of at most `limit` jobs.

    Abstentions, other applicants, jobs outside the catalogue, and jobs in the applicant's entry of `known` are ignored.
    """
    row = {applicant_id: i for i, applicant_id in enumerate(applicants)}
    first: list[dict[str, Judgement]] = [{} for _ in row]
    for judgement in judgements:
        i = row.get(judgement.applicant_id)
        if i is None or judgement.abstained or not in_catalogue(judgement.job_id):
            continue
        if len(first[i]) < limit and not (known and judgement.job_id in known[i]):
            first[i].setdefault(judgement.job_id, judgement)
    return [list(own.values()) for own in first]
