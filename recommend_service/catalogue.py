"""A snapshot of jobs and applicants, with the similarities by which the service ranks and explains."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dynaq.layout import JOB_BLOCK_WEIGHTS, Layout
from dynaq.records import Candidate, Job
from dynaq.stores import FloatArray, Store
from dynaq.tensor_cache import TensorCache
from dynaq.tensor_cache_loading import pack, sides

Rows = npt.NDArray[np.int64]
JOBS_AT_ONCE, ROWS_AT_ONCE = 1 << 13, 1 << 8  # size of the blocks of similarities in `Catalogue.nearest`
TINY = 1e-12


@dataclass(frozen=True)
class ApplicantVectors:
    """One applicant's vectors: the state `[state_dim]`, and the norm of each compared block `[n_pairs]`."""

    id: str
    state: FloatArray
    norms: FloatArray


def applicant_vectors(applicant_id: str, blocks: dict[str, FloatArray], layout: Layout) -> ApplicantVectors:
    """An applicant's vectors, from those of the blocks by name, each `[block_dim]`."""
    _, applicants = sides(layout)
    norms = np.array([np.linalg.norm(blocks[name]) for name in applicants.compared], np.float32)
    return ApplicantVectors(applicant_id, np.concatenate([blocks[name] for name in layout.state]), norms)


class Catalogue:
    """An immutable snapshot of the store. Snapshots of different content differ in their `digest`."""

    def __init__(self, cache: TensorCache, digest: str, version: str | None = None) -> None:
        self._cache, self.digest, self._version = cache, digest, version
        self._manifest, self._arrays = cache.to_arrays()
        self.layout = cache.layout
        self.job_ids = cache.job_ids
        self.applicant_ids = cache.applicant_ids
        self._applicants = {applicant_id: row for row, applicant_id in enumerate(cache.applicant_ids)}
        self.rows = {job_id: row for row, job_id in enumerate(cache.job_ids)}

    @classmethod
    def load(cls, store: Store, previous: Catalogue | None = None) -> Catalogue:
        """A snapshot of the store as it is now; `previous` itself if nothing changed. Raises InputError, DynaqError."""
        version = store.catalogue_version()
        if previous is not None and version is not None and version == previous._version:
            return previous  # a digest of a million records takes seconds, of which requests would have their share
        digest = _digest(store)
        if previous is None:
            return cls(TensorCache.copy_from_database(store, text=True), digest, version)
        if digest == previous.digest:
            previous._version = version
            return previous
        return cls(previous._cache.refresh(store), digest, version)

    def applicant_ids_after(self, after: str, count: int) -> list[str]:
        """The first `count` applicant ids after `after`, in order."""
        start = bisect_right(self.applicant_ids, after)
        return list(self.applicant_ids[start : start + count])

    def __contains__(self, applicant_id: str) -> bool:
        return applicant_id in self._applicants

    def vectors_of(self, applicant_id: str) -> ApplicantVectors | None:
        """An applicant's vectors; None if the store lacks the applicant or their vectors."""
        row = self._applicants.get(applicant_id)
        if row is None:
            return None
        return ApplicantVectors(applicant_id, self._cache.applicants[row], self._arrays["applicant_norms"][row])

    def profile(self, applicant_id: str) -> Candidate:
        """The record of an applicant of the catalogue."""
        return self._cache.applicant_text(self._applicants[applicant_id])

    def job(self, row: int) -> Job:
        """The job of a row."""
        return self._cache.job_text(row)

    def similarities(self, applicant: ApplicantVectors, rows: Rows | None = None) -> FloatArray:
        """Cosines by the layout's rule with every job, or with the jobs of `rows`, in [-1, 1]."""
        jobs, norms = self._arrays["jobs"], self._arrays["job_norms"]
        arrays: dict[str, Any] = {
            "jobs": jobs if rows is None else jobs[rows],
            "job_norms": norms if rows is None else norms[rows],
            "applicants": applicant.state[None],
            "applicant_norms": applicant.norms[None],
            **pack([applicant.id], "applicant_id"),
        }
        return TensorCache.from_arrays(self._manifest, arrays).calculate_cosine_similarities(applicant.id)

    def text_similarities(self, vector: FloatArray, rows: Rows) -> FloatArray:
        """Cosines of a text's unit vector `[block_dim]` with jobs' descriptions, or titles where there is none."""
        title: FloatArray = self._unit(rows, "title") @ vector
        if "description" not in self.layout.action:
            return title
        description = self._unit(rows, "description")
        return np.where(description.any(axis=1), description @ vector, title)

    def nearest(self, rows: Rows, among: Rows, count: int) -> tuple[Rows, FloatArray]:
        """For each of `rows` the most similar jobs of `among`, `[len(rows), count]`, and weights that sum to 1.

        Similarity is the world model's: a weighted mean of the blocks' cosines.
        """
        count = min(count, len(among))
        found = np.empty((len(rows), count), np.int64)
        best = np.empty((len(rows), count), np.float32)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            found[part], best[part] = self._nearest(rows[part], among, count)
        weights = np.exp(10.0 * (best - best.max(axis=1, keepdims=True)))
        return found, weights / weights.sum(axis=1, keepdims=True)

    def _nearest(self, rows: Rows, among: Rows, count: int) -> tuple[Rows, FloatArray]:
        wanted = self._compared(rows)
        best, found = np.empty((len(rows), 0), np.float32), np.empty((len(rows), 0), np.int64)
        for start in range(0, len(among), JOBS_AT_ONCE):
            part = among[start : start + JOBS_AT_ONCE]
            best = np.concatenate([best, wanted @ self._compared(part).T], axis=1)
            found = np.concatenate([found, np.broadcast_to(part, (len(rows), len(part)))], axis=1)
            keep = np.argpartition(-best, min(count, best.shape[1]) - 1, axis=1)[:, :count]
            best, found = np.take_along_axis(best, keep, 1), np.take_along_axis(found, keep, 1)
        return found, best

    def _compared(self, rows: Rows) -> FloatArray:
        parts = [
            weight**0.5 * self._unit(rows, block)
            for block, weight in JOB_BLOCK_WEIGHTS.items()
            if block in self.layout.action
        ]
        total = sum(weight for block, weight in JOB_BLOCK_WEIGHTS.items() if block in self.layout.action)
        compared: FloatArray = np.concatenate(parts, axis=1) / np.float32(total**0.5)
        return compared

    def _unit(self, rows: Rows, block: str) -> FloatArray:
        """Unit vectors `[len(rows), block_dim]` of a block; zeros where there is no text."""
        vectors: FloatArray = self._cache.jobs[rows, self.layout.action_slice(block)].astype(np.float32)
        assert vectors.shape[1] == self.layout.block_dim
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY)
        return vectors


def shared_skills(applicant: Candidate, job: Job) -> list[str]:
    """Skills that both list, in the job's spelling."""
    own = {skill.casefold().strip() for skill in (*applicant.hard_skills, *applicant.soft_skills)}
    asked: Sequence[str] = (*job.technical_skills, *job.soft_skills)
    return [skill for skill in dict.fromkeys(asked) if skill.casefold().strip() in own]


def _digest(store: Store) -> str:
    """A digest that changes with any record or vector. Texts without vectors are ignored, as they are not ranked."""
    digest = hashlib.sha256()
    for hashes in (store.hashes("job"), store.hashes("candidate")):
        for id_, content in sorted(hashes.items()):
            digest.update(f"{len(id_)}:{id_}{content};".encode("utf-8", "surrogatepass"))
        digest.update(b"|")
    digest.update("\0".join(store.ids("job")).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
