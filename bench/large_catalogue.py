"""A large catalogue of real embeddings: jobs of given markets, and as many made from them as are wanted.

A made job lies between two jobs of the markets, with noise: each of its blocks is the unit vector of
(1 - t)·a + t·b + e with t uniform in [0.1, 0.5] and e a Gaussian vector of norm about NOISE. It is relevant to nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dynaq.stores import FloatArray
from dynaq.tensor_cache import TensorCache
from dynaq.tensor_cache_loading import pack, sides

NOISE = 0.35
ROWS = 20_000  # made at once


def padded(market: TensorCache, others: Sequence[TensorCache], jobs: int, file: Path | None = None) -> TensorCache:
    """The market's applicants and jobs, and behind them, by id, made jobs until there are `jobs`.

    others: further markets in the same layout, whose jobs are made into others as well. file: maps the vectors from
    there instead of keeping them in memory.
    """
    manifest, arrays = market.to_arrays()
    layout = market.layout
    real = np.concatenate([market.jobs, *(other.jobs for other in others)])
    shape = (jobs, layout.action_dim)
    vectors = np.memmap(file, np.float32, "w+", shape=shape) if file else np.empty(shape, np.float32)
    own = min(jobs, len(market.jobs))
    vectors[:own] = market.jobs[:own]
    rng = np.random.default_rng(0)
    for start in range(own, jobs, ROWS):
        part = slice(start, min(start + ROWS, jobs))
        vectors[part] = _made(real, part.stop - part.start, layout.block_dim, rng)
    names = [*market.job_ids[:own], *(f"~{row:07d}" for row in range(own, jobs))]  # "~" sorts behind every other id
    compared = [layout.action.index(block) for block in sides(layout)[0].compared]
    norms = np.empty((jobs, len(compared)), np.float32)
    for start in range(0, jobs, ROWS):
        blocks = np.asarray(vectors[start : start + ROWS]).reshape(-1, len(layout.action), layout.block_dim)
        norms[start : start + ROWS] = np.linalg.norm(blocks[:, compared], axis=2)
    hashes = np.zeros(jobs, arrays["job_hashes"].dtype)
    made = {"jobs": vectors, "job_norms": norms, "job_hashes": hashes, **pack(names, "job_id")}
    return TensorCache.from_arrays(manifest, dict(arrays) | made)


def _made(real: npt.NDArray[np.float32], count: int, block_dim: int, rng: np.random.Generator) -> FloatArray:
    a, b = real[rng.integers(0, len(real), (2, count))]
    t = rng.uniform(0.1, 0.5, (count, 1)).astype(np.float32)
    noise = rng.standard_normal((count, real.shape[1]), np.float32)
    mixed = (1 - t) * a + t * b + np.float32(NOISE / block_dim**0.5) * noise
    blocks = mixed.reshape(count, -1, block_dim)
    there = np.linalg.norm(a.reshape(blocks.shape), axis=2, keepdims=True) > 0  # a missing block stays missing
    blocks = there * blocks / np.linalg.norm(blocks, axis=2, keepdims=True)
    made: FloatArray = blocks.reshape(count, -1).astype(np.float32)
    return made
