"""The interface behind every store URI, and the records that pass through it.

Two implementations share one conformance suite: `dynaq.stores.folder` (Parquet, no server) and `dynaq.stores.mongo`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynaq.errors import InputError
from dynaq.feedback.events import Decision, Exposure, FeedbackEvent
from dynaq.judging.judgement import Judgement, judgement_row
from dynaq.layout import CANDIDATE_BLOCKS, JOB_BLOCKS
from dynaq.qrels import Qrels
from dynaq.records import Candidate, Job

FloatArray = npt.NDArray[np.float32]


Kind = Literal["job", "candidate"]


@dataclass(frozen=True)
class Collections:
    """Where the four-collection schema keeps one kind of record.

    Args:
        text: collection of the records themselves; their id is `_id`.
        embeddings: collection of their vectors.
        reference: field of a document in `embeddings` that holds the record's id.
        blocks: block name -> field of a document in `embeddings` that holds the block's vector.
    """

    text: str
    embeddings: str
    reference: str
    blocks: Mapping[str, str]


COLLECTIONS: Mapping[Kind, Collections] = {
    "job": Collections("jobs_text", "job_embeddings", "original_job_id", JOB_BLOCKS),
    "candidate": Collections("candidates_text", "candidates_embeddings", "original_candidate_id", CANDIDATE_BLOCKS),
}


@dataclass(frozen=True)
class VectorBatch:
    """Vectors of some records, in the store's own order.

    Args:
        ids: record ids.
        blocks: block name -> float32 `[len(ids), dimension]`, finite; zeros where an optional block is missing.
        hashes: content hash of the text each row was embedded from; None for rows that were embedded elsewhere.
        problems: (id, reason) of records left out because their vectors cannot be used.
    """

    ids: list[str]
    blocks: dict[str, FloatArray]
    hashes: list[str | None]
    problems: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Added:
    """What was added to a store.

    Args:
        events: feedback.
        applicants: ids of applicants whose vectors are there.
        erased: whether someone was erased; who it was is not told.
    """

    events: Sequence[FeedbackEvent] = ()
    applicants: Sequence[str] = ()
    erased: bool = False


class Changes(Protocol):
    """What any process adds to a store. Nothing is left out, some may be told twice. Used from one thread."""

    def next(self) -> Added:
        """What has been added lately; waits for it for at most half a second.

        Raises DynaqError while the store cannot be reached; a later call tells what came meanwhile.
        """
        ...

    def close(self) -> None:
        """Stop watching. `next` may still be called, and starts anew."""
        ...


class Claimed(NamedTuple):
    """Outcome of `Store.claim`: jobs of the pairs to ask about, and judgements added meanwhile (JUDGEMENT_SCHEMA)."""

    job_ids: list[str]
    judged: pa.Table


class RunSource(NamedTuple):
    """A run that a service can serve: its folder's URI, and its id, which changes with the content."""

    uri: str
    run_id: str


@dataclass(frozen=True)
class Agreement:
    """What a group of replicas has agreed on.

    Args:
        serving: the run that all serve; None while they have not agreed on one.
        others: number of other replicas that are there.
        problems: why some of them are not ready for a newer run.
    """

    serving: RunSource | None
    others: int
    problems: Sequence[str]


class ReplicaGroup(Protocol):
    """One replica's part in the group of all replicas of a service. Threads may share it. Raises DynaqError."""

    def take(self, bucket: str, tokens: float, rate: float, burst: float) -> float:
        """Take tokens from a bucket of the group, which fills at `rate` per second up to `burst`.

        Returns 0; if there are too few, takes none and returns the seconds until there are enough.
        """
        ...

    def join(self) -> RunSource | None:
        """Become a member; returns the run that the others serve. From now on none is agreed on without this one."""
        ...

    def agree(self, ready: RunSource | None, problem: str | None) -> Agreement:
        """Report the run that this replica has checked and could serve, and why it refused a newer one.

        A run is agreed on as soon as every member that is there is ready for it.
        """
        ...

    def leave(self) -> None:
        """Cease to be a member."""
        ...


