"""Reads files of one kind of record, one record at a time: finds columns, mends cells, validates, counts."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cachetools import LRUCache

from dynaq.field_names import normalise
from dynaq.ingest.cells import mend
from dynaq.ingest.columns import (
    NO_MAPPING,
    VECTOR_FIELDS,
    ColumnMapping,
    ColumnPlan,
    RecordKind,
    known_names,
    plan_columns,
    shown,
)
from dynaq.ingest.documents import Document, document_files, is_document, read_documents
from dynaq.ingest.duplicates import Duplicates
from dynaq.ingest.embedding import Progress
from dynaq.ingest.file_formats import open_table
from dynaq.ingest.limits import SAMPLE_RECORDS
from dynaq.ingest.parse_records import Parsed, Rejected
from dynaq.ingest.report import RejectedRecords, advice, is_unfilled, needed_fields
from dynaq.ingest.resume_model import ResumeReader
from dynaq.ingest.tables import ReadOptions, Table, Unreadable
from dynaq.personal.redaction import names_in_columns, says_something, without_personal_data
from dynaq.records import Candidate, Job

logger = logging.getLogger(__name__)

PROGRESS_RECORDS = 1024
SHOWN_ALIKE = 3


@dataclass(frozen=True)
class InputOptions:
    """How to read files, where the user says so.

    Args:
        mappings: which column is which field, per kind.
        encoding: of text files; None detects it from the bytes.
        delimiter: of delimited files; None detects it from the rows.
        sheet: of workbooks; None takes the one that looks like the table.
        duplicates: keep them, linked to the first, or drop them.
        limit: read this many records of each kind at most.
        keep_personal: keep names, addresses and the like in applicants' texts; None does as the store did before, and
            removes them in a new store.
    """

    mappings: Mapping[RecordKind, ColumnMapping] = field(default_factory=dict)
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    duplicates: Literal["keep", "drop"] = "keep"
    limit: int | None = None
    keep_personal: bool | None = None


@dataclass
class RecordReader:
    """Reads and counts the records of one kind; a repeated id is rejected.

    Args:
        kind: of the records.
        parse: validates a record.
        rejected_records: collects records that cannot be used.
        options: what the user chose.
        progress: called as the work goes on.
        resumes: asks a model about documents; None leaves them to the rules.
    """

    kind: RecordKind
    parse: Callable[[Any], Parsed]
    rejected_records: RejectedRecords
    options: InputOptions
    progress: Progress | None = None
    resumes: ResumeReader | None = None
    accepted: int = 0
    rejected: int = 0
    mended: int = 0
    exact: int = 0
    near: int = 0
    dropped: int = 0
    mendings: Counter[str] = field(default_factory=Counter)
    personal: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unfilled: int = 0
    alike: list[tuple[str, str]] = field(default_factory=list)
    document_ids: dict[Path, str] = field(default_factory=dict)
    _seen: dict[str, str] = field(default_factory=dict)
    _ignored: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.duplicates = Duplicates(near=self.kind == "jobs")

    @property
    def mapping(self) -> ColumnMapping:
        """Which column is which field, as the user said."""
        return self.options.mappings.get(self.kind, NO_MAPPING)

    def read(self, paths: Sequence[Path]) -> Iterator[Parsed]:
        """The usable records of the files, in order. Raises InputError on a file that cannot be read at all."""
        records = itertools.chain.from_iterable(map(self._records, paths))
        for path, line, raw in itertools.islice(records, self.options.limit):
            parsed, notes = self._checked(path, line, raw)
            if parsed is not None and (parsed := self._compared(parsed)) is not None:
                self.accepted += 1
                self.mended += bool(notes)
                self.mendings.update(notes)
                yield parsed
            done = self.accepted + self.rejected + self.dropped
            if self.progress is not None and done % PROGRESS_RECORDS == 0:
                self.progress(f"reading {self.kind}", done, self.options.limit)
        if self._ignored:
            logger.warning(
                "%s: fields that have no place were ignored: %s", self.kind, ", ".join(sorted(self._ignored))
            )

    def advice(self) -> str:
        """What to do about columns that were not understood; "" when they are not why records were rejected."""
        found = any(name in self.sources for name in needed_fields(self.kind))
        # Some empty cells in the right column are no reason to look for another one.
        if not self.unfilled or not self.columns or (found and self.unfilled <= self.accepted):
            return ""
        return advice(self.kind, list(self.columns), self.sources)

    def _checked(self, path: Path, line: int, raw: _Mended | Unreadable) -> tuple[Parsed | None, set[str]]:
        """The record and notes on what was mended in it; None for the record when it was rejected."""
        given = raw.fields if isinstance(raw, _Mended) else raw
        try:
            if isinstance(raw, Unreadable):
                raise Rejected(raw)
            fields = dict(raw.fields)
            if raw.make_id and not str(fields.get("id") or "").strip():
                fields["id"] = self._made_id(fields)
            parsed = replace(self.parse(fields), document=raw.document is not None)
            notes = set(raw.notes)
            if isinstance(parsed.record, Candidate) and not self.options.keep_personal:
                parsed, personal = self._impersonal(parsed, fields, raw.personal)
                self.personal.update(personal)
            if first := self._seen.get(parsed.record.id):
                raise Rejected(f"id {parsed.record.id!r} is there already, in {first}")
        except Rejected as rejection:
            self.rejected += 1
            self.unfilled += is_unfilled(self.kind, str(rejection))
            self.rejected_records.add(path, line, str(rejection), given)
            return None, set()
        self._seen[parsed.record.id] = f"{path.name} line {line}"
        self._ignored |= parsed.ignored
        if raw.document is not None:
            self.document_ids[raw.document] = parsed.record.id
        return parsed, notes

    def _impersonal(
        self, parsed: Parsed, fields: Mapping[str, Any], before: frozenset[str]
    ) -> tuple[Parsed, frozenset[str]]:
        assert isinstance(parsed.record, Candidate)
        record, found = without_personal_data(parsed.record, names_in_columns(fields))
        if not says_something(record):
            raise Rejected("bio, skills and experience are all empty once personal data is taken out")
        return replace(parsed, record=record), before | found

    def _compared(self, parsed: Parsed) -> Parsed | None:
        """The record, with a link to the earlier one if it is a duplicate; None for a duplicate that is dropped."""
        found = self.duplicates.find(parsed.record)
        if found is None:
            return parsed
        first, similarity = found
        self.exact += similarity == "exact"
        self.near += similarity == "near"
        if self.options.duplicates == "drop":
            self.dropped += 1
            return None
        if not isinstance(parsed.record, Job):  # whose schema has no place for a link
            if len(self.alike) < SHOWN_ALIKE:
                self.alike.append((parsed.record.id, first))
            return parsed
        metadata = parsed.record.metadata | {"duplicate_of": first}
        return replace(parsed, record=parsed.record.model_copy(update={"metadata": metadata}))

    def _made_id(self, fields: Mapping[str, Any]) -> str:
        """16 hex digits of the content's hash, so that a record keeps its id across runs; repetitions are numbered."""
        content = json.dumps({k: v for k, v in fields.items() if k != "id"}, sort_keys=True, default=str)
        made = hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:16]
        for number in itertools.count(1):
            id_ = made if number == 1 else f"{made}-{number}"
            if id_ not in self._seen:
                return id_
        raise AssertionError

    def _records(self, path: Path) -> Iterator[tuple[Path, int, _Mended | Unreadable]]:
        if self.kind == "candidates" and is_document(path):
            yield from self._documents(path)
            return
        options = ReadOptions(
            self.options.encoding, self.options.delimiter, self.options.sheet, self._known_names()
        )  # fmt: skip
        with open_table(path, options) as table:
            sample = list(itertools.islice(table.records, SAMPLE_RECORDS))
            columns = table.columns
            if columns is None:
                columns = list(dict.fromkeys(k for _, raw in sample if not isinstance(raw, Unreadable) for k in raw))
            plan = plan_columns(columns, self.kind, self.mapping, where=str(path))
            make_ids = not any(
                plan.apply(raw).get("id") is not None for _, raw in sample if not isinstance(raw, Unreadable)
            )
            self.columns |= dict.fromkeys(columns)
            self.sources |= plan.sources
            self._note(path, table, plan, make_ids)
            plans = _Plans(columns, plan, self.kind, self.mapping, whole_header=table.columns is not None)
            for line, raw in itertools.chain(sample, table.records):
                yield path, line, raw if isinstance(raw, Unreadable) else self._mended(raw, plans, table, make_ids)

    def _mended(self, raw: dict[str, Any], plans: _Plans, table: Table, make_ids: bool) -> _Mended:
        named = plans.plan_for(raw).apply({str(name): value for name, value in raw.items()})
        fields, notes = mend(named, table=table.cells)
        return _Mended(fields, frozenset(notes), make_ids)

    def _documents(self, path: Path) -> Iterator[tuple[Path, int, _Mended | Unreadable]]:
        documents = read_documents(path, keep_personal=bool(self.options.keep_personal))
        total = min(len(document_files(path)), self.options.limit or sys.maxsize)
        what = "reading documents"
        if self.resumes is not None:
            what = "asking about documents"
            # The reader looks ahead, and must not ask about documents beyond the limit.
            documents = self.resumes.read(itertools.islice(documents, total))
        for done, document in enumerate(documents, start=1):
            if self.progress is not None:
                self.progress(what, done, total)
            if isinstance(document.fields, Unreadable):
                yield document.path, 1, document.fields
            else:
                yield document.path, 1, _of_document(document)

    def _known_names(self) -> frozenset[str]:
        named = {normalise(column) for columns in self.mapping.sources.values() for column in columns}
        return known_names(self.kind) | named

    def _note(self, path: Path, table: Table, plan: ColumnPlan, make_ids: bool) -> None:
        self.notes += [f"{path.name}: {note}" for note in table.notes]
        renamed = [f"{field} ← {' + '.join(columns)}" for field, columns in plan.renamed().items()]
        if make_ids:
            renamed.append("id ← made from the content")
        if not renamed:
            return
        line = f"{path.name}: {', '.join(renamed)}"
        rest = [column for column in plan.rest if column not in VECTOR_FIELDS[self.kind]]
        if rest:
            line += f"; {'kept as metadata' if self.kind == 'jobs' else 'left out'}: {shown(rest, 8)}"
        self.notes.append(line)


