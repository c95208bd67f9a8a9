"""How far a block's judged jobs are from all jobs of their agents, which the process models are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dynaq.agent.candidate_pool import CandidatePool
from dynaq.agent.job_pool import Change, JobPool
from dynaq.agent.replay_buffer import JudgedPairs


class JudgedDistances:
    """Squared distances of a block's judged jobs to all jobs of their agents.

    slots: per slot of the replay `[agents, size]`. Slots are append-only: only newly filled ones are computed.
    """

    def __init__(self, pool: JobPool) -> None:
        self._pool = pool
        self.slots: list[torch.Tensor] = []
        self._seen = torch.zeros(len(pool.applicant_ids), dtype=torch.int64, device=pool.cosines.device)

    def follow(self, judged: JudgedPairs) -> None:
        """Compute what was judged since the last call."""
        n = judged.longest
        filled = judged.counts > self._seen
        # After an abstention an agent fills a slot later than the others do, so that slot is recomputed.
        first = int(self._seen[filled].min()) if bool(filled.any()) else n
        self.slots[first:] = self._pool.distances(judged.jobs[:, first:n])
        self._seen = judged.counts.clone()
        self._clear_empty(judged)

    def exchanged(self, changes: Sequence[Change], judged: JudgedPairs) -> None:
        """Compute the distances to the jobs that some places hold now."""
        assert isinstance(self._pool, CandidatePool)
        for agent, places in changes:
            found = self._pool.distances_at(agent, places, judged.jobs[agent, : len(self.slots)])
            for slot, distances in enumerate(self.slots):
                distances[agent, torch.from_numpy(places)] = found[:, slot]
        self._clear_empty(judged)

    def _clear_empty(self, judged: JudgedPairs) -> None:
        """Empty slots are about place 0, whose job may be exchanged: what was saved and loaded would differ."""
        if isinstance(self._pool, CandidatePool):
            for slot, distances in enumerate(self.slots):
                distances[judged.counts <= slot] = 0.0
