"""The embedded store: a folder of Parquet tables with the same records as in MongoDB, without a server."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynaq.feedback.events import (
    DECISION_SCHEMA,
    EXPOSURE_SCHEMA,
    FEEDBACK_SCHEMA,
    Decision,
    Exposure,
    FeedbackEvent,
)
from dynaq.judging.judgement import JUDGEMENT_SCHEMA, Judgement
from dynaq.layout import BLOCK_DIM
from dynaq.qrels import QRELS_SCHEMA, Qrels, qrels_from_table
from dynaq.records import Candidate, Job
from dynaq.stores.base import (
    COLLECTIONS,
    Claimed,
    Collections,
    FloatArray,
    Kind,
    Store,
    VectorBatch,
    check_vectors,
    new_judgements,
    usable_rows,
)
from dynaq.stores.folder_events import FolderEvents
from dynaq.stores.segments import MAX_SEGMENTS_WHILE_OPEN, SegmentFolder, groups_with, live_batches, sync_folder

JOBS_TEXT_SCHEMA = pa.schema(
    [
        ("_id", pa.string()),
        ("job_title", pa.string()),
        ("description", pa.large_string()),
        ("technical_skills", pa.list_(pa.string())),
        ("soft_skills", pa.list_(pa.string())),
        ("experience_requirements", pa.list_(pa.string())),
        ("metadata", pa.large_string()),  # JSON
    ]
)
CANDIDATES_TEXT_SCHEMA = pa.schema(
    [
        ("_id", pa.string()),
        ("bio", pa.large_string()),
        ("skills", pa.list_(pa.string())),
        ("soft_skills", pa.list_(pa.string())),
        ("experience", pa.large_string()),  # JSON list of positions
    ]
)
ERASURES = "forgotten.jsonl"
LEDGER_KEYS = ("applicant_id", "job_id", "judge")
BATCH_ROWS = 4096
WRITE_BATCH_CHARS = 64 << 20  # a batch of very long texts has fewer rows


class FolderStore(Store):
    """A store in a folder. See `Store` for the interface and `dynaq.stores.segments` for how it survives a crash."""

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False) -> None:
        self._folder = SegmentFolder(path, create=create, read_only=read_only)
        self._known_judgements: set[tuple[str, str, str]] | None = None
        self._events: FolderEvents | None = None  # opened by the first write

    @property
    def uri(self) -> str:
        return str(self._folder.path)

    def records(self, kind: Kind, ids: Sequence[str] | None = None) -> Iterator[Any]:
        record = RECORDS[kind]
        return (record(row) for row in self._text_rows(COLLECTIONS[kind], ids))

    def ids(self, kind: Kind) -> list[str]:
        return self._ids(COLLECTIONS[kind])

    def put_records(self, kind: Kind, records: Iterable[Job] | Iterable[Candidate]) -> None:
        schema = TEXT_SCHEMAS[kind]
        self._folder.append(COLLECTIONS[kind].text, _text_batches(records, ROW_OF[kind], schema), schema)

    def add_applicant(self, applicant: Candidate, blocks: Mapping[str, FloatArray], hash_: str) -> Candidate | None:
        before = next(self.records("candidate", [applicant.id]), None)
        if before is None:
            self.put_records("candidate", [applicant])
        if before is None or before == applicant:
            self.put_vectors("candidate", [applicant.id], {b: v[None] for b, v in blocks.items()}, [hash_])
        return before

    def delete_records(self, kind: Kind, ids: Sequence[str]) -> None:
        self._delete_records(kind, pa.array(list(ids), pa.string()))

    def _delete_records(self, kind: Kind, ids: pa.Array) -> dict[str, int]:
        names = COLLECTIONS[kind]
        return {
            table: self._folder.delete(table, (key,), key, lambda values: pc.is_in(values, ids))
            for table, key in ((names.embeddings, names.reference), (names.text, "_id"))
        }

    def vectors(
        self, kind: Kind, blocks: Sequence[str], *, ids: Sequence[str] | None = None, optional: Sequence[str] = ()
    ) -> Iterator[VectorBatch]:
        names = COLLECTIONS[kind]
        columns = [names.reference, "content_hash", *(names.blocks[name] for name in blocks)]
        keep = None if ids is None else set(ids)
        segments = self._folder.open_segments(names.embeddings)
        dimension = self.dimension()
        for batch in live_batches(segments, (names.reference,), columns, keep):
            batch_ids = batch[names.reference].to_pylist()
            problems: dict[str, str] = {}
            arrays: dict[str, FloatArray] = {}
            for name in blocks:
                column = batch[names.blocks[name]]
                if column.null_count:
                    missing = column.is_null().to_numpy(zero_copy_only=False)
                    if name not in optional:
                        problems |= {batch_ids[i]: f"no {names.blocks[name]}" for i in np.flatnonzero(missing)}
                    array = np.zeros((len(batch_ids), dimension), np.float32)
                    array[~missing] = column.drop_null().flatten().to_numpy().reshape(-1, dimension)
                else:
                    array = column.flatten().to_numpy().reshape(-1, dimension)
                arrays[name] = array
            yield usable_rows(batch_ids, arrays, batch["content_hash"].to_pylist(), problems)

    def put_vectors(
        self, kind: Kind, ids: Sequence[str], blocks: Mapping[str, FloatArray], hashes: Sequence[str] | None = None
    ) -> None:
        dimension = self.dimension()
        check_vectors(kind, ids, blocks, hashes, dimension)
        if not ids:
            return
        names = COLLECTIONS[kind]
        schema = _vector_schema(names, dimension)
        columns: list[Any] = [pa.array(ids, pa.string())]
        for name in names.blocks:
            if name in blocks:
                values = pa.array(np.ascontiguousarray(blocks[name], np.float32).reshape(-1))
                columns.append(pa.FixedSizeListArray.from_arrays(values, dimension))
            else:
                columns.append(pa.nulls(len(ids), _vector(dimension)))
        columns.append(pa.array(hashes if hashes is not None else [None] * len(ids), pa.string()))
        self._folder.append(names.embeddings, [pa.RecordBatch.from_arrays(columns, schema=schema)], schema)

    def hashes(self, kind: Kind) -> dict[str, str | None]:
        names = COLLECTIONS[kind]
        hashes: dict[str, str | None] = {}
        for segment in self._folder.open_segments(names.embeddings):
            table = segment.read(columns=[names.reference, "content_hash"])
            hashes.update(zip(table[names.reference].to_pylist(), table["content_hash"].to_pylist(), strict=True))
        return hashes

    def catalogue_version(self) -> str | None:
        tables = [table for names in COLLECTIONS.values() for table in (names.text, names.embeddings)]
        return self._folder.version(tables)

    def dimension(self) -> int:
        recorded = self.meta().get("dimension")
        if recorded is not None:
            return int(recorded)
        for names in COLLECTIONS.values():
            for segment in self._folder.open_segments(names.embeddings):
                return int(segment.schema_arrow.field(next(iter(names.blocks.values()))).type.list_size)
        return BLOCK_DIM

    def clear_vectors(self) -> None:
        for names in COLLECTIONS.values():
            self._folder.rewrite(names.embeddings, [], _vector_schema(names, self.dimension()))

    def judgements(self, judge: str | None = None, applicants: Sequence[str] | None = None) -> pa.Table:
        segments = self._folder.open_segments("judgements")
        parts = [segment.read_row_groups(groups_with(segment, "applicant_id", applicants)) for segment in segments]
        table = pa.concat_tables([JUDGEMENT_SCHEMA.empty_table(), *parts])
        if judge is not None:
            table = table.filter(pc.equal(table["judge"], judge))
        if applicants is not None:
            table = table.filter(pc.is_in(table["applicant_id"], pa.array(list(applicants), pa.string())))
        return table

    def add_judgements(self, judgements: Sequence[Judgement]) -> None:
        self._folder.check_writable()
        if self._known_judgements is None:
            table = self.judgements()
            self._known_judgements = set(zip(*(table[key].to_pylist() for key in LEDGER_KEYS), strict=True))
        rows = new_judgements(judgements, self._known_judgements)
        if not rows:
            return
        try:
            batch = pa.RecordBatch.from_pylist(rows, schema=JUDGEMENT_SCHEMA)
            self._folder.append("judgements", [batch], JUDGEMENT_SCHEMA)
        except BaseException:
            self._known_judgements = None
            raise
        if len(self._folder.names("judgements")) > MAX_SEGMENTS_WHILE_OPEN:
            self._folder.merge("judgements", LEDGER_KEYS)

    def add_feedback(self, events: Sequence[FeedbackEvent]) -> int:
        return self._events_writer().add_feedback(events)

    def feedback(self, applicants: Sequence[str] | None = None) -> pa.Table:
        reader = self._events_reader()
        return FEEDBACK_SCHEMA.empty_table() if reader is None else reader.feedback(applicants)

    def add_exposures(self, exposures: Sequence[Exposure]) -> None:
        self._events_writer().add_exposures(exposures)

    def exposures(self, applicants: Sequence[str] | None = None) -> pa.Table:
        reader = self._events_reader()
        return EXPOSURE_SCHEMA.empty_table() if reader is None else reader.exposures(applicants)

    def add_decisions(self, decisions: Sequence[Decision]) -> None:
        self._events_writer().add_decisions(decisions)

    def decisions(self, applicants: Sequence[str] | None = None) -> pa.Table:
        reader = self._events_reader()
        return DECISION_SCHEMA.empty_table() if reader is None else reader.decisions(applicants)

    def forget_events(self, applicant_id: str) -> dict[str, int]:
        return self._events_writer().forget_events(applicant_id) if FolderEvents.there(self._folder.path) else {}

    def expire_events(self, before: datetime) -> int:
        return self._events_writer().expire_events(before) if FolderEvents.there(self._folder.path) else 0

    def forget_records(self, applicant_id: str) -> dict[str, int]:
        self._folder.check_writable()
        self._known_judgements = None

        def gone(values: Any) -> Any:
            return pc.equal(values, applicant_id)

        return self._delete_records("candidate", pa.array([applicant_id], pa.string())) | {
            "judgements": self._folder.delete("judgements", LEDGER_KEYS, "applicant_id", gone),
            "qrels": self._folder.delete("qrels", ("applicant_id", "job_id"), "applicant_id", gone),
        }

    def note_forgotten(self, note: Mapping[str, str]) -> None:
        self._folder.check_writable()
        with (self._folder.path / ERASURES).open("ab") as file:
            file.write(json.dumps(dict(note)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._folder.path)

    def forgotten(self) -> list[dict[str, str]]:
        path = self._folder.path / ERASURES
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]  # a line that a crash tore was not written

    def changes(self) -> None:
        return None

    def group(self, name: str, member: str, lease_seconds: float) -> None:
        return None

    def _events_writer(self) -> FolderEvents:
        self._folder.check_writable()
        if self._events is None:
            self._events = FolderEvents(self._folder.path)
        return self._events

    def _events_reader(self) -> FolderEvents | None:
        if self._events is not None:
            return self._events
        path = self._folder.path
        return FolderEvents(path, read_only=True) if FolderEvents.there(path) else None

    def claim(self, applicant_id: str, job_ids: Sequence[str], judge: str) -> Claimed:
        return Claimed(list(job_ids), JUDGEMENT_SCHEMA.empty_table())  # the folder's one writer competes with nobody

    def release(self, applicant_id: str, job_ids: Sequence[str], judge: str) -> None:
        return None

    def qrels(self) -> Qrels | None:
        segments = self._folder.open_segments("qrels")
        if not segments:
            return None
        return qrels_from_table(pa.concat_tables([segment.read() for segment in segments]), f"qrels of {self.uri}")

    def put_qrels(self, qrels: Qrels) -> None:
        self._folder.rewrite("qrels", qrels.to_table().to_batches(), QRELS_SCHEMA)

    def meta(self) -> dict[str, Any]:
        return dict(self._folder.manifest["meta"])

    def put_meta(self, **values: Any) -> None:
        self._folder.put_meta(values)

    def close(self) -> None:
        merge: dict[str, tuple[str, ...]] = {"judgements": LEDGER_KEYS}
        for names in COLLECTIONS.values():
            merge |= {names.text: ("_id",), names.embeddings: (names.reference,)}
        try:
            if self._events is not None:
                self._events.close()
                self._events = None
        finally:
            self._folder.close(merge)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ids(self, names: Collections) -> list[str]:
        found: set[str] = set()
        for segment in self._folder.open_segments(names.text):
            found.update(segment.read(columns=["_id"]).column(0).to_pylist())
        return sorted(found)

    def _text_rows(self, names: Collections, ids: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        # Rows that are already in id order are streamed, so that a large catalogue is not in memory at once.
        segments = self._folder.open_segments(names.text)
        if len(segments) <= 1 and ids is None:
            table_ids = self._ids(names)
            in_order = segments and segments[0].read(columns=["_id"]).column(0).to_pylist() == table_ids
            if in_order or not segments:
                for batch in live_batches(segments, ("_id",)):
                    yield from batch.to_pylist()
                return
        wanted = None if ids is None else set(ids)
        batches = list(live_batches(segments, ("_id",), keep=wanted))
        if batches:
            for batch in pa.Table.from_batches(batches).sort_by("_id").to_batches(max_chunksize=1024):
                yield from batch.to_pylist()


def _vector(dimension: int) -> pa.DataType:
    return pa.list_(pa.float32(), dimension)


def _vector_schema(names: Collections, dimension: int) -> pa.Schema:
    vectors = [(field, _vector(dimension)) for field in names.blocks.values()]
    return pa.schema([(names.reference, pa.string()), *vectors, ("content_hash", pa.string())])


def _text_batches(
    records: Iterable[Any], row: Callable[[Any], dict[str, Any]], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, Any]] = []
    chars = 0
    for record in records:
        rows.append(row(record))
        chars += sum(len(value) for value in rows[-1].values())
        if len(rows) >= BATCH_ROWS or chars >= WRITE_BATCH_CHARS:
            yield pa.RecordBatch.from_pylist(rows, schema=schema)
            rows, chars = [], 0
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=schema)


def _job_row(job: Job) -> dict[str, Any]:
    return {
        "_id": job.id,
        "job_title": job.title,
        "description": job.description,
        "technical_skills": job.technical_skills,
        "soft_skills": job.soft_skills,
        "experience_requirements": job.experience_requirements,
        "metadata": json.dumps(job.metadata, ensure_ascii=False, default=str),
    }


def _job(row: dict[str, Any]) -> Job:
    return Job(
        id=row["_id"],
        title=row["job_title"],
        description=row["description"],
        technical_skills=row["technical_skills"],
        soft_skills=row["soft_skills"],
        experience_requirements=row["experience_requirements"],
        metadata=json.loads(row["metadata"]),
    )


def _candidate_row(candidate: Candidate) -> dict[str, Any]:
    positions = [position.model_dump() for position in candidate.experience]
    return {
        "_id": candidate.id,
        "bio": candidate.bio,
        "skills": candidate.hard_skills,
        "soft_skills": candidate.soft_skills,
        "experience": json.dumps(positions, ensure_ascii=False, default=str),
    }


def _candidate(row: dict[str, Any]) -> Candidate:
    return Candidate(
        id=row["_id"],
        bio=row["bio"],
        hard_skills=row["skills"],
        soft_skills=row["soft_skills"],
        experience=json.loads(row["experience"]),
    )


TEXT_SCHEMAS: Mapping[Kind, pa.Schema] = {"job": JOBS_TEXT_SCHEMA, "candidate": CANDIDATES_TEXT_SCHEMA}
ROW_OF: Mapping[Kind, Callable[[Any], dict[str, Any]]] = {"job": _job_row, "candidate": _candidate_row}
RECORDS: Mapping[Kind, Callable[[dict[str, Any]], Job | Candidate]] = {"job": _job, "candidate": _candidate}