class FeedbackStore(Protocol):
    """What applicants did and what they were shown. Also a context manager."""

    def add_feedback(self, events: Sequence[FeedbackEvent]) -> int:
        """Keep events and return how many were new; the first of a key wins. Durable on disk when this returns."""
        ...

    def feedback(self, applicants: Sequence[str] | None = None) -> pa.Table:
        """Events, oldest first, with the columns of `FEEDBACK_SCHEMA`."""
        ...

    def add_exposures(self, exposures: Sequence[Exposure]) -> None:
        """Keep what applicants were shown, keyed and durable like events."""
        ...

    def exposures(self, applicants: Sequence[str] | None = None) -> pa.Table:
        """Exposures, oldest first, with the columns of `EXPOSURE_SCHEMA`."""
        ...

    def add_decisions(self, decisions: Sequence[Decision]) -> None:
        """Keep what operators decided, keyed and durable like events."""
        ...

    def decisions(self, applicants: Sequence[str] | None = None) -> pa.Table:
        """Decisions, oldest first, with the columns of `DECISION_SCHEMA`."""
        ...

    def forget_events(self, applicant_id: str) -> dict[str, int]:
        """Delete an applicant's events, exposures and decisions. Returns how many rows of each. Can be repeated."""
        ...

    def expire_events(self, before: datetime) -> int:
        """Delete events and exposures older than a time. Returns how many rows."""
        ...

    def changes(self) -> Changes | None:
        """What is added from now on; None for a store that only this process writes feedback to."""
        ...

    def group(self, name: str, member: str, lease_seconds: float) -> ReplicaGroup | None:
        """A replica's part in the group of this name; None for a store that allows one replica.

        member: name of the replica, which counts as there for `lease_seconds` after each of its reports.
        """
        ...

    def close(self) -> None:
        """Finish writing and release the store. Idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(FeedbackStore, Protocol):
    """A catalogue, a cohort, their vectors, the ledger and the relevance grades. Also a context manager.

    Writes are upserts by id, so repeating one changes nothing. Records are returned ordered by id.
    """

    @property
    def uri(self) -> str:
        """The store's URI with credentials masked."""
        ...

    @overload
    def records(self, kind: Literal["job"], ids: Sequence[str] | None = None) -> Iterator[Job]: ...
    @overload
    def records(self, kind: Literal["candidate"], ids: Sequence[str] | None = None) -> Iterator[Candidate]: ...
    @overload
    def records(self, kind: Kind, ids: Sequence[str] | None = None) -> Iterator[Job] | Iterator[Candidate]: ...
    def records(self, kind: Kind, ids: Sequence[str] | None = None) -> Iterator[Job] | Iterator[Candidate]:
        """The records with these ids (None: all), ordered by id. Unknown ids are ignored."""
        ...

    def ids(self, kind: Kind) -> list[str]:
        """Ids of all records, ordered."""
        ...

    @overload
    def put_records(self, kind: Literal["job"], records: Iterable[Job]) -> None: ...
    @overload
    def put_records(self, kind: Literal["candidate"], records: Iterable[Candidate]) -> None: ...
    def put_records(self, kind: Kind, records: Iterable[Job] | Iterable[Candidate]) -> None:
        """Add records; one with an existing id replaces the old record but not its vectors."""
        ...

    def add_applicant(self, applicant: Candidate, blocks: Mapping[str, FloatArray], hash_: str) -> Candidate | None:
        """Add an applicant with their vectors unless the id is taken; returns the record that was there before.

        If that is the same record, its vectors are written again, so that a call that was interrupted can be repeated.

        Args:
            applicant: the record.
            blocks: block name -> `[dimension]`.
            hash_: content hash of the text from which the vectors were made.
        """
        ...

    def delete_records(self, kind: Kind, ids: Sequence[str]) -> None:
        """Remove records together with their vectors. Unknown ids are ignored."""
        ...

    def vectors(
        self, kind: Kind, blocks: Sequence[str], *, ids: Sequence[str] | None = None, optional: Sequence[str] = ()
    ) -> Iterator[VectorBatch]:
        """Vectors of the records with these ids (None: all).

        Args:
            kind: of the records.
            blocks: which blocks to read; a record that lacks one is left out and listed in the batch's problems.
            ids: of the records.
            optional: blocks that a record may lack; they are then zeros.
        """
        ...

    def put_vectors(
        self, kind: Kind, ids: Sequence[str], blocks: Mapping[str, FloatArray], hashes: Sequence[str] | None = None
    ) -> None:
        """Add vectors, replacing all vectors that a record had before.

        Args:
            kind: of the records.
            ids: record ids.
            blocks: block name -> `[len(ids), dimension]`.
            hashes: content hash of the text that each row was embedded from; None where that is not known.

        Raises InputError for an unknown block, a wrong shape, or numbers that are not finite.
        """
        ...

    def hashes(self, kind: Kind) -> dict[str, str | None]:
        """Id -> content hash for every record that has vectors; None for those embedded elsewhere."""
        ...

    def catalogue_version(self) -> str | None:
        """Another one after records or vectors were written, found without reading them; None if the store has none."""
        ...

    def dimension(self) -> int:
        """Numbers per block: what the meta records, else what the vectors have, else 384."""
        ...

    def clear_vectors(self) -> None:
        """Delete the vectors of all records and keep the records. Can be repeated after an interruption."""
        ...

    def judgements(self, judge: str | None = None, applicants: Sequence[str] | None = None) -> pa.Table:
        """The ledger, or its part for a judge or applicants, with the columns of `JUDGEMENT_SCHEMA`."""
        ...

    def add_judgements(self, judgements: Sequence[Judgement]) -> None:
        """Keep judgements; the first of each (applicant, job, judge) wins, and abstentions are not kept."""
        ...

    def claim(self, applicant_id: str, job_ids: Sequence[str], judge: str) -> Claimed:
        """Claim pairs that the ledger lacks, before the judge is asked, so that no other process asks for them too.

        A pair that is neither claimed nor judged by now is being asked for by another process: call again later.
        """
        ...

    def release(self, applicant_id: str, job_ids: Sequence[str], judge: str) -> None:
        """Give up claims, after their judgements were added, or because there are none. Others may then claim."""
        ...

    def qrels(self) -> Qrels | None:
        """Relevance grades, or None if there are none."""
        ...

    def put_qrels(self, qrels: Qrels) -> None:
        """Replace all relevance grades."""
        ...

    def forget_records(self, applicant_id: str) -> dict[str, int]:
        """Delete all that the store holds of an applicant but events: text, vectors, judgements, relevance.

        Returns how many rows of each. Can be repeated after an interruption.
        """
        ...

    def note_forgotten(self, note: Mapping[str, str]) -> None:
        """Add to the record of erasures, which is only ever added to. Durable when this returns."""
        ...

    def forgotten(self) -> list[dict[str, str]]:
        """The record of erasures, oldest first."""
        ...

    def meta(self) -> dict[str, Any]:
        """Metadata of the store as a whole: encoder, layout, attribution."""
        ...

    def put_meta(self, **values: Any) -> None:
        """Set some entries of `meta`; the others stay."""
        ...


