"""An approximate index over the jobs of a catalogue: which jobs are near an applicant, or near other jobs.

A job is the unit vectors of its title, description and skills, one after the other. Every similarity that agents use is
an inner product of these with a query that carries the weights: of the applicant's blocks for the layout's cosine, of a
job's own blocks for the distance of two jobs. One index serves both.

The index is faiss's IVF over 128 principal components in 8 bits each (`docs/scaling.md` says why). It is one flat
array of bytes, kept in a `TensorCache` beside the vectors, so that it moves and is mapped as they are: faiss reads it
in place. Built from the same vectors it is the same index, bit for bit, so what agents learn does not depend on who
built it.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dynaq.errors import InputError
from dynaq.layout import JOB_BLOCK_WEIGHTS
from dynaq.stores import FloatArray, FolderStore, Store
from dynaq.tensor_cache import TensorCache

Rows = npt.NDArray[np.int64]
COMPONENTS = 128
TRAINED_ON = 50_000  # jobs from which components and cells are found
ADDED_ROWS = 8192  # added at once
PROBED = 4  # one in so many cells is searched
SEED = 1
INDEX_FORMAT = 1
INDEX_FOLDER = "job_index"  # in a folder store


class JobIndex:
    """Searches the index of a cache, in place. Raises InputError when the cache has none."""

    def __init__(self, cache: TensorCache) -> None:
        self._data: Any = cache.job_index_bytes  # faiss reads from this array as long as the index lives
        if self._data is None:
            raise InputError("this TensorCache has no job index; make one with dynaq.job_index.with_index(cache)")
        self._blocks = indexed_blocks(cache)
        self._cache = cache
        import faiss  # only large catalogues need it

        in_place: Any = faiss  # its stubs lack the reader
        reader = in_place.ZeroCopyIOReader(faiss.swig_ptr(self._data), self._data.nbytes)
        self._index = faiss.read_index(reader, faiss.IO_FLAG_MMAP_IFC)
        self._cells = faiss.extract_index_ivf(self._index)

    def search(self, queries: FloatArray, k: int, *, everywhere: bool = False) -> Rows:
        """Rows of about the k jobs with the largest inner product per query, `[queries, k]`, best first.

        -1 where fewer were found. everywhere: search all cells, ten times as long; else the nearest of them.
        """
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        self._cells.nprobe = self._cells.nlist if everywhere else max(1, self._cells.nlist // PROBED)
        found: Rows = self._index.search(np.ascontiguousarray(queries, np.float32), k)[1]
        return found

    def of_applicant(self, applicant_id: str) -> FloatArray:
        """The query for the layout's cosine, `[width]`."""
        layout, dim = self._cache.layout, self._cache.layout.block_dim
        state = self._cache.applicants[self._cache.applicant_index(applicant_id)].astype(np.float32)
        query = np.zeros((len(self._blocks), dim), np.float32)
        for state_block, action_block in layout.pairs:
            if action_block in self._blocks:
                query[self._blocks.index(action_block)] += _unit(state[layout.state_slice(state_block)])
        return query.reshape(-1)

    def of_jobs(self, rows: npt.ArrayLike) -> FloatArray:
        """The queries for jobs near given ones, `[rows, width]`."""
        vectors = indexed_vectors(self._cache, np.asarray(rows, np.int64))
        weights = np.array([JOB_BLOCK_WEIGHTS[block] for block in self._blocks], np.float32)
        weighted: FloatArray = vectors * np.repeat(weights, self._cache.layout.block_dim)
        return weighted


def indexed_blocks(cache: TensorCache) -> tuple[str, ...]:
    """The blocks of a job that are indexed."""
    return tuple(block for block in cache.layout.action if block in JOB_BLOCK_WEIGHTS)


def indexed_vectors(cache: TensorCache, rows: slice | Rows) -> FloatArray:
    """`[rows, width]`: the indexed blocks, each of norm one, or zeros where it is missing."""
    jobs = cache.jobs[rows]
    blocks = [_unit(jobs[:, cache.layout.action_slice(b)].astype(np.float32)) for b in indexed_blocks(cache)]
    return np.concatenate(blocks, axis=1)


def _unit(vectors: FloatArray) -> FloatArray:
    unit: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(1e-12))
    return unit


def build(cache: TensorCache) -> npt.NDArray[np.uint8]:
    """The index of the cache's jobs as bytes. Takes minutes for a million jobs."""
    import faiss

    jobs = cache.n_jobs
    trained_on = np.sort(np.random.default_rng(SEED).choice(jobs, min(jobs, TRAINED_ON), replace=False))
    sample = indexed_vectors(cache, trained_on)
    components = min(COMPONENTS, sample.shape[1], len(sample))
    cells = max(1, min(int(2 * jobs**0.5), len(sample) // 39))  # faiss wants 39 jobs per cell to find the cells from
    components_of = faiss.PCAMatrix(sample.shape[1], components)
    components_of.train(sample)
    # Not centred: an inner product with a centred query would rank by the jobs' distance from the mean as well.
    projection = faiss.LinearTransform(sample.shape[1], components, False)
    projection.A, projection.is_trained = components_of.A, True
    index: Any = faiss.IndexPreTransform(
        projection, faiss.index_factory(components, f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
    )
    index.train(sample)
    for start in range(0, jobs, ADDED_ROWS):
        index.add(indexed_vectors(cache, slice(start, start + ADDED_ROWS)))
    data: npt.NDArray[np.uint8] = faiss.serialize_index(index)
    return data


def with_index(cache: TensorCache, store: Store | None = None) -> TensorCache:
    """The cache with its job index: that which lies in the store, if it is of these vectors, else a new one.

    A folder store keeps the index in a file beside the vectors, mapped from there; where the folder cannot be written,
    and for MongoDB, whose documents are limited to 16 MB, it stays in the cache, and every command builds it again.
    """
    if cache.job_index_bytes is not None:
        return cache
    if not isinstance(store, FolderStore):
        return cache.with_job_index(build(cache))
    file = Path(store.uri) / INDEX_FOLDER / f"{fingerprint(cache)}.faiss"
    if not file.exists():
        data = build(cache)
        try:
            _replace(file, data)
        except OSError:  # a store that others own
            return cache.with_job_index(data)
    # As a plain array: Ray would copy a memmap into every process.
    return cache.with_job_index(np.asarray(np.memmap(file, np.uint8, "r")))


def _replace(file: Path, data: npt.NDArray[np.uint8]) -> None:
    """Write the file atomically, and remove those of older vectors: who has them mapped keeps them."""
    file.parent.mkdir(exist_ok=True)
    partial = file.with_name(f"{file.name}.{uuid.uuid4().hex[:8]}.partial")
    data.tofile(partial)
    os.replace(partial, file)
    for older in file.parent.glob("*.faiss"):
        if older != file:
            older.unlink(missing_ok=True)


def fingerprint(cache: TensorCache) -> str:
    """16 hex digits that change with the jobs, their order, their vectors and the way of indexing."""
    _, arrays = cache.to_arrays()
    digest = hashlib.sha256(f"{INDEX_FORMAT} {version('faiss-cpu')} {cache.layout.name} {cache.encoder}".encode())
    for name in ("job_id_bytes", "job_id_offsets", "job_hashes", "job_norms"):  # norms stand for vectors without a hash
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()[:16]
