"""Fills a TensorCache's arrays from a store, in one pass and in place, matching vectors to records by id."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dynaq.errors import InputError
from dynaq.layout import OPTIONAL_JOB_BLOCKS, Layout
from dynaq.stores import Kind, Store, VectorBatch

logger = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[Any]]
Dtype = Literal["float32", "float16"]
HASH_BYTES = 40


@dataclass(frozen=True)
class Side:
    """What differs between jobs and applicants: names, blocks, and this side's block of each compared pair."""

    kind: Kind
    name: str
    vectors: str
    blocks: tuple[str, ...]
    compared: tuple[str, ...]
    optional: tuple[str, ...]


def sides(layout: Layout) -> tuple[Side, Side]:
    """The two sides, jobs and applicants, of a layout."""
    states, actions = zip(*layout.pairs, strict=True)
    return (
        Side("job", "job", "jobs", layout.action, actions, tuple(OPTIONAL_JOB_BLOCKS)),
        Side("candidate", "applicant", "applicants", layout.state, states, ()),
    )


def load_arrays(
    store: Store,
    layout: Layout,
    dtype: Dtype,
    text: bool,
    previous: Mapping[str, Any] | None,
    only: Mapping[str, Iterable[str] | None] | None = None,
    *,
    may_be_empty: bool = False,
) -> Arrays:
    """All arrays of a cache.

    Args:
        store: the store to read.
        layout: which blocks to load.
        dtype: of the vectors.
        text: also load the records' text.
        previous: arrays of an older version; rows with the same content hash are copied from there.
        only: `job` and `applicant` -> ids to load; None or missing means all.
        may_be_empty: a store without any jobs or applicants gives arrays without rows.

    Raises InputError for ids that are a text or an empty list, and when no job or no applicant has usable vectors.
    """
    arrays: Arrays = {}
    wanted_ids = {name: _named(ids) for name, ids in (only or {}).items()}
    for side in sides(layout):
        named = wanted_ids.get(side.name)
        ids = named if named is not None else store.ids(side.kind)
        loading = _Loading(side, ids, np.dtype(dtype), layout.block_dim)
        if previous is not None:
            loading.take_unchanged(previous, store.hashes(side.kind))
        wanted = None if previous is None and named is None else loading.missing()
        if wanted is None or wanted:
            for batch in store.vectors(side.kind, side.blocks, ids=wanted, optional=side.optional):
                loading.add(batch)
        side_arrays = loading.finish(store, may_be_empty=may_be_empty)
        if text:
            side_arrays |= _texts(store, side, unpack(side_arrays, f"{side.name}_id"), previous, loading.kept)
        arrays |= side_arrays
    return arrays


def _named(ids: Iterable[str] | None) -> list[str] | None:
    """The ids without duplicates, None for all. Raises InputError for a text or an empty list."""
    if isinstance(ids, str):
        raise InputError(f"ids must be a list, got the text {ids!r}; name a layout by keyword: layout={ids!r}")
    named = None if ids is None else list(dict.fromkeys(ids))
    if named == []:
        raise InputError("the list of ids is empty; name at least one, or leave it out for all")
    return named


