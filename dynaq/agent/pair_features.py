"""The networks' features of a pair, and the similarity of two jobs.

A pair is described by the cosines of every state block with every action block, each also standardised and ranked over
the catalogue for that applicant: how a job compares with the rest matters more than its bare cosine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from dynaq.layout import JOB_BLOCK_WEIGHTS
from dynaq.tensor_cache import TensorCache

STANDARDISED_SCALE = 0.3


def state_blocks(cache: TensorCache, applicant_ids: Sequence[str]) -> torch.Tensor:
    """`[applicants, state_blocks, block_dim]`, each of norm one, or zeros where it is missing."""
    rows = [cache.applicant_index(applicant_id) for applicant_id in applicant_ids]
    return _unit_blocks(cache.applicants[rows], cache.layout.block_dim)


def action_blocks(cache: TensorCache, rows: npt.NDArray[np.int64] | None = None) -> torch.Tensor:
    """`[n_jobs, action_blocks, block_dim]` of all jobs or of some rows, each of norm one, or zeros where missing."""
    return _unit_blocks(cache.jobs if rows is None else cache.jobs[rows], cache.layout.block_dim)


def _unit_blocks(vectors: np.ndarray, block_dim: int) -> torch.Tensor:
    """[n, blocks·block_dim] → [n, blocks, block_dim] float32 with unit norm; zero blocks stay zero."""
    blocks = torch.from_numpy(np.array(vectors, dtype=np.float32, copy=True)).view(len(vectors), -1, block_dim)
    unit: torch.Tensor = blocks / blocks.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return unit


def _block_cosines(cache: TensorCache, applicant_ids: Sequence[str]) -> torch.Tensor:
    """`[applicants, n_jobs, state_blocks·action_blocks]`."""
    states, actions = state_blocks(cache, applicant_ids), action_blocks(cache)
    return torch.einsum("asd,jbd->ajsb", states, actions).flatten(2)


def pair_features(cache: TensorCache, applicant_ids: Sequence[str]) -> torch.Tensor:
    """`[applicants, n_jobs, 3·state_blocks·action_blocks]`: block cosines, the same standardised per applicant, and
    their relative log-rank in (0, 1], smallest for the best job."""
    cosines = _block_cosines(cache, applicant_ids)
    centred = cosines - cosines.mean(1, keepdim=True)
    spread = cosines.std(1, keepdim=True, unbiased=False).clamp_min(1e-3)
    return torch.cat([cosines, STANDARDISED_SCALE * centred / spread, log_rank(cosines)], dim=-1)


def log_rank(scores: torch.Tensor) -> torch.Tensor:
    """log(1 + rank) / log(1 + n) over the second axis, rank 1 for the highest. `[a, n, ...]` → the same shape."""
    n = scores.shape[1]
    ranks = torch.argsort(torch.argsort(scores, dim=1, descending=True, stable=True), dim=1) + 1
    return torch.log1p(ranks.float()) / math.log1p(n)


def raw_features(cache: TensorCache, applicant_ids: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """States `[applicants, state_dim]` and actions `[n_jobs, action_dim]`, to be concatenated pair by pair."""
    rows = [cache.applicant_index(applicant_id) for applicant_id in applicant_ids]
    states = torch.from_numpy(np.array(cache.applicants[rows], dtype=np.float32, copy=True))
    actions = torch.from_numpy(np.array(cache.jobs, dtype=np.float32, copy=True))
    return states, actions


def scaled_cosines(cache: TensorCache, applicant_ids: Sequence[str]) -> torch.Tensor:
    """(c + 1) / 2 of every pair, `[applicants, n_jobs]` in [0, 1]."""
    rows = [np.asarray(cache.calculate_cosine_similarities(applicant_id)) for applicant_id in applicant_ids]
    return (torch.from_numpy(np.stack(rows).astype(np.float32)) + 1.0) / 2.0


def job_embedding(cache: TensorCache) -> torch.Tensor:
    """`[n_jobs, d]`: unit blocks scaled so that squared distances are the weighted sum of the blocks' distances."""
    layout = cache.layout
    actions = action_blocks(cache)
    parts = [
        weight**0.5 * actions[:, layout.action.index(block)]
        for block, weight in JOB_BLOCK_WEIGHTS.items()
        if block in layout.action
    ]
    return torch.cat(parts, dim=1)


def similarity_features(cache: TensorCache, applicant_ids: Sequence[str], cosines: torch.Tensor) -> torch.Tensor:
    """`[applicants, n_jobs, 2 + blocks]`: the layout's cosine, 1, and each block cosine, standardised by applicant."""
    every = torch.cat([cosines.cpu()[..., None], _block_cosines(cache, applicant_ids)], dim=-1)
    spread = every.std(1, keepdim=True, unbiased=False).clamp_min(1e-6)
    standardised = (every - every.mean(1, keepdim=True)) / spread
    return torch.cat([standardised[..., :1], torch.ones_like(standardised[..., :1]), standardised[..., 1:]], dim=-1)
