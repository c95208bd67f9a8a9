"""A large catalogue of real embeddings: jobs of given markets, and as many made from them as are wanted.

A made job lies between two jobs of the markets, with noise: each of its blocks is the unit vector of
(1 - t)·a + t·b + e with t uniform in [0.1, 0.5] and e a Gaussian vector of norm about NOISE_NORM. It is as relevant as
a, as another posting of the same occupation is; jobs made from the other markets are relevant to nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dynaq.qrels import Qrels
from dynaq.stores import FloatArray
from dynaq.tensor_cache import TensorCache
from dynaq.tensor_cache_loading import pack, sides

Rows = npt.NDArray[np.int64]
NOISE_NORM = 0.35
MADE_ROWS = 20_000  # made at once


class PaddedRelevance:
    """The relevance of a padded market.

    qrels: of the market. job_ids: of the padded one. parents: row of the market that each job was made from, or is; -1
    for one of another market.
    """

    def __init__(self, qrels: Qrels, job_ids: Sequence[str], parents: Rows) -> None:
        self._qrels, self._job_ids, self._parents = qrels, job_ids, parents
        self.applicants = qrels.applicants

    @lru_cache(maxsize=64)  # noqa: B019 - lives as long as the benchmark
    def grades(self, applicant_id: str) -> dict[str, float]:
        """Job -> grade, of the jobs that are relevant to an applicant."""
        grades = self._qrels.grades(applicant_id)
        own = {
            row: grade
            for row, job_id in enumerate(self._job_ids[: self._parents.max() + 1])
            if (grade := grades.get(job_id))
        }
        rows = np.flatnonzero(np.isin(self._parents, list(own)))
        return {self._job_ids[row]: own[int(self._parents[row])] for row in rows}


def padded(
    market: TensorCache, others: Sequence[TensorCache], jobs: int, file: Path | None = None
) -> tuple[TensorCache, Rows]:
    """The market's applicants and jobs, and behind them, by id, made jobs until there are `jobs`.

    Second, the row of the market that each job was made from, or is; -1 for one of another market.

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
    parents = np.arange(jobs)
    rng = np.random.default_rng(0)
    for start in range(own, jobs, MADE_ROWS):
        part = slice(start, min(start + MADE_ROWS, jobs))
        from_, and_ = rng.integers(0, len(real), (2, part.stop - part.start))
        vectors[part] = _made(real[from_], real[and_], layout.block_dim, rng)
        parents[part] = np.where(from_ < len(market.jobs), from_, -1)
    names = [*market.job_ids[:own], *(f"~{row:07d}" for row in range(own, jobs))]  # "~" sorts behind every other id
    compared = [layout.action.index(block) for block in sides(layout)[0].compared]
    norms = np.empty((jobs, len(compared)), np.float32)
    for start in range(0, jobs, MADE_ROWS):
        blocks = np.asarray(vectors[start : start + MADE_ROWS]).reshape(-1, len(layout.action), layout.block_dim)
        norms[start : start + MADE_ROWS] = np.linalg.norm(blocks[:, compared], axis=2)
    hashes = np.zeros(jobs, arrays["job_hashes"].dtype)
    made = {"jobs": vectors, "job_norms": norms, "job_hashes": hashes, **pack(names, "job_id")}
    return TensorCache.from_arrays(manifest, dict(arrays) | made), parents


def _made(a: FloatArray, b: FloatArray, block_dim: int, rng: np.random.Generator) -> FloatArray:
    count = len(a)
    t = rng.uniform(0.1, 0.5, (count, 1)).astype(np.float32)
    noise = rng.standard_normal(a.shape, np.float32)
    mixed = (1 - t) * a + t * b + np.float32(NOISE_NORM / block_dim**0.5) * noise
    blocks = mixed.reshape(count, -1, block_dim)
    there = np.linalg.norm(a.reshape(blocks.shape), axis=2, keepdims=True) > 0  # a missing block stays missing
    blocks = there * blocks / np.linalg.norm(blocks, axis=2, keepdims=True)
    made: FloatArray = blocks.reshape(count, -1).astype(np.float32)
    return made