class _Loading:
    """One side's arrays while they are filled."""

    def __init__(self, side: Side, ids: Sequence[str], dtype: np.dtype[Any], block_dim: int) -> None:
        self.side, self.block_dim = side, block_dim
        self.ids = ids
        self.index = {id_: i for i, id_ in enumerate(ids)}
        # Pages of zeros cost nothing until they are written.
        self.vectors = np.zeros((len(ids), len(side.blocks) * block_dim), dtype)
        self.norms = np.zeros((len(ids), len(side.compared)), np.float32)
        self.hashes = np.zeros(len(ids), f"S{HASH_BYTES}")
        self.filled = np.zeros(len(ids), bool)
        self.kept: dict[str, int] = {}
        self.problems: list[tuple[str, str]] = []
        self.orphans = 0

    def take_unchanged(self, previous: Mapping[str, Any], hashes: Mapping[str, str | None]) -> None:
        name = self.side.name
        old_hashes = previous[f"{name}_hashes"]
        for row, id_ in enumerate(unpack(previous, f"{name}_id")):
            stored = hashes.get(id_)
            if stored is not None and id_ in self.index and stored.encode() == old_hashes[row]:
                self.kept[id_] = row
        if not self.kept:
            return
        new = np.fromiter((self.index[id_] for id_ in self.kept), np.int64)
        old = np.fromiter(self.kept.values(), np.int64)
        self.vectors[new] = previous[self.side.vectors][old]
        self.norms[new] = previous[f"{name}_norms"][old]
        self.hashes[new] = old_hashes[old]
        self.filled[new] = True

    def missing(self) -> list[str]:
        return [self.ids[i] for i in np.flatnonzero(~self.filled)]

    def add(self, batch: VectorBatch) -> None:
        self.problems += [(id_, reason) for id_, reason in batch.problems if id_ in self.index]
        rows = np.fromiter((self.index.get(id_, -1) for id_ in batch.ids), np.int64, len(batch.ids))
        known = rows >= 0
        if not known.all():
            self.orphans += int((~known).sum())
            rows = rows[known]
        if not len(rows):
            return
        consecutive = rows[-1] - rows[0] + 1 == len(rows) and bool((np.diff(rows) == 1).all())
        target: Any = slice(rows[0], rows[-1] + 1) if consecutive else rows
        for i, name in enumerate(self.side.blocks):
            block = batch.blocks[name] if known.all() else batch.blocks[name][known]
            self.vectors[target, i * self.block_dim : (i + 1) * self.block_dim] = block
            norm = np.sqrt(np.einsum("ij,ij->i", block, block))
            for pair, compared in enumerate(self.side.compared):
                if compared == name:
                    self.norms[target, pair] = norm
        self.hashes[target] = [(h or "").encode() for h, k in zip(batch.hashes, known, strict=True) if k]
        self.filled[target] = True

    def finish(self, store: Store, *, may_be_empty: bool) -> Arrays:
        name = self.side.name
        ids: Sequence[str] = self.ids
        if not self.filled.all():
            self._report(store)
            rows = np.flatnonzero(self.filled)
            ids = [self.ids[i] for i in rows]
            for to, origin in enumerate(rows):  # moved up in place: a copy would double the memory
                if to != origin:
                    self.vectors[to] = self.vectors[origin]
            self.vectors = self.vectors[: len(rows)]
            self.norms, self.hashes = self.norms[rows], self.hashes[rows]
        elif self.orphans or not (self.ids or may_be_empty):
            self._report(store)
        return {
            self.side.vectors: self.vectors,
            f"{name}_norms": self.norms,
            f"{name}_hashes": self.hashes,
            **pack(ids, f"{name}_id"),
        }

    def _report(self, store: Store) -> None:
        name, used = self.side.name, int(self.filled.sum())
        left_out = len(self.ids) - used
        reason = f"{name} {self.problems[0][0]!r}: {self.problems[0][1]}" if self.problems else "not embedded"
        if not self.ids:
            raise InputError(f"store {store.uri} holds no {name}s; bring some with `dynaq ingest --store {store.uri}`")
        if used == 0:
            raise InputError(
                f"store {store.uri}: none of its {left_out} {name}s has usable vectors ({reason}); "
                f"run `dynaq ingest --store {store.uri}`, or choose the layout its embeddings were made for"
            )
        if left_out:
            logger.warning("store %s: %d %ss left out, e.g. %s", store.uri, left_out, name, reason)
        if self.orphans:
            logger.warning("store %s: %d embeddings of %ss that have no text left out", store.uri, self.orphans, name)


def _texts(
    store: Store, side: Side, ids: Sequence[str], previous: Mapping[str, Any] | None, kept: Mapping[str, int]
) -> Arrays:
    texts: dict[str, str] = {}
    if previous is not None:
        texts = {id_: unpack_one(previous, f"{side.name}_text", kept[id_]) for id_ in ids if id_ in kept}
    wanted = [id_ for id_ in ids if id_ not in texts]
    if wanted:
        selected = wanted if texts else None
        texts |= {record.id: record.model_dump_json() for record in store.records(side.kind, selected)}
    return pack([texts[id_] for id_ in ids], f"{side.name}_text")


def pack(texts: Iterable[str], name: str) -> Arrays:
    """Pack texts into two flat arrays: UTF-8 bytes, and `[n + 1]` offsets into them."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(e) for e in encoded], out=offsets[1:])
    return {f"{name}_bytes": np.frombuffer(b"".join(encoded), np.uint8), f"{name}_offsets": offsets}


def unpack(arrays: Mapping[str, Any], name: str) -> list[str]:
    """The texts that `pack` stored under `name`."""
    data = arrays[f"{name}_bytes"].tobytes()
    offsets = arrays[f"{name}_offsets"].tolist()
    return [data[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(offsets)]


def unpack_one(arrays: Mapping[str, Any], name: str, index: int) -> str:
    """The text at `index` of those that `pack` stored under `name`."""
    start, end = arrays[f"{name}_offsets"][index : index + 2]
    text: str = arrays[f"{name}_bytes"][start:end].tobytes().decode("utf-8", "surrogatepass")
    return text