def new_judgements(judgements: Iterable[Judgement], known: set[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Rows to add, without abstentions, duplicates and keys in `known`. Adds the new keys to `known`."""
    rows = []
    for judgement in judgements:
        key = (judgement.applicant_id, judgement.job_id, judgement.judge)
        if judgement.abstained or key in known:
            continue
        known.add(key)
        rows.append(judgement_row(judgement))
    return rows


def usable_rows(
    ids: Sequence[str], blocks: dict[str, FloatArray], hashes: list[str | None], problems: dict[str, str]
) -> VectorBatch:
    """Leave out rows that have a problem (id -> reason) or hold numbers that are not finite.

    Args:
        ids: record ids, one per row.
        blocks: block name -> `[len(ids), dimension]`.
        hashes: content hashes, one per row.
        problems: found while the rows were read; extended here.
    """
    for name, block in blocks.items():
        flat = block.reshape(-1)
        # One BLAS pass instead of a boolean array: a sum of squares preserves NaN and infinity.
        if np.isfinite(np.dot(flat, flat)):
            continue
        for row in np.flatnonzero(~np.isfinite(block).all(axis=1)):
            problems.setdefault(ids[row], f"{name} holds NaN or infinity")
    if not problems:
        return VectorBatch(list(ids), blocks, hashes)
    keep = [i for i, id_ in enumerate(ids) if id_ not in problems]
    return VectorBatch(
        [ids[i] for i in keep],
        {name: block[keep] for name, block in blocks.items()},
        [hashes[i] for i in keep],
        list(problems.items()),
    )


def check_vectors(
    kind: Kind, ids: Sequence[str], blocks: Mapping[str, FloatArray], hashes: Sequence[str] | None, dimension: int
) -> None:
    """Raises InputError unless each block is a known one of shape `[len(ids), dimension]` with finite numbers."""
    known = COLLECTIONS[kind].blocks
    if hashes is not None and len(hashes) != len(ids):
        raise InputError(f"{len(hashes)} hashes for {len(ids)} {kind} vectors")
    for name, block in blocks.items():
        if name not in known:
            raise InputError(f"{kind} vectors: block {name!r} is not one of {', '.join(known)}")
        if block.shape != (len(ids), dimension):
            raise InputError(f"{kind} vectors: block {name!r} is {block.shape}, not {(len(ids), dimension)}")
        if not np.isfinite(block).all():
            bad = ids[int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])]
            raise InputError(f"{kind} {bad!r}: block {name!r} holds NaN or infinity")
