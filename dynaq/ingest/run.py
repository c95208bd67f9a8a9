"""The two entry points: ingest files into a store, and ingest a market into a store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dynaq.encoder import Embedder
from dynaq.errors import InputError
from dynaq.ingest.columns import NO_MAPPING, RecordKind, shown
from dynaq.ingest.documents import is_document, write_document_ids
from dynaq.ingest.embedding import (
    Embedded,
    Progress,
    candidate_texts,
    check_encoder,
    content_hash,
    embed_pending,
    encoder_for,
    job_texts,
    record_encoder,
)
from dynaq.ingest.known_skills import add_known_skills
from dynaq.ingest.parse_records import Parsed, parse_candidate, parse_job
from dynaq.ingest.record_reader import InputOptions, RecordReader
from dynaq.ingest.report import Counts, IngestReport, NothingAccepted, RejectedRecords, impersonal_note
from dynaq.ingest.resume_model import ResumeModel, ResumeReader
from dynaq.layout import BLOCK_DIM, Layout, get_layout
from dynaq.markets import Market
from dynaq.personal.redaction import keeps_personal_data
from dynaq.records import Candidate, Job
from dynaq.stores import Store

BATCH_RECORDS = 1024
RECORD_BATCH_CHARS = 32 << 20


def ingest_files(
    store: Store | None,
    *,
    jobs: Sequence[str | Path] = (),
    candidates: Sequence[str | Path] = (),
    encoder: Embedder | None = None,
    layout: str | Layout | None = None,
    dry_run: bool = False,
    options: InputOptions | None = None,
    progress: Progress | None = None,
    resume_model: ResumeModel | None = None,
) -> IngestReport:
    """Read input files into a store and embed what is new or changed there.

    Args:
        store: the target; None with `dry_run`. It remembers which columns the user named.
        jobs: job files (.jsonl, .json, .csv, .tsv, .parquet, .xlsx, each also as .gz).
        candidates: candidate files, and documents or folders of them (.pdf, .docx, .txt, .html), one applicant
            each.
        encoder: None is the store's, or the packaged default for a new store.
        layout: None is the store's, or extended for a new one.
        dry_run: read and check only; nothing is written, not even `rejected.jsonl`.
        options: how to read the files; None detects everything.
        progress: called as the work goes on.
        resume_model: finds the fields of documents; None leaves that to the rules, and so does a dry run.

    Records that cannot be used are listed in `rejected.jsonl` beside their file, the ids of documents in
    `ingested.csv` beside them. Raises InputError on a file that cannot be read at all, or when the store holds another
    encoder's vectors; before anything is written, InputError when `resume_model` cannot be asked, and NothingAccepted
    when no record of a kind can be used.
    """
    how = _with_saved_choices(options or InputOptions(), store)
    asking = ResumeReader(resume_model) if resume_model is not None and not dry_run else None
    if asking is not None:  # documents first, so that a model that cannot be asked is found before anything is written
        candidates = sorted(candidates, key=lambda path: not is_document(Path(path)))
    inputs = _Inputs.of(jobs, candidates, how, _dimension(store, encoder), progress, asking)
    if store is not None:
        inputs.jobs.duplicates.stored = lambda: store.records("job")
        inputs.candidates.duplicates.stored = lambda: store.records("candidate")
    if dry_run or store is None:
        inputs.drain()
        return inputs.report(None)
    embedder, chosen = encoder or encoder_for(store), resolve_layout(store, layout)
    check_encoder(store, embedder)
    job_batches, candidate_batches = inputs.started()
    try:
        _save_columns(store, options)
        for parsed in job_batches:
            _put_jobs(store, parsed, embedder, chosen)
        for parsed in candidate_batches:
            _put_candidates(store, add_known_skills(parsed, store, embedder), embedder, chosen)
        write_document_ids(inputs.candidates.document_ids)
    finally:
        inputs.rejected.write()
    return inputs.report(embed_pending(store, embedder, chosen, progress, keep_personal=how.keep_personal))


def require_records(
    *,
    jobs: Sequence[str | Path] = (),
    candidates: Sequence[str | Path] = (),
    encoder: Embedder | None = None,
    options: InputOptions | None = None,
) -> None:
    """Read until there is a usable record of each kind. Raises NothingAccepted when a kind has none.

    For a command that creates its store: it creates none for files in which nothing can be used.
    """
    _Inputs.of(jobs, candidates, options or InputOptions(), _dimension(None, encoder), None).started()


def _with_saved_choices(options: InputOptions, store: Store | None) -> InputOptions:
    """The options with what a store remembers where the user says nothing: columns, and whether personal data stays."""
    meta = store.meta() if store is not None else {}
    saved = meta.get("columns") or {}
    kinds: tuple[RecordKind, ...] = ("jobs", "candidates")
    mappings = {kind: options.mappings.get(kind, NO_MAPPING).after(saved.get(kind, {})) for kind in kinds}
    keep = keeps_personal_data(meta) if options.keep_personal is None else options.keep_personal
    return replace(options, mappings=mappings, keep_personal=keep)


def _save_columns(store: Store, options: InputOptions | None) -> None:
    if options is None or not any(mapping.explicit for mapping in options.mappings.values()):
        return
    merged = _with_saved_choices(options, store).mappings
    store.put_meta(
        columns={
            kind: {field: list(columns) for field, columns in mapping.sources.items()}
            for kind, mapping in merged.items()
            if mapping.sources
        }
    )


@dataclass(frozen=True)
class _Inputs:
    """The files of both kinds and their readers."""

    jobs: RecordReader
    candidates: RecordReader
    job_paths: list[Path]
    candidate_paths: list[Path]
    rejected: RejectedRecords

    @classmethod
    def of(
        cls,
        jobs: Sequence[str | Path],
        candidates: Sequence[str | Path],
        options: InputOptions,
        dimension: int,
        progress: Progress | None,
        resumes: ResumeReader | None = None,
    ) -> _Inputs:
        job_paths, candidate_paths = [Path(p) for p in jobs], [Path(p) for p in candidates]
        for path in (*job_paths, *candidate_paths):
            if not path.exists():
                raise InputError(f"input file {path} does not exist")
        rejected = RejectedRecords()
        return cls(
            RecordReader("jobs", partial(parse_job, dimension=dimension), rejected, options, progress),
            RecordReader(
                "candidates", partial(parse_candidate, dimension=dimension), rejected, options, progress, resumes
            ),
            job_paths,
            candidate_paths,
            rejected,
        )

    def drain(self) -> None:
        """Read everything, for the counts alone."""
        for _ in itertools.chain(self.jobs.read(self.job_paths), self.candidates.read(self.candidate_paths)):
            pass

    def started(self) -> tuple[Iterator[list[Parsed]], Iterator[list[Parsed]]]:
        """Batches of each kind, the first of which is already read. Raises NothingAccepted when a kind has none."""
        return (
            self._first(self.jobs, self.job_paths),
            self._first(self.candidates, self.candidate_paths),
        )

    def _first(self, reader: RecordReader, paths: list[Path]) -> Iterator[list[Parsed]]:
        batches = _batches(reader.read(paths))
        first = next(batches, None)
        if first is None and paths and not reader.dropped:
            raise NothingAccepted(self._nothing(reader, paths), self.report(None))
        return itertools.chain([first] if first else [], batches)

    def _nothing(self, reader: RecordReader, paths: list[Path]) -> str:
        names = ", ".join(path.name for path in paths[:3]) + (" …" if len(paths) > 3 else "")
        groups = self.rejected.groups()
        if not groups:
            return f"no {reader.kind} in {names}: it holds no records; nothing was written"
        first = groups[0].example
        message = (
            f"none of {reader.rejected} {reader.kind} in {names} can be used: {groups[0].count} × {first.reason} "
            f"(first: {first.file.name} line {first.line})"
        )
        if reader.notes:
            message += f"; {'; '.join(reader.notes[:3])}"
        if reader.columns:
            message += f"; {reader.advice() or 'columns found: ' + shown(list(reader.columns))}"
        return message + "; nothing was written"

    def report(self, embedded: dict[str, Embedded] | None) -> IngestReport:
        """The outcome of reading, and of embedding if that was done."""
        embedded = embedded or {"jobs": Embedded(0, 0), "candidates": Embedded(0, 0)}
        notes = [*self.jobs.notes, *self.candidates.notes]
        if self.candidates.resumes is not None:
            notes += self.candidates.resumes.notes()
        if count := embedded["candidates"].personal:
            notes.append(impersonal_note(count))
        return IngestReport(
            _counts(self.jobs, embedded["jobs"]),
            _counts(self.candidates, embedded["candidates"]),
            rejections=tuple(self.rejected.first),
            rejected_files=tuple(sorted(self.rejected.written)),
            groups=self.rejected.groups(),
            mended=tuple((self.jobs.mendings + self.candidates.mendings).most_common()),
            notes=tuple(notes),
            personal=tuple(self.candidates.personal.most_common()),
            advice=tuple(filter(None, (self.jobs.advice(), self.candidates.advice()))),
            alike=tuple(self.candidates.alike),
        )


def _counts(reader: RecordReader, embedded: Embedded) -> Counts:
    return Counts(
        reader.accepted, reader.rejected, embedded.embedded, embedded.unchanged,
        reader.mended, reader.exact, reader.near, reader.dropped,
    )  # fmt: skip


def ingest_market(
    store: Store,
    market: Market,
    *,
    encoder: Embedder | None = None,
    layout: str | Layout | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Write a market's records, relevance and attribution, and embed what is new or changed."""
    embedder = encoder or encoder_for(store)
    check_encoder(store, embedder)
    store.put_records("job", market.jobs)
    store.put_records("candidate", market.applicants)
    store.put_qrels(market.qrels)
    store.put_meta(attribution=market.attribution)
    embedded = embed_pending(store, embedder, resolve_layout(store, layout), progress)
    return IngestReport(
        Counts(len(market.jobs), 0, embedded["jobs"].embedded, embedded["jobs"].unchanged),
        Counts(len(market.applicants), 0, embedded["candidates"].embedded, embedded["candidates"].unchanged),
    )


