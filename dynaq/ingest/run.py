"""The two entry points: files into a store, a market into a store."""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dynaq.encoder import Embedder, Encoder
from dynaq.errors import InputError
from dynaq.ingest.embedding import (
    Embedded,
    Progress,
    candidate_texts,
    check_encoder,
    content_hash,
    embed_pending,
    job_texts,
)
from dynaq.ingest.readers import Unreadable, read_records
from dynaq.ingest.records import Parsed, Rejected, parse_candidate, parse_job
from dynaq.layout import Layout, get_layout
from dynaq.markets import Market
from dynaq.records import Candidate, Job
from dynaq.stores import Store

logger = logging.getLogger(__name__)

BATCH_RECORDS = 1024
BATCH_CHARS = 32 << 20
SHOWN_REJECTIONS = 20


@dataclass(frozen=True)
class Rejection:
    """A record that was not used."""

    file: Path
    line: int
    reason: str


@dataclass(frozen=True)
class Counts:
    """What happened to one kind of record; `embedded` and `unchanged` are of all that the store holds."""

    accepted: int = 0
    rejected: int = 0
    embedded: int = 0
    unchanged: int = 0


@dataclass(frozen=True)
class IngestReport:
    """Counts for both kinds of record, the first rejections, and the files that list all of them."""

    jobs: Counts
    candidates: Counts
    rejections: tuple[Rejection, ...] = ()
    rejected_files: tuple[Path, ...] = ()


