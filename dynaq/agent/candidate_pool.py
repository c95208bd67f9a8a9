"""Some thousand candidates of a large catalogue for each agent of a block.

A `CandidatePool` gives each agent its own jobs, found in an approximate index (`dynaq.job_index`), and exchanges the
least promising ones after every round for neighbours of what was liked and of what the agent now ranks first, and for
random ones, so that no job is out of reach.

How a candidate compares with the rest of the catalogue is estimated from SAMPLED jobs, the same for all agents. Vectors
are read from the mapped cache whenever they are needed, in tiles; no agent keeps a copy. All products have the shape of
a whole tile, so that a job's numbers do not depend, in any bit, on the jobs that it is computed with: a resumed block
computes together what the interrupted one computed round by round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from dynaq.agent.job_pool import Change, JobPool, Rows
from dynaq.agent.pair_features import STANDARDISED_SCALE, log_rank, state_blocks
from dynaq.agent.pair_inputs import InteractionInputs, PairInputs
from dynaq.job_index import JobIndex
from dynaq.layout import JOB_BLOCK_WEIGHTS
from dynaq.tensor_cache import TensorCache

SAMPLED = 8192  # jobs that stand for the catalogue
RANDOM_SHARE = 8  # one in so many candidates is random at first
FETCHED_SHARE = 16  # one in so many is exchanged per round
EXPLORED_SHARE = 64  # for a random one
NEIGHBOURHOODS = 2  # newly liked jobs whose neighbours are fetched, per agent and round
FAVOURITES = 64  # best jobs from which an agent's taste is taken
MIN_NORM = 1e-12
TILE = 512  # jobs in one product
SLOTS = 8  # judged jobs in one product


class CandidatePool(JobPool):
    """A `JobPool` of `size` candidates per agent.

    Args:
        generators: one per agent, for its random candidates.
        candidates: `[agents, size]` rows of the catalogue to start with; None: found by the cosine, and random ones.

    Attributes:
        candidates: `[agents, size]`, the row at each place.
        features: `[agents, size, width]`, `dynaq.agent.pair_features.pair_features` of the candidates.
    """

    def __init__(
        self,
        cache: TensorCache,
        applicant_ids: Sequence[str],
        size: int,
        device: torch.device,
        generators: Sequence[torch.Generator],
        candidates: Rows | None = None,
    ) -> None:
        self.cache, self.applicant_ids, self.size, self._device = cache, applicant_ids, size, device
        self._generators, self._index = generators, JobIndex(cache)
        layout, agents = cache.layout, len(applicant_ids)
        self._states = state_blocks(cache, applicant_ids)
        self._actions = len(layout.action)
        compared = [block for block in JOB_BLOCK_WEIGHTS if block in layout.action]
        self._weights = torch.zeros(self._actions)
        for block in compared:
            self._weights[layout.action.index(block)] = JOB_BLOCK_WEIGHTS[block]
        self._fetched, self._explored = max(1, size // FETCHED_SHARE), max(1, size // EXPLORED_SHARE)
        self._sample_catalogue()
        self.candidates = np.empty((agents, size), np.int64)
        self.cosines = torch.empty(agents, size, device=device)
        self._inverse = torch.empty(agents, size, self._actions)  # 1 / norm of each block
        self.features = torch.empty(agents, size, 3 * self._blocks.shape[1], device=device)
        everywhere = np.arange(size)
        for agent, rows in enumerate(self._first() if candidates is None else candidates):
            self._put(agent, everywhere, rows)

    def _sample_catalogue(self) -> None:
        """What the pairs of each applicant look like over the catalogue."""
        n = self.cache.n_jobs
        rows = np.sort(np.random.default_rng(0).choice(n, min(SAMPLED, n), replace=False))
        sampled, _ = self._similarities(range(len(self.applicant_ids)), rows)
        self._cosine = torch.stack([cosines for cosines, _ in sampled])  # [agents, sampled]
        blocks = torch.stack([blocks.T for _, blocks in sampled])
        self._blocks = blocks.sort(dim=2).values  # [agents, pairs of blocks, sampled], rising

    def _first(self) -> Rows:
        """For each agent the jobs nearest by the cosine, and random ones, in the catalogue's order."""
        near = self.size - self.size // RANDOM_SHARE
        queries = np.stack([self._index.of_applicant(applicant_id) for applicant_id in self.applicant_ids])
        found = self._index.search(queries, near, everywhere=True)
        rows = np.empty((len(found), self.size), np.int64)
        for agent, own in enumerate(found):
            own = own[own >= 0]
            rows[agent] = np.sort(np.concatenate([own, self._random(agent, own, self.size - len(own))]))
        return rows

    def _random(self, agent: int, besides: Rows, count: int) -> Rows:
        """`count` distinct random rows that are not among `besides`."""
        jobs, generator = self.cache.n_jobs, self._generators[agent]
        fresh = _new(torch.randint(0, jobs, (4 * count,), generator=generator).numpy(), besides)
        if len(fresh) < count:  # most of the catalogue is taken
            fresh = _new(torch.randperm(jobs, generator=generator).numpy(), besides)
        return fresh[:count]

    def _put(self, agent: int, places: Rows, rows: Rows) -> None:
        """Let an agent's places hold other jobs."""
        ((cosines, blocks),), inverse = self._similarities([agent], rows)
        self.candidates[agent, places] = rows
        at = torch.from_numpy(places)
        self._inverse[agent, at] = inverse
        self.cosines[agent, at.to(self._device)] = ((cosines + 1.0) / 2.0).to(self._device)
        known = self._blocks[agent]
        spread, centred = known.std(1, unbiased=False).clamp_min(1e-3), blocks - known.mean(1)
        below = torch.searchsorted(known, blocks.T.contiguous(), right=True).T
        ranks = 1.0 + (known.shape[1] - below) * ((self.cache.n_jobs - 1) / known.shape[1])
        parts = [blocks, STANDARDISED_SCALE * centred / spread, torch.log1p(ranks) / math.log1p(self.cache.n_jobs)]
        self.features[agent, at.to(self._device)] = torch.cat(parts, dim=1).to(self._device)

    def _similarities(
        self, agents: Sequence[int], rows: Rows
    ) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
        """Per agent the layout's cosine `[rows]` and the cosines of all pairs of blocks `[rows, pairs]`.

        Second, 1 / norm of every block of the jobs, as `_products`.
        """
        states = [self._states[agent].T.expand(self._actions, -1, -1) for agent in agents]
        products, inverse = self._products(rows, states)
        assert inverse is not None
        # [rows, state blocks, action blocks]
        cosines = [(own * inverse[:, :, None]).transpose(1, 2) for own in products]
        return [(self._cosines(a, c, inverse), c.flatten(1)) for a, c in zip(agents, cosines, strict=True)], inverse

    def _cosines(self, agent: int, blocks: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        """The layout's cosine `[rows]`, from those of the blocks `[rows, state blocks, action blocks]`."""
        layout = self.cache.layout
        pairs = torch.stack([blocks[:, layout.state.index(s), layout.action.index(a)] for s, a in layout.pairs], dim=1)
        if not layout.joint:
            return pairs.mean(1)
        # The cosine of the compared blocks as one vector: each pair counts by the product of its norms.
        own = self.cache.applicants[self.cache.applicant_index(self.applicant_ids[agent])].astype(np.float32)
        state = torch.tensor([float(np.linalg.norm(own[layout.state_slice(s)])) for s, _ in layout.pairs])
        action = torch.stack([1.0 / inverse[:, layout.action.index(a)] for _, a in layout.pairs], dim=1)
        joint: torch.Tensor = (pairs * state * action).sum(1) / (state.norm() * action.norm(dim=1)).clamp_min(MIN_NORM)
        return joint

    def _products(
        self, rows: Rows, others: Sequence[torch.Tensor], norms: bool = True
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Inner products of the jobs' blocks with each of `others` `[action_blocks, block_dim, m]`: `[rows, …, m]`.

        Second, with `norms`, 1 / norm of each block `[rows, action_blocks]`, finite also where a block is missing.
        """
        layout = self.cache.layout
        products = [torch.empty(len(rows), self._actions, other.shape[2]) for other in others]
        inverse = torch.empty(len(rows), self._actions) if norms else None
        tile = np.zeros((TILE, layout.action_dim), np.float32)
        blocks = torch.from_numpy(tile).view(TILE, self._actions, layout.block_dim)
        for start in range(0, len(rows), TILE):
            part = rows[start : start + TILE]
            if self.cache.jobs.dtype == np.float32:
                np.take(self.cache.jobs, part, axis=0, out=tile[: len(part)], mode="clip")  # no copy in between
            else:
                tile[: len(part)] = self.cache.jobs[part]
            here = slice(start, start + len(part))
            if inverse is not None:
                inverse[here] = 1.0 / blocks.norm(dim=2)[: len(part)].clamp_min(MIN_NORM)
            for found, other in zip(products, others, strict=True):
                found[here] = torch.bmm(blocks.transpose(0, 1), other).transpose(0, 1)[: len(part)]
        return products, inverse

    @property
    def mean_cosine(self) -> torch.Tensor:
        return ((self._cosine.mean(1, keepdim=True) + 1.0) / 2.0).to(self._device)

    def rows(self, agents: npt.ArrayLike, places: npt.ArrayLike) -> Rows:
        found: Rows = self.candidates[np.asarray(agents), np.asarray(places)]
        return found

    def place(self, agent: int, row: int) -> int:
        """Where an agent's pool has a job. Raises IndexError when it has not."""
        return int(np.flatnonzero(self.candidates[agent] == row)[0])

    def inputs(self, representation: str) -> PairInputs:
        if representation == "interaction":
            return InteractionInputs(self.features)
        return _RawCandidates(self)

    def similarity_features(self, agent: int | None = None, places: Rows | None = None) -> torch.Tensor:
        if agent is None:
            everywhere = np.arange(self.size)
            return torch.stack([self.similarity_features(one, everywhere) for one in range(len(self.candidates))])
        at, sampled, cosine = torch.from_numpy(places), self._blocks[agent], self._cosine[agent]
        spread, mean = sampled.std(1, unbiased=False).clamp_min(1e-6), sampled.mean(1)
        blocks = (self.features[agent, at, : len(sampled)].cpu() - mean) / spread
        own = 2.0 * self.cosines[agent, at].cpu() - 1.0
        first = ((own - cosine.mean()) / cosine.std(unbiased=False).clamp_min(1e-6))[:, None]
        return torch.cat([first, torch.ones_like(first), blocks], dim=1).to(self._device)

    def distances(self, jobs: torch.Tensor) -> list[torch.Tensor]:
        everywhere = np.arange(self.size)
        own = [self._distances(agent, everywhere, jobs[agent]) for agent in range(len(jobs))]
        return list(torch.stack(own).permute(2, 0, 1).contiguous())

    def distances_at(self, agent: int, places: Rows, jobs: torch.Tensor) -> torch.Tensor:
        """As `distances`, of one agent's jobs at places `[slots]` to those at some of its places, `[places, slots]`."""
        return self._distances(agent, places, jobs)

    def _distances(self, agent: int, places: Rows, jobs: torch.Tensor) -> torch.Tensor:
        rows = self.candidates[agent, places]
        judged = self.candidates[agent, jobs.cpu().numpy()]
        if not len(judged):
            return torch.empty(len(rows), 0, device=self._device)
        inverse = self._inverse[agent, torch.from_numpy(places)]
        own = ((inverse < 0.1 / MIN_NORM) * self._weights).sum(1)[:, None]  # a missing block is at the origin
        # [slots, action_blocks, block_dim] each
        units = [self._unit(np.resize(judged[s : s + SLOTS], SLOTS)) for s in range(0, len(judged), SLOTS)]
        products, _ = self._products(rows, [unit.permute(1, 2, 0).contiguous() for unit in units], norms=False)
        found = []
        for unit, product in zip(units, products, strict=True):
            other = (unit.square().sum(2) * self._weights).sum(1)[None]
            inner = (product * (inverse * self._weights)[:, :, None]).sum(1)
            found.append((own + other - 2.0 * inner).clamp_min(0.0))
        return torch.cat(found, dim=1)[:, : len(judged)].to(self._device)

    def _unit(self, rows: Rows) -> torch.Tensor:
        """`[rows, action_blocks, block_dim]` of norm one, or zeros where a block is missing."""
        blocks = torch.from_numpy(self.cache.jobs[rows].astype(np.float32, copy=False)).view(
            len(rows), self._actions, -1
        )
        unit: torch.Tensor = blocks / blocks.norm(dim=2, keepdim=True).clamp_min(MIN_NORM)
        return unit

    def embedding(self, rows: Rows) -> torch.Tensor:
        return (self._unit(rows) * self._weights.sqrt()[:, None]).flatten(1).to(self._device)

    def log_rank(self, scores: torch.Tensor) -> torch.Tensor:
        return log_rank(scores) * (math.log1p(self.size) / math.log1p(self.cache.n_jobs))

    def exchange(
        self, agents: Sequence[int], liked: Sequence[Sequence[int]], scores: torch.Tensor, kept: torch.Tensor
    ) -> list[Change]:
        """Exchange the least promising candidates of some agents for new ones.

        Args:
            agents: whose.
            liked: for each of them, places of jobs that it has come to like, best first.
            scores: `[block's agents, size]`, what the agents now expect of each job.
            kept: `[block's agents, size]` bool, places that must not change.

        Returns the places that hold other jobs now.
        """
        queries, owner = [], []
        for agent, own in zip(agents, liked, strict=True):
            near = self.candidates[agent, list(own[:NEIGHBOURHOODS])]
            queries += [*self._index.of_jobs(near), self._taste(agent, scores[agent])]
            owner += [agent] * (len(near) + 1)
        found = self._index.search(np.stack(queries), self._fetched) if queries else np.empty((0, 0), np.int64)
        changed = []
        for agent in agents:
            mine = [rows for rows, of in zip(found, owner, strict=True) if of == agent]
            changed.append((agent, self._admit(agent, np.stack(mine, axis=1).reshape(-1), scores[agent], kept[agent])))
        return changed

    def _taste(self, agent: int, scores: torch.Tensor) -> npt.NDArray[np.float32]:
        """The query for jobs like those that the agent ranks first: its scores projected on their embedding."""
        best = torch.topk(scores, min(FAVOURITES, self.size))
        lead = (best.values - scores.mean()).cpu().numpy().astype(np.float32)
        query: npt.NDArray[np.float32] = lead @ self._index.of_jobs(self.candidates[agent, best.indices.cpu().numpy()])
        return query

    def _admit(self, agent: int, found: Rows, scores: torch.Tensor, kept: torch.Tensor) -> Rows:
        """Take in jobs that were found, nearest first, and random ones. Returns their places."""
        fresh = _new(found[found >= 0], self.candidates[agent])[: self._fetched - self._explored]
        taken = np.concatenate([self.candidates[agent], fresh])
        return self.bring(agent, np.concatenate([fresh, self._random(agent, taken, self._explored)]), scores, kept)

    def bring(self, agent: int, rows: Rows, scores: torch.Tensor, kept: torch.Tensor) -> Rows:
        """Put jobs that the agent lacks in place of its least promising ones, while there is room.

        Returns their places.
        """
        room = int((~kept).sum())
        rows = rows[:room]
        places = torch.topk(scores.masked_fill(kept, math.inf), len(rows), largest=False).indices.cpu().numpy()
        self._put(agent, places, rows)
        return places


def _new(rows: Rows, besides: Rows) -> Rows:
    """Those that are not among `besides`, each once, in their order."""
    fresh = rows[~np.isin(rows, besides)]
    return fresh[np.sort(np.unique(fresh, return_index=True)[1])]


class _RawCandidates:
    """Unprocessed states and actions of candidates, read from the cache whenever they are needed."""

    def __init__(self, pool: CandidatePool) -> None:
        self._pool = pool
        cache = pool.cache
        rows = [cache.applicant_index(applicant_id) for applicant_id in pool.applicant_ids]
        self.state = torch.from_numpy(cache.applicants[rows].astype(np.float32))[:, None].to(pool.cosines.device)
        self.n_jobs, self.width = pool.size, cache.layout.action_dim
        self.everything = torch.arange(pool.size, device=self.state.device)[None].expand(len(rows), -1)

    def take(self, jobs: torch.Tensor) -> torch.Tensor:
        """jobs `[agents, batch]` int64 → `[agents, batch, action_dim]`."""
        rows = np.take_along_axis(self._pool.candidates, jobs.cpu().numpy(), axis=1)
        return torch.from_numpy(self._pool.cache.jobs[rows].astype(np.float32, copy=False)).to(self.state.device)

    def piece(self, start: int, end: int) -> torch.Tensor:
        """`[agents, end - start, action_dim]` of a range of places."""
        return self.take(self.everything[:, start:end])
