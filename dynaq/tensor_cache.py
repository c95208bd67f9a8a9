"""The catalogue and the cohort as arrays: loaded once, shared read-only by everything that learns.

A cache consists only of flat arrays (ids included), so it moves to shared memory and back without a copy, and attaching
to it costs the same whatever its size. Nothing that it returns allows writing to the shared arrays.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, overload

import numpy as np
import numpy.typing as npt
import torch

from dynaq.errors import InputError
from dynaq.layout import BLOCK_DIM, Layout, get_layout
from dynaq.records import Candidate, Job
from dynaq.stores import FloatArray, Store, open_store
from dynaq.tensor_cache_loading import Arrays, Dtype, load_arrays, unpack, unpack_one

Indices = npt.NDArray[np.int64]
Span = tuple[slice, slice]
CONVERTED_ROWS = 8192  # rows converted to float32 at once
JOB_INDEX = "job_index"  # array of `dynaq.job_index`
MANY_JOBS = 1 << 16  # from here on ids are searched in the packed array: a dictionary of a million takes 200 MB


P = ParamSpec("P")


class _OfClassOrInstance(Generic[P]):
    """A method that fills a TensorCache; called on the class, it fills a new cache on the CPU."""

    def __init__(self, method: Callable[Concatenate[TensorCache, P], TensorCache]) -> None:
        self.method = method
        self.__doc__ = method.__doc__

    def __get__(self, cache: TensorCache | None, owner: type[TensorCache]) -> Callable[P, TensorCache]:
        return MethodType(self.method, owner() if cache is None else cache)


@dataclass(frozen=True)
class _Contents:
    layout: Layout
    version: int
    encoder: str | None
    arrays: Arrays


class TensorCache:
    """Vectors of the jobs and applicants of a store, in id order or in the order of the given ids.

    Filled once, by `copy_from_database`, `from_arrays` or `refresh`, and never changed afterwards.

    Args:
        device: for returned tensors: "cpu", "cuda", "cuda:1" or a torch.device. The arrays themselves stay in host
            memory, where all processes of a node share them. Raises InputError when this host has no such device.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = _usable(device)
        self._contents: _Contents | None = None

    @_OfClassOrInstance
    def copy_from_database(
        self,
        store: Store | str | Path,
        applicant_ids: Iterable[str] | None = None,
        *,
        job_ids: Iterable[str] | None = None,
        layout: str | Layout | None = None,
        dtype: Dtype = "float32",
        text: bool = False,
        may_be_empty: bool = False,
    ) -> TensorCache:
        """Load a store. `TensorCache.copy_from_database(store)` is short for `TensorCache().copy_from_database(store)`.

        Args:
            store: an open store, which stays open, or a store URI.
            applicant_ids: which applicants; None means all.
            job_ids: which jobs; None means all.
            layout: None means the layout the store was embedded with, or classic for a database filled by hand.
            dtype: float16 halves the memory; similarities are computed in float32 either way.
            text: also keep the records' text, for `job_text` and `applicant_text`.
            may_be_empty: load a store without jobs or applicants, too.

        Returns the cache itself. Records with unusable vectors are left out with a warning. Raises InputError when none
        is left, when the store cannot be opened, or when this cache is already filled.
        """
        if self._contents is not None:
            raise InputError("this TensorCache is filled already; make another one, or take refresh() for what is new")
        if not isinstance(store, str | Path):
            return self._load(store, applicant_ids, job_ids, layout, dtype, text, may_be_empty)
        with open_store(store, read_only=True) as opened:
            return self._load(opened, applicant_ids, job_ids, layout, dtype, text, may_be_empty)

    def _load(
        self,
        store: Store,
        applicant_ids: Iterable[str] | None,
        job_ids: Iterable[str] | None,
        layout: str | Layout | None,
        dtype: Dtype,
        text: bool,
        may_be_empty: bool,
    ) -> TensorCache:
        meta = store.meta()
        if layout is None:
            layout = str(meta.get("layout", "classic"))
        layout = get_layout(layout if isinstance(layout, str) else layout.name, store.dimension())
        if dtype not in ("float32", "float16"):
            raise InputError(f"TensorCache dtype {dtype!r} is not one of float32, float16")
        only = {"applicant": applicant_ids, "job": job_ids}
        arrays = load_arrays(store, layout, dtype, text, previous=None, only=only, may_be_empty=may_be_empty)
        self._hold(layout, 1, meta.get("encoder_revision"), arrays)
        return self

    def _hold(self, layout: Layout, version: int, encoder: str | None, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        views = {name: array.view() for name, array in arrays.items()}
        for view in views.values():
            view.flags.writeable = False
        self._contents = _Contents(layout, version, encoder, views)

    def _filled(self) -> _Contents:
        if self._contents is None:
            raise InputError("this TensorCache is empty; fill it with copy_from_database(store)")
        return self._contents

    @property
    def layout(self) -> Layout:
        """Blocks of the states and actions. Like all members below, raises InputError while the cache is empty."""
        return self._filled().layout

    @property
    def version(self) -> int:
        """1 at first, incremented by every `refresh`."""
        return self._filled().version

    @property
    def encoder(self) -> str | None:
        """Revision of the encoder that made the vectors; None where the store does not know."""
        return self._filled().encoder

    @property
    def _arrays(self) -> Arrays:
        return self._filled().arrays

    def refresh(self, store: Store, *, may_be_empty: bool = False) -> TensorCache:
        """A new version with what the store now holds. Records with an unchanged content hash are not read again.

        After `--re-embed` all of them are read again, because a hash covers only the text.
        """
        dtype: Dtype = "float16" if self.jobs.dtype == np.float16 else "float32"
        encoder = store.meta().get("encoder_revision")
        layout = get_layout(self.layout.name, store.dimension())
        same = (encoder, layout.block_dim) == (self.encoder, self.layout.block_dim)
        previous = self._arrays if same else None
        arrays = load_arrays(
            store, layout, dtype, "job_text_bytes" in self._arrays, previous, may_be_empty=may_be_empty
        )
        newer = TensorCache(self.device)
        newer._hold(layout, self.version + 1, encoder, arrays)
        return newer

    def to_arrays(self) -> tuple[dict[str, Any], Arrays]:
        """A small manifest and the arrays, for `from_arrays`."""
        return _manifest(self.layout, self.version, self.encoder), dict(self._arrays)

    @classmethod
    def from_arrays(cls, manifest: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> TensorCache:
        """Attach to the arrays that `to_arrays` returned, without copying them."""
        cache = cls()
        layout = get_layout(manifest["layout"], manifest.get("block_dim", BLOCK_DIM))
        cache._hold(layout, manifest["version"], manifest.get("encoder"), arrays)
        return cache

    @property
    def jobs(self) -> npt.NDArray[Any]:
        """`[n_jobs, action_dim]`, read-only. Do not wrap it with torch.from_numpy, which ignores that flag."""
        return self._arrays["jobs"]

    @property
    def applicants(self) -> npt.NDArray[Any]:
        """`[n_applicants, state_dim]`, read-only. Do not wrap it with torch.from_numpy, which ignores that flag."""
        return self._arrays["applicants"]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    @cached_property
    def job_ids(self) -> tuple[str, ...]:
        """Id of each row of `jobs`."""
        return tuple(unpack(self._arrays, "job_id"))

    @cached_property
    def applicant_ids(self) -> tuple[str, ...]:
        """Id of each row of `applicants`."""
        return tuple(unpack(self._arrays, "applicant_id"))

    @property
    def n_jobs(self) -> int:
        """Jobs of the catalogue."""
        return len(self.jobs)

    def job_id(self, row: int) -> str:
        """Id of a row of `jobs`, without unpacking all of them."""
        return unpack_one(self._arrays, "job_id", row)

    @property
    def job_index_bytes(self) -> npt.NDArray[np.uint8] | None:
        """The index over the jobs that `dynaq.job_index` reads; None while there is none."""
        return self._arrays.get(JOB_INDEX)

    def with_job_index(self, index: npt.NDArray[np.uint8]) -> TensorCache:
        """A cache over the same arrays, and this index of them."""
        contents = self._filled()
        cache = TensorCache(self.device)
        cache._hold(contents.layout, contents.version, contents.encoder, contents.arrays | {JOB_INDEX: index})
        return cache

    @cached_property
    def _job_index(self) -> dict[str, int]:
        return {id_: i for i, id_ in enumerate(self.job_ids)}

    def has_job(self, job_id: str) -> bool:
        """Whether the catalogue has a job of that id."""
        return self._found(job_id) is not None

    def _found(self, job_id: str) -> int | None:
        """The job's row. Ids are in order unless the caller of `copy_from_database` named others."""
        if self.n_jobs >= MANY_JOBS and "_job_index" not in vars(self):
            row = bisect_left(range(self.n_jobs), job_id, key=self.job_id)
            if row < self.n_jobs and self.job_id(row) == job_id:
                return row
        return self._job_index.get(job_id)

    @cached_property
    def _applicant_index(self) -> dict[str, int]:
        return {id_: i for i, id_ in enumerate(self.applicant_ids)}

    def job_index(self, job_id: str) -> int:
        """Row of a job. Raises InputError for an unknown id."""
        row = self._found(job_id)
        if row is None:
            raise InputError(f"job {job_id!r} is not in the catalogue of {self.n_jobs} jobs")
        return row

    def applicant_index(self, applicant_id: str) -> int:
        """Row of an applicant. Raises InputError for an unknown id."""
        try:
            return self._applicant_index[applicant_id]
        except KeyError:
            known = len(self._applicant_index)
            raise InputError(f"applicant {applicant_id!r} is not in the cohort of {known} applicants") from None

    def get_applicant_state(self, applicant_id: str) -> torch.Tensor:
        """Float32 `[state_dim]`, a private copy. Raises InputError when there is no such applicant."""
        return self._tensor(self.applicants[self.applicant_index(applicant_id)])

    def get_job_vector_by_index(self, index: int) -> torch.Tensor:
        """Float32 `[action_dim]`, a private copy."""
        return self._tensor(self.jobs[index])

    def get_job_vectors(self, indices: npt.ArrayLike) -> torch.Tensor:
        """Float32 `[len(indices), action_dim]`, a private copy."""
        return self._tensor(self.jobs[np.asarray(indices, np.int64)])

    def sample_jobs(self, n: int, generator: np.random.Generator, exclude: Iterable[int] = ()) -> Indices:
        """`n` distinct rows drawn uniformly from those not in `exclude`; all of those when there are fewer."""
        banned = np.unique(np.fromiter(exclude, np.int64))
        total = len(self.jobs)
        # Enough to leave n after exclusion, without permuting the whole catalogue.
        drawn = generator.choice(total, min(total, n + len(banned)), replace=False)
        return np.asarray(drawn[~np.isin(drawn, banned)][:n], np.int64)

    def job_text(self, index: int) -> Job:
        """The record of a row. Raises InputError if the cache was loaded without text."""
        return Job.model_validate_json(self._text("job", index))

    def applicant_text(self, index: int) -> Candidate:
        """The record of a row. Raises InputError if the cache was loaded without text."""
        return Candidate.model_validate_json(self._text("applicant", index))

    def _text(self, side: str, index: int) -> str:
        if f"{side}_text_bytes" not in self._arrays:
            raise InputError("this TensorCache was loaded without text; load it with text=True")
        return unpack_one(self._arrays, f"{side}_text", index)

    def block_similarities(self, applicant_id: str) -> FloatArray:
        """Cosine per pair of blocks, float32 `[n_jobs, n_pairs]`, 0 where a block is missing."""
        cosines: FloatArray = self._pair_cosines(*self._state_of(applicant_id)).T
        return cosines

    @overload
    def calculate_cosine_similarities(self, applicant: str) -> FloatArray: ...

    @overload
    def calculate_cosine_similarities(self, applicant: torch.Tensor) -> torch.Tensor: ...

    def calculate_cosine_similarities(self, applicant: str | torch.Tensor) -> FloatArray | torch.Tensor:
        """Similarity to every job by the layout's rule, float32 `[n_jobs]` in [-1, 1].

        Args:
            applicant: an id, to get a numpy array, or a state `[state_dim]`, to get a tensor on the cache's device.

        Raises InputError when there is no such applicant or the state has another shape.
        """
        if isinstance(applicant, str):
            return self._similarities(*self._state_of(applicant))
        if applicant.shape != (self.layout.state_dim,):
            raise InputError(
                f"a state in the {self.layout.name} layout is a vector of {self.layout.state_dim} values, "
                f"got the shape {list(applicant.shape)}; take one from get_applicant_state"
            )
        state = applicant.detach().to("cpu", torch.float32).numpy()
        compared = [state[self.layout.state_slice(block)] for block, _ in self.layout.pairs]
        norms = np.array([np.linalg.norm(block) for block in compared], np.float32)
        return self._tensor(self._similarities(state, norms))

    def top_k(self, applicant_id: str, k: int) -> tuple[Indices, FloatArray]:
        """The k most similar jobs, exactly: rows `[k]` and similarities `[k]`, best first, ties in row order."""
        similarities = self.calculate_cosine_similarities(applicant_id)
        k = min(k, len(similarities))
        if k < 1:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        threshold = np.partition(similarities, len(similarities) - k)[len(similarities) - k]
        best = np.flatnonzero(similarities >= threshold)
        best = best[np.lexsort((best, -similarities[best]))][:k]
        return best.astype(np.int64), similarities[best]

    def _state_of(self, applicant_id: str) -> tuple[FloatArray, FloatArray]:
        """State `[state_dim]` and the norms of its compared blocks `[n_pairs]`, float32."""
        row = self.applicant_index(applicant_id)
        return self.applicants[row].astype(np.float32), self._arrays["applicant_norms"][row]

    def _similarities(self, state: FloatArray, norms: FloatArray) -> FloatArray:
        if not self.layout.joint:
            mean: FloatArray = self._pair_cosines(state, norms).mean(axis=0)
            return mean
        products = self._products(state, _joint_spans(self.layout))
        similarities: FloatArray = products[0] if len(products) == 1 else products.sum(axis=0)
        similarities *= self._inverse_joint_norms
        similarities *= _inverse(np.linalg.norm(norms))
        return np.clip(similarities, -1.0, 1.0, out=similarities)

    def _pair_cosines(self, state: FloatArray, norms: FloatArray) -> FloatArray:
        """`[n_pairs, n_jobs]` in [-1, 1]."""
        layout = self.layout
        cosines = self._products(state, [(layout.state_slice(s), layout.action_slice(a)) for s, a in layout.pairs])
        cosines *= self._inverse_norms
        cosines *= _inverse(norms)[:, None]
        return np.clip(cosines, -1.0, 1.0, out=cosines)

    @cached_property
    def _inverse_norms(self) -> FloatArray:
        """`[n_pairs, n_jobs]`."""
        return np.ascontiguousarray(_inverse(self._arrays["job_norms"]).T)

    @cached_property
    def _inverse_joint_norms(self) -> FloatArray:
        """`[n_jobs]`."""
        return _inverse(np.linalg.norm(self._arrays["job_norms"], axis=1))

    def _products(self, state: FloatArray, spans: Sequence[Span]) -> FloatArray:
        """Dot products `[len(spans), n_jobs]` of state columns with action columns."""
        jobs = self.jobs
        out = np.empty((len(spans), len(jobs)), np.float32)
        rows = CONVERTED_ROWS if jobs.dtype != np.float32 else max(1, len(jobs))
        for start in range(0, len(jobs), rows):
            block = jobs[start : start + rows].astype(np.float32, copy=False)
            for i, (state_columns, action_columns) in enumerate(spans):
                # Not dot, which copies a slice of columns before it multiplies.
                np.matmul(block[:, action_columns], state[state_columns], out=out[i, start : start + rows])
        return out

    def _tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """A float32 copy on the cache's device, never a view of a shared array."""
        return torch.from_numpy(np.array(array, np.float32)).to(self.device)


def check_encoder_of(what: str, record: Mapping[str, Any], cache: TensorCache) -> None:
    """Raises InputError when what was learned is about another encoder's vectors than the cache holds.

    what: the message's subject. record: `block_dim` and `encoder`; a record that lacks them is from an older version,
    in which all vectors had 384 numbers.
    """
    dimension, encoder = record.get("block_dim", BLOCK_DIM), record.get("encoder")
    if dimension != cache.layout.block_dim:
        raise InputError(
            f"{what} for vectors of {dimension} numbers, the store has {cache.layout.block_dim}; train anew"
        )
    if encoder is not None and cache.encoder is not None and encoder != cache.encoder:
        raise InputError(f"{what} for vectors of encoder {encoder}, the store has those of {cache.encoder}; train anew")


def _manifest(layout: Layout, version: int, encoder: str | None) -> dict[str, Any]:
    return {"layout": layout.name, "block_dim": layout.block_dim, "version": version, "encoder": encoder}


def _joint_spans(layout: Layout) -> list[Span]:
    """The compared columns, neighbouring blocks together: for classic one product over the first two."""
    spans: list[Span] = []
    for state_block, action_block in layout.pairs:
        state, action = layout.state_slice(state_block), layout.action_slice(action_block)
        if spans and (spans[-1][0].stop, spans[-1][1].stop) == (state.start, action.start):
            last_state, last_action = spans.pop()
            state, action = slice(last_state.start, state.stop), slice(last_action.start, action.stop)
        spans.append((state, action))
    return spans


def _inverse(norms: npt.ArrayLike) -> FloatArray:
    """1 / norm, or 0 for a missing vector, so that its cosine with anything is 0."""
    values = np.asarray(norms, np.float32)
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


def _usable(device: str | torch.device) -> torch.device:
    """The device. Raises InputError when torch does not know it or this host does not have it."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # an AssertionError where torch was built without CUDA
        reason = str(error).splitlines()[0]
        raise InputError(f"device {str(device)!r} cannot be used here ({reason}); take 'cpu'") from None
    return found