def resolve_layout(store: Store, layout: str | Layout | None) -> Layout:
    """The given layout, else the one that the store was embedded with, else extended."""
    if layout is None:
        layout = str(store.meta().get("layout", "extended"))
    return get_layout(layout) if isinstance(layout, str) else layout


def _dimension(store: Store | None, encoder: Embedder | None) -> int:
    """Length of the vectors that a file may bring: the store's if it has vectors, else the encoder's."""
    if store is not None and (encoder is None or store.hashes("job") or store.hashes("candidate")):
        return store.dimension()
    return encoder.dimension if encoder is not None else BLOCK_DIM


def _batches(parsed: Iterator[Parsed]) -> Iterator[list[Parsed]]:
    batch: list[Parsed] = []
    chars = 0
    for item in parsed:
        batch.append(item)
        chars += len(item.record.description if isinstance(item.record, Job) else item.record.bio)
        if len(batch) >= BATCH_RECORDS or chars >= RECORD_BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _put_jobs(store: Store, parsed: list[Parsed], encoder: Embedder, layout: Layout) -> None:
    jobs = [item.record for item in parsed if isinstance(item.record, Job)]
    store.put_records("job", jobs)
    given = [item for item in parsed if set(layout.action) <= set(item.vectors)]
    if given:
        record_encoder(store, encoder, layout)
        hashes = [content_hash(job_texts(i.record), layout) for i in given if isinstance(i.record, Job)]
        store.put_vectors("job", [i.record.id for i in given], _stacked(given, layout.action), hashes)


def _put_candidates(store: Store, parsed: list[Parsed], encoder: Embedder, layout: Layout) -> None:
    candidates = [item.record for item in parsed if isinstance(item.record, Candidate)]
    store.put_records("candidate", candidates)
    given = [item for item in parsed if set(layout.state) <= set(item.vectors)]
    if given:
        record_encoder(store, encoder, layout)
        hashes = [content_hash(candidate_texts(i.record), layout) for i in given if isinstance(i.record, Candidate)]
        store.put_vectors("candidate", [i.record.id for i in given], _stacked(given, layout.state), hashes)


def _stacked(items: list[Parsed], blocks: tuple[str, ...]) -> dict[str, Any]:
    return {block: np.stack([item.vectors[block] for item in items]) for block in blocks}
