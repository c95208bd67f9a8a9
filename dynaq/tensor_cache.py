"""The catalogue and the cohort as arrays: loaded once, shared read-only by everything that learns.

A cache is made of flat arrays only (ids too), so that it moves to shared memory and back without being copied, and
attaching to it costs the same whatever its size. Nothing it returns can be written through to the shared arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dynaq.errors import InputError
from dynaq.layout import Layout, get_layout
from dynaq.records import Candidate, Job
from dynaq.stores import FloatArray, Store
from dynaq.tensor_cache_loading import Arrays, Dtype, load_arrays, unpack, unpack_one

Indices = npt.NDArray[np.int64]
Span = tuple[slice, slice]
ROWS = 8192  # rows converted to float32 at a time


class TensorCache:
    """Vectors of all jobs and applicants of a store, in id order.

    Made by `copy_from_database`, `from_arrays` or `refresh`; never changed afterwards.
    """

    def __init__(self, manifest: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.layout = get_layout(manifest["layout"])
        self.version: int = manifest["version"]
        self._arrays: Arrays = {}
        for name, array in arrays.items():
            view = array.view()
            view.flags.writeable = False
            self._arrays[name] = view

    @classmethod
    def copy_from_database(
        cls,
        store: Store,
        layout: str | Layout | None = None,
        dtype: Dtype = "float32",
        text: bool = False,
        only: Mapping[str, Sequence[str]] | None = None,
    ) -> TensorCache:
        """Load a store.

        Args:
            store: where from.
            layout: None is the one the store was embedded with; classic for a database filled by hand.
            dtype: float16 halves the memory; similarities are computed in float32 either way.
            text: keep the records' text too, for `job_text` and `applicant_text`.
            only: `job` and `applicant` -> ids, to look at a few records of a large store.

        Records whose vectors cannot be used are left out with a warning. Raises InputError when none is left.
        """
        if layout is None:
            layout = str(store.meta().get("layout", "classic"))
        if isinstance(layout, str):
            layout = get_layout(layout)
        if dtype not in ("float32", "float16"):
            raise InputError(f"TensorCache dtype {dtype!r} is not one of float32, float16")
        manifest = {"layout": layout.name, "version": 1}
        return cls(manifest, load_arrays(store, layout, dtype, text, previous=None, only=only))

    def refresh(self, store: Store) -> TensorCache:
        """A new version with what the store now holds. Records with an unchanged content hash are not read again."""
        dtype: Dtype = "float16" if self.jobs.dtype == np.float16 else "float32"
        arrays = load_arrays(store, self.layout, dtype, "job_text_bytes" in self._arrays, previous=self._arrays)
        return TensorCache({"layout": self.layout.name, "version": self.version + 1}, arrays)

    def to_arrays(self) -> tuple[dict[str, Any], Arrays]:
        """A small manifest and the arrays, for `from_arrays`."""
        return {"layout": self.layout.name, "version": self.version}, dict(self._arrays)

    @classmethod
    def from_arrays(cls, manifest: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> TensorCache:
        """Attach to arrays that `to_arrays` gave, without copying them."""
        return cls(manifest, arrays)

    @property
    def jobs(self) -> npt.NDArray[Any]:
        """`[n_jobs, action_dim]`, read-only. Do not wrap it with torch.from_numpy, which forgets that."""
        return self._arrays["jobs"]

    @property
    def applicants(self) -> npt.NDArray[Any]:
        """`[n_applicants, state_dim]`, read-only. Do not wrap it with torch.from_numpy, which forgets that."""
        return self._arrays["applicants"]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    @cached_property
    def job_ids(self) -> tuple[str, ...]:
        return tuple(unpack(self._arrays, "job_id"))

    @cached_property
    def applicant_ids(self) -> tuple[str, ...]:
        return tuple(unpack(self._arrays, "applicant_id"))

    @cached_property
    def _job_index(self) -> dict[str, int]:
        return {id_: i for i, id_ in enumerate(self.job_ids)}

    @cached_property
    def _applicant_index(self) -> dict[str, int]:
        return {id_: i for i, id_ in enumerate(self.applicant_ids)}

    def job_index(self, job_id: str) -> int:
        """Row of a job. Raises InputError when there is none."""
        try:
            return self._job_index[job_id]
        except KeyError:
            raise InputError(f"job {job_id!r} is not in the catalogue of {len(self._job_index)} jobs") from None

    def applicant_index(self, applicant_id: str) -> int:
        """Row of an applicant. Raises InputError when there is none."""
        try:
            return self._applicant_index[applicant_id]
        except KeyError:
            known = len(self._applicant_index)
            raise InputError(f"applicant {applicant_id!r} is not in the cohort of {known} applicants") from None

    def get_applicant_state(self, applicant_id: str) -> torch.Tensor:
        """Float32 `[state_dim]`, a private copy."""
        return _tensor(self.applicants[self.applicant_index(applicant_id)])

    def get_job_vector_by_index(self, index: int) -> torch.Tensor:
        """Float32 `[action_dim]`, a private copy."""
        return _tensor(self.jobs[index])

    def get_job_vectors(self, indices: npt.ArrayLike) -> torch.Tensor:
        """Float32 `[len(indices), action_dim]`, a private copy."""
        return _tensor(self.jobs[np.asarray(indices, np.int64)])

    def sample_jobs(self, n: int, generator: np.random.Generator, exclude: Iterable[int] = ()) -> Indices:
        """`n` distinct rows drawn uniformly from those not in `exclude`; all of them when there are no more."""
        banned = np.unique(np.fromiter(exclude, np.int64))
        total = len(self.jobs)
        # Enough to be left with n, without touching the whole catalogue.
        drawn = generator.choice(total, min(total, n + len(banned)), replace=False)
        return np.asarray(drawn[~np.isin(drawn, banned)][:n], np.int64)

    def job_text(self, index: int) -> Job:
        """The record of a row. Raises InputError when the cache was loaded without text."""
        return Job.model_validate_json(self._text("job", index))

    def applicant_text(self, index: int) -> Candidate:
        """The record of a row. Raises InputError when the cache was loaded without text."""
        return Candidate.model_validate_json(self._text("applicant", index))

    def _text(self, side: str, index: int) -> str:
        if f"{side}_text_bytes" not in self._arrays:
            raise InputError("this TensorCache was loaded without text; load it with text=True")
        return unpack_one(self._arrays, f"{side}_text", index)

    def block_similarities(self, applicant_id: str) -> FloatArray:
        """Cosine per pair of blocks, float32 `[n_jobs, n_pairs]`, 0 where a block is missing."""
        cosines: FloatArray = self._pair_cosines(self.applicant_index(applicant_id)).T
        return cosines

    def calculate_cosine_similarities(self, applicant_id: str) -> FloatArray:
        """Similarity by the layout's rule with every job, float32 `[n_jobs]` in [-1, 1]."""
        row = self.applicant_index(applicant_id)
        if not self.layout.joint:
            mean: FloatArray = self._pair_cosines(row).mean(axis=0)
            return mean
        products = self._products(row, _joint_spans(self.layout))
        similarities: FloatArray = products[0] if len(products) == 1 else products.sum(axis=0)
        similarities *= self._inverse_joint_norms
        similarities *= _inverse(np.linalg.norm(self._arrays["applicant_norms"][row]))
        return np.clip(similarities, -1.0, 1.0, out=similarities)

    def top_k(self, applicant_id: str, k: int) -> tuple[Indices, FloatArray]:
        """The k most similar jobs, exactly: rows `[k]` and similarities `[k]`, best first, equals in row order."""
        similarities = self.calculate_cosine_similarities(applicant_id)
        k = min(k, len(similarities))
        if k < 1:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        threshold = np.partition(similarities, len(similarities) - k)[len(similarities) - k]
        best = np.flatnonzero(similarities >= threshold)
        best = best[np.lexsort((best, -similarities[best]))][:k]
        return best.astype(np.int64), similarities[best]

    def _pair_cosines(self, applicant: int) -> FloatArray:
        """`[n_pairs, n_jobs]` in [-1, 1]."""
        layout = self.layout
        cosines = self._products(applicant, [(layout.state_slice(s), layout.action_slice(a)) for s, a in layout.pairs])
        cosines *= self._inverse_norms
        cosines *= _inverse(self._arrays["applicant_norms"][applicant])[:, None]
        return np.clip(cosines, -1.0, 1.0, out=cosines)

    @cached_property
    def _inverse_norms(self) -> FloatArray:
        """`[n_pairs, n_jobs]`."""
        return np.ascontiguousarray(_inverse(self._arrays["job_norms"]).T)

    @cached_property
    def _inverse_joint_norms(self) -> FloatArray:
        """`[n_jobs]`."""
        return _inverse(np.linalg.norm(self._arrays["job_norms"], axis=1))

    def _products(self, applicant: int, spans: Sequence[Span]) -> FloatArray:
        """Dot products `[len(spans), n_jobs]` of state columns with action columns."""
        state = self.applicants[applicant].astype(np.float32)
        jobs = self.jobs
        out = np.empty((len(spans), len(jobs)), np.float32)
        rows = ROWS if jobs.dtype != np.float32 else max(1, len(jobs))
        for start in range(0, len(jobs), rows):
            block = jobs[start : start + rows].astype(np.float32, copy=False)
            for i, (state_columns, action_columns) in enumerate(spans):
                # matmul and not dot, which copies a slice of columns before it multiplies.
                np.matmul(block[:, action_columns], state[state_columns], out=out[i, start : start + rows])
        return out


def _joint_spans(layout: Layout) -> list[Span]:
    """The compared columns, neighbouring blocks together: for classic one product over the first 768."""
    spans: list[Span] = []
    for state_block, action_block in layout.pairs:
        state, action = layout.state_slice(state_block), layout.action_slice(action_block)
        if spans and (spans[-1][0].stop, spans[-1][1].stop) == (state.start, action.start):
            last_state, last_action = spans.pop()
            state, action = slice(last_state.start, state.stop), slice(last_action.start, action.stop)
        spans.append((state, action))
    return spans


def _inverse(norms: npt.ArrayLike) -> FloatArray:
    """1 / norm, and 0 for a missing vector, whose cosine with anything is then 0."""
    values = np.asarray(norms, np.float32)
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


def _tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(array, np.float32))
