"""A snapshot of jobs and applicants, with the similarities by which the service ranks and explains."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dynaq.layout import JOB_BLOCK_WEIGHTS, Layout
from dynaq.records import Candidate, Job
from dynaq.stores import FloatArray, Store
from dynaq.tensor_cache import TensorCache
from dynaq.tensor_cache_loading import pack, sides
from recommend_service.facets import Facets

Rows = npt.NDArray[np.int64]
JOBS_AT_ONCE, ROWS_AT_ONCE = 1 << 13, 1 << 8  # size of the blocks of similarities in `Catalogue.nearest`
TINY = 1e-12
COMPARED_JOBS = 256  # jobs with which one job is compared


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
        """A snapshot of the store as it is now; `previous` itself if nothing changed. Raises InputError, DynaqError.

        A store without jobs or applicants is an empty snapshot.
        """
        version = store.catalogue_version()
        if previous is not None and version is not None and version == previous._version:
            return previous  # a digest of a million records takes seconds, of which requests would have their share
        digest = _digest(store)
        if previous is not None and digest == previous.digest:
            previous._version = version
            return previous
        if previous is None or not previous.job_ids:  # an empty store has no layout yet
            return cls(TensorCache.copy_from_database(store, text=True, may_be_empty=True), digest, version)
        return cls(previous._cache.refresh(store, may_be_empty=True), digest, version)

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

    @cached_property
    def sample(self) -> Rows:
        """Rows of jobs spread evenly over the catalogue, with which one job is compared."""
        return np.unique(np.linspace(0, len(self.job_ids) - 1, COMPARED_JOBS).astype(np.int64))

    @cached_property
    def facets(self) -> Facets:
        """By what the jobs can be filtered. Reads all of them on first use."""
        return Facets(self.job(row).metadata for row in range(len(self.job_ids)))

    @cached_property
    def applicant_texts(self) -> list[str]:
        """By row, what a search for an applicant looks through. Reads all of them on first use."""
        return [searched(self.profile(one)) for one in self.applicant_ids]

    def job(self, row: int) -> Job:
        """The job of a row."""
        return self._cache.job_text(row)

    def similarities(self, applicant: ApplicantVectors, rows: Rows | None = None) -> FloatArray:
        """Cosines by the layout's rule with every job, or with the jobs of `rows`, in [-1, 1]."""
        return self._of_applicant(applicant, rows).calculate_cosine_similarities(applicant.id)

    def _of_applicant(self, applicant: ApplicantVectors, rows: Rows | None) -> TensorCache:
        """A cache of these jobs and one applicant, who need not be in the snapshot."""
        jobs, norms = self._arrays["jobs"], self._arrays["job_norms"]
        arrays: dict[str, Any] = {
            "jobs": jobs if rows is None else jobs[rows],
            "job_norms": norms if rows is None else norms[rows],
            "applicants": applicant.state[None],
            "applicant_norms": applicant.norms[None],
            **pack([applicant.id], "applicant_id"),
        }
        return TensorCache.from_arrays(self._manifest, arrays)

    def part(self, rows: Rows, applicants: Sequence[str] = ()) -> TensorCache:
        """A cache of some jobs and applicants only, in this order."""
        people = [self._applicants[one] for one in applicants]
        arrays: dict[str, Any] = {
            "jobs": self._arrays["jobs"][rows],
            "job_norms": self._arrays["job_norms"][rows],
            "applicants": self._cache.applicants[people],
            "applicant_norms": self._arrays["applicant_norms"][people],
            **pack((self.job_ids[row] for row in rows.tolist()), "job_id"),
            **pack(applicants, "applicant_id"),
        }
        return TensorCache.from_arrays(self._manifest, arrays)

    def pair_similarities(self, applicant: ApplicantVectors, rows: Rows) -> FloatArray:
        """Cosine of each pair of blocks of the layout, `[len(rows), n_pairs]`, 0 where a block is missing."""
        return self._of_applicant(applicant, rows).block_similarities(applicant.id)

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


def searched(applicant: Candidate) -> str:
    """What a search for an applicant looks through: id, titles, and what they write about themselves."""
    titles = (one.title for one in applicant.experience)
    return "\n".join((applicant.id, *titles, applicant.bio)).casefold()


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
