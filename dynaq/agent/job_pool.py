"""The jobs that a block's agents live on: the whole catalogue, or candidates (`dynaq.agent.candidate_pool`).

Everything of an agent is over the places of its pool, `[agents, size]`: features, world model, planning, Q. Over the
whole catalogue a place is the job's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from dynaq.agent.pair_features import job_embedding, log_rank, scaled_cosines, similarity_features
from dynaq.agent.pair_inputs import PairInputs, make_inputs
from dynaq.tensor_cache import TensorCache

Rows = npt.NDArray[np.int64]
Change = tuple[int, Rows]  # an agent, and its places that hold other jobs


class JobPool(Protocol):
    """The jobs of each agent of a block.

    Attributes:
        size: number of places per agent.
        cosines: `[agents, size]`, scaled to [0, 1].
        mean_cosine: `[agents, 1]`, over the catalogue.
    """

    cache: TensorCache
    applicant_ids: Sequence[str]
    size: int
    cosines: torch.Tensor

    @property
    def mean_cosine(self) -> torch.Tensor:
        """Mean of an applicant's cosines over the catalogue, `[agents, 1]`."""
        ...

    def rows(self, agents: npt.ArrayLike, places: npt.ArrayLike) -> Rows:
        """Rows of the catalogue at some places of some agents, element by element."""
        ...

    def inputs(self, representation: str) -> PairInputs:
        """The networks' inputs that `DynaQConfig.representation` names."""
        ...

    def similarity_features(self, agent: int | None = None, places: Rows | None = None) -> torch.Tensor:
        """`dynaq.agent.pair_features.similarity_features` of every place `[agents, size, width]`, or of some of an
        agent's `[places, width]`."""
        ...

    def distances(self, jobs: torch.Tensor) -> list[torch.Tensor]:
        """Squared distance of jobs at places `[agents, slots]` to all of their agent's: per slot `[agents, size]`."""
        ...

    def embedding(self, rows: Rows) -> torch.Tensor:
        """`dynaq.agent.pair_features.job_embedding` of rows of the catalogue."""
        ...

    def log_rank(self, scores: torch.Tensor) -> torch.Tensor:
        """`dynaq.agent.pair_features.log_rank` in the catalogue, of scores `[agents, size]`."""
        ...


class WholeCatalogue(JobPool):
    """A `JobPool` in which every agent has every job."""

    def __init__(self, cache: TensorCache, applicant_ids: Sequence[str], device: torch.device) -> None:
        self.cache, self.applicant_ids, self._device = cache, applicant_ids, device
        self.size = cache.n_jobs
        self.cosines = scaled_cosines(cache, applicant_ids).to(device)
        self._embedding: torch.Tensor | None = None
        self._norms = self.cosines.new_empty(0)

    @property
    def mean_cosine(self) -> torch.Tensor:
        return self.cosines.mean(1, keepdim=True)

    def rows(self, agents: npt.ArrayLike, places: npt.ArrayLike) -> Rows:
        return np.asarray(places, np.int64)

    def inputs(self, representation: str) -> PairInputs:
        return make_inputs(self.cache, self.applicant_ids, representation, self._device)

    def similarity_features(self, agent: int | None = None, places: Rows | None = None) -> torch.Tensor:
        features = similarity_features(self.cache, self.applicant_ids, self.cosines).to(self._device)
        return features if agent is None else features[agent, places]

    @property
    def _all(self) -> torch.Tensor:
        if self._embedding is None:
            self._embedding = job_embedding(self.cache).to(self._device)
            self._norms = self._embedding.square().sum(1)
        return self._embedding

    def distances(self, jobs: torch.Tensor) -> list[torch.Tensor]:
        embedding, found = self._all, []
        for slot in range(jobs.shape[1]):
            rows = embedding[jobs[:, slot]]
            squared = self._norms + rows.square().sum(1, keepdim=True) - 2.0 * rows @ embedding.T
            found.append(squared.clamp_min(0.0))
        return found

    def embedding(self, rows: Rows) -> torch.Tensor:
        return self._all[torch.from_numpy(rows).to(self._device)]

    def log_rank(self, scores: torch.Tensor) -> torch.Tensor:
        return log_rank(scores)