def ingest_files(
    store: Store | None,
    *,
    jobs: Sequence[str | Path] = (),
    candidates: Sequence[str | Path] = (),
    encoder: Embedder | None = None,
    layout: str | Layout | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> IngestReport:
    """Read input files into a store and embed what is new or changed there.

    Args:
        store: where to; None with `dry_run`.
        jobs: job files (.jsonl, .csv, .parquet, .xlsx).
        candidates: candidate files.
        encoder: None is the packaged one.
        layout: None is the store's, or extended for a new one.
        dry_run: read and check only; nothing is written, `rejected.jsonl` neither.
        progress: called as the work goes on.

    Records that cannot be used are listed in `rejected.jsonl` beside their file. Raises InputError on a file that
    cannot be read at all, or when the store holds another encoder's vectors.
    """
    job_paths, candidate_paths = [Path(p) for p in jobs], [Path(p) for p in candidates]
    for path in (*job_paths, *candidate_paths):
        if not path.is_file():
            raise InputError(f"input file {path} does not exist")
    rejected = _RejectedFiles(write=not dry_run)
    job_reader = _Reader("jobs", parse_job, rejected, progress)
    candidate_reader = _Reader("candidates", parse_candidate, rejected, progress)
    try:
        if dry_run or store is None:
            for reader, paths in ((job_reader, job_paths), (candidate_reader, candidate_paths)):
                for _ in reader.read(paths):
                    pass
            empty = Embedded(0, 0)
            return _report(job_reader, candidate_reader, {"jobs": empty, "candidates": empty}, rejected)
        embedder, chosen = encoder or Encoder(), resolve_layout(store, layout)
        check_encoder(store, embedder)
        for parsed in _batches(job_reader.read(job_paths)):
            _put_jobs(store, parsed, embedder, chosen)
        for parsed in _batches(candidate_reader.read(candidate_paths)):
            _put_candidates(store, parsed, embedder, chosen)
    finally:
        rejected.close()
    return _report(job_reader, candidate_reader, embed_pending(store, embedder, chosen, progress), rejected)


def ingest_market(
    store: Store,
    market: Market,
    *,
    encoder: Embedder | None = None,
    layout: str | Layout | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Write a market's records, relevance and attribution, and embed what is new or changed."""
    embedder = encoder or Encoder()
    check_encoder(store, embedder)
    store.put_records("job", market.jobs)
    store.put_records("candidate", market.candidates)
    store.put_qrels(market.qrels)
    store.put_meta(attribution=market.attribution)
    embedded = embed_pending(store, embedder, resolve_layout(store, layout), progress)
    return IngestReport(
        _counts(len(market.jobs), 0, embedded["jobs"]), _counts(len(market.candidates), 0, embedded["candidates"])
    )


def resolve_layout(store: Store, layout: str | Layout | None) -> Layout:
    """The layout asked for, else the one the store was embedded with, else extended."""
    if layout is None:
        layout = str(store.meta().get("layout", "extended"))
    return get_layout(layout) if isinstance(layout, str) else layout


def _counts(accepted: int, rejected: int, embedded: Embedded) -> Counts:
    return Counts(accepted, rejected, embedded.embedded, embedded.unchanged)


def _report(
    jobs: _Reader, candidates: _Reader, embedded: dict[str, Embedded], rejected: _RejectedFiles
) -> IngestReport:
    return IngestReport(
        _counts(jobs.accepted, jobs.rejected, embedded["jobs"]),
        _counts(candidates.accepted, candidates.rejected, embedded["candidates"]),
        tuple(rejected.first),
        tuple(sorted(rejected.written)),
    )


@dataclass
class _Reader:
    """Reads the files of one kind and counts; remembers ids, of which each counts once."""

    kind: str
    parse: Callable[[Any], Parsed]
    rejected_files: _RejectedFiles
    progress: Progress | None
    accepted: int = 0
    rejected: int = 0
    seen: dict[str, str] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)

    def read(self, paths: Sequence[Path]) -> Iterator[Parsed]:
        for path in paths:
            for line, raw in read_records(path):
                try:
                    if isinstance(raw, Unreadable):
                        raise Rejected(raw)
                    parsed = self.parse(raw)
                    if first := self.seen.get(parsed.record.id):
                        raise Rejected(f"id {parsed.record.id!r} is there already, in {first}")
                except Rejected as rejection:
                    self.rejected += 1
                    self.rejected_files.add(path, line, str(rejection), raw)
                else:
                    self.accepted += 1
                    self.seen[parsed.record.id] = f"{path.name} line {line}"
                    self.ignored |= parsed.ignored
                    yield parsed
                if self.progress is not None and (self.accepted + self.rejected) % BATCH_RECORDS == 0:
                    self.progress(f"reading {self.kind}", self.accepted + self.rejected, None)
        if self.ignored:
            logger.warning("%s: fields that have no place were ignored: %s", self.kind, ", ".join(sorted(self.ignored)))


class _RejectedFiles:
    """`rejected.jsonl` beside each input that has any, replaced as a whole when reading is over."""

    def __init__(self, *, write: bool) -> None:
        self.first: list[Rejection] = []
        self.written: set[Path] = set()
        self._write = write
        self._lines: dict[Path, list[str]] = defaultdict(list)

    def add(self, path: Path, line: int, reason: str, raw: Any) -> None:
        if len(self.first) < SHOWN_REJECTIONS:
            self.first.append(Rejection(path, line, reason))
        id_ = raw.get("id") if isinstance(raw, dict) else None
        entry = {"file": path.name, "line": line, "reason": reason}
        if isinstance(id_, (str, int)):
            entry["id"] = id_ if isinstance(id_, int) else id_[:200]
        if self._write:
            self._lines[path.parent].append(json.dumps(entry))

    def close(self) -> None:
        for folder, lines in self._lines.items():
            target = folder / "rejected.jsonl"
            temporary = folder / "rejected.jsonl.tmp"
            try:
                temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
                os.replace(temporary, target)
            except OSError as error:
                logger.warning("%s could not be written (%s); the reasons are not kept", target, error.strerror)
            else:
                self.written.add(target)


def _batches(parsed: Iterator[Parsed]) -> Iterator[list[Parsed]]:
    batch: list[Parsed] = []
    chars = 0
    for item in parsed:
        batch.append(item)
        chars += len(item.record.description if isinstance(item.record, Job) else item.record.bio)
        if len(batch) >= BATCH_RECORDS or chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _put_jobs(store: Store, parsed: list[Parsed], encoder: Embedder, layout: Layout) -> None:
    jobs = [item.record for item in parsed if isinstance(item.record, Job)]
    store.put_records("job", jobs)
    given = [item for item in parsed if set(layout.action) <= set(item.vectors)]
    if given:
        store.put_meta(encoder=encoder.name, encoder_revision=encoder.revision, layout=layout.name)
        hashes = [content_hash(job_texts(i.record), layout) for i in given if isinstance(i.record, Job)]
        store.put_vectors("job", [i.record.id for i in given], _stacked(given, layout.action), hashes)


def _put_candidates(store: Store, parsed: list[Parsed], encoder: Embedder, layout: Layout) -> None:
    candidates = [item.record for item in parsed if isinstance(item.record, Candidate)]
    store.put_records("candidate", candidates)
    given = [item for item in parsed if set(layout.state) <= set(item.vectors)]
    if given:
        store.put_meta(encoder=encoder.name, encoder_revision=encoder.revision, layout=layout.name)
        hashes = [content_hash(candidate_texts(i.record), layout) for i in given if isinstance(i.record, Candidate)]
        store.put_vectors("candidate", [i.record.id for i in given], _stacked(given, layout.state), hashes)


def _stacked(items: list[Parsed], blocks: tuple[str, ...]) -> dict[str, Any]:
    return {block: np.stack([item.vectors[block] for item in items]) for block in blocks}