@dataclass(frozen=True)
class _Mended:
    """A record keyed by field, notes on what was mended, and whether it needs an id."""

    fields: dict[str, Any]
    notes: frozenset[str]
    make_id: bool
    personal: frozenset[str] = frozenset()
    document: Path | None = None


def _of_document(document: Document) -> _Mended:
    assert isinstance(document.fields, dict)
    return _Mended(document.fields, frozenset(document.notes), False, frozenset(document.personal), document.path)


@dataclass
class _Plans:
    """The plan of a file; where records name their own fields, one plan per set of names."""

    columns: list[str]
    plan: ColumnPlan
    kind: RecordKind
    mapping: ColumnMapping
    whole_header: bool
    _by_names: LRUCache[tuple[str, ...], ColumnPlan] = field(default_factory=lambda: LRUCache(1000))

    def __post_init__(self) -> None:
        self._columns = set(self.columns)

    def plan_for(self, raw: Mapping[str, Any]) -> ColumnPlan:
        """The file's plan, unless this record has fields that were not in the sample."""
        if self.whole_header or set(raw) <= self._columns:
            return self.plan
        names = tuple(str(name) for name in raw)
        if names not in self._by_names:
            saved = ColumnMapping(self.mapping.sources)
            self._by_names[names] = plan_columns(list(names), self.kind, saved)
        return self._by_names[names]
