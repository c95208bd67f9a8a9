"""Event logs from elsewhere into a store's feedback: who did what with which job, and when.

An event is keyed by its content, so that a log can be read again, and a longer one over it, and each event is kept
once. Its source says that it was imported. What people were merely shown is no event: how probable it was that they
were shown it is not known, and no exposure is made up (`dynaq.feedback.exposure_log`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynaq.errors import InputError
from dynaq.feedback.events import EVENTS, Event, FeedbackEvent
from dynaq.field_names import normalise
from dynaq.ingest.columns import FIELDS, NO_MAPPING, ColumnMapping, known_names, plan_columns, shown
from dynaq.ingest.file_formats import open_table
from dynaq.ingest.limits import SAMPLE_RECORDS
from dynaq.ingest.record_reader import InputOptions
from dynaq.ingest.report import RejectedRecords, RejectionGroup
from dynaq.ingest.tables import ReadOptions, Unreadable
from dynaq.stores import FeedbackStore

IMPORTED = "import"  # source of these events
EVENTS_AT_ONCE = 5000
CLOCKS = dt.timedelta(minutes=5)  # by which a log's clock may be ahead
MILLISECONDS_FROM = 1e11  # Unix times from here on are in milliseconds: as seconds they would be after the year 5000
EVENT_NAMES: Mapping[Event, str] = {
    "apply": "applied, application, submit, submitted",
    "save": "saved, bookmark, bookmarked, favourite, favorite, shortlist",
    "click": "clicked, view, viewed, open, opened, detail",
    "ignore": "ignored, dismiss, dismissed, hide, hidden, decline, declined, not for me, not interested",
    "hire": "hired",
    "undo": "undone",
}
_EVENT_OF = {normalise(name): event for event, names in EVENT_NAMES.items() for name in (event, *names.split(", "))}


@dataclass(frozen=True)
class EventReport:
    """The outcome of reading event logs.

    Args:
        accepted: events that can be used.
        new: of these, events that the store did not have; 0 in a dry run.
        applicants: number of their applicants.
        first, last: times of the oldest and the newest.
        rejected: records that cannot be used.
        groups: rejections by reason, the most frequent first.
        notes: what the user should know about how each file was read.
        rejected_files: the files that list the rejections.
    """

    accepted: int = 0
    new: int = 0
    applicants: int = 0
    first: dt.datetime | None = None
    last: dt.datetime | None = None
    rejected: int = 0
    groups: tuple[RejectionGroup, ...] = ()
    notes: tuple[str, ...] = ()
    rejected_files: tuple[Path, ...] = ()


class NoEventAccepted(InputError):
    """No event could be used; nothing was written."""

    def __init__(self, message: str, report: EventReport) -> None:
        super().__init__(message)
        self.report = report


def ingest_events(
    store: FeedbackStore | None,
    files: Sequence[str | Path],
    applicants: Collection[str],
    jobs: Collection[str],
    options: InputOptions | None = None,
) -> EventReport:
    """Add the events of some files to a store's feedback.

    Args:
        store: open for feedback; None reads and checks only.
        files: .jsonl, .json, .csv, .tsv, .parquet or .xlsx, each also as .gz.
        applicants: ids of the store's; events of others are rejected.
        jobs: as applicants.
        options: how to read the files; of the mappings, that of `events` counts.

    Raises InputError on a file that cannot be read at all, NoEventAccepted before anything is written when no event
    can be used.
    """
    log = _Log(applicants, jobs, options or InputOptions())
    found = (event for path in files for event in log.read(Path(path)))
    first = next(found, None)
    if first is None:
        raise NoEventAccepted(
            f"none of {log.rejected} events can be used; nothing was written",
            log.report(0),
        )
    events, new = itertools.chain([first], found), 0
    while batch := list(itertools.islice(events, EVENTS_AT_ONCE)):
        if store is not None:
            new += store.add_feedback(batch)
    if store is not None:
        log.rejections.write()
    return log.report(new)


@dataclass
class _Log:
    """Reads files of events, and counts."""

    known_applicants: Collection[str]
    known_jobs: Collection[str]
    options: InputOptions
    rejections: RejectedRecords = field(default_factory=RejectedRecords)
    accepted: int = 0
    rejected: int = 0
    _people: set[str] = field(default_factory=set)
    _first: dt.datetime | None = None
    _last: dt.datetime | None = None
    _notes: list[str] = field(default_factory=list)
    _until: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC) + CLOCKS)

    def read(self, path: Path) -> Iterator[FeedbackEvent]:
        """The events of a file that can be used."""
        mapping = self.options.mappings.get("events", NO_MAPPING)
        how = self.options
        with open_table(path, ReadOptions(how.encoding, how.delimiter, how.sheet, _names(mapping))) as table:
            records = itertools.islice(table.records, how.limit)
            sample = list(itertools.islice(records, SAMPLE_RECORDS))
            columns = table.columns
            if columns is None:
                columns = list(dict.fromkeys(k for _, raw in sample if not isinstance(raw, Unreadable) for k in raw))
            plan = plan_columns(columns, "events", mapping, where=str(path))
            missing = [name for name in FIELDS["events"] if name not in plan.sources]
            if missing and columns:
                raise InputError(
                    f"input file {path}: no column was taken for {' and '.join(missing)} (columns found: "
                    f"{shown(columns)}); name it, for example --map {missing[0]}=COLUMN"
                )
            self._notes += [f"{path.name}: {note}" for note in table.notes]
            if renamed := [f"{name} ← {' + '.join(found)}" for name, found in plan.renamed().items()]:
                self._notes.append(f"{path.name}: {', '.join(renamed)}")
            for line, raw in itertools.chain(sample, records):
                try:
                    if isinstance(raw, Unreadable):
                        raise InputError(str(raw))
                    event = self._event(plan.apply(raw))
                except InputError as error:
                    self.rejected += 1
                    self.rejections.add(path, line, str(error), None)
                    continue
                self._count(event)
                yield event

    def report(self, new: int) -> EventReport:
        """What was read so far. new: events that the store did not have."""
        return EventReport(
            self.accepted,
            new,
            len(self._people),
            self._first,
            self._last,
            self.rejected,
            self.rejections.groups(),
            tuple(self._notes),
            tuple(sorted(self.rejections.written)),
        )

    def _event(self, fields: Mapping[str, Any]) -> FeedbackEvent:
        applicant_id, job_id, said = (_text(fields, name) for name in ("applicant_id", "job_id", "event"))
        event = _EVENT_OF.get(normalise(said))
        if event is None:
            raise InputError(f"event {said[:40]!r} is not one of {', '.join(EVENTS)}")
        at = _time(fields.get("at"))
        if at > self._until:
            raise InputError(f"at {at.isoformat()!r} lies in the future")
        if applicant_id not in self.known_applicants:
            raise InputError(f"applicant {applicant_id[:80]!r} is not in the store")
        if job_id not in self.known_jobs:
            raise InputError(f"job {job_id[:80]!r} is not in the store")
        parts = (IMPORTED, applicant_id, job_id, event, at.astimezone(dt.UTC).isoformat(timespec="milliseconds"))
        key = hashlib.blake2b("".join(f"{len(part)}:{part}" for part in parts).encode(), digest_size=16).hexdigest()
        return FeedbackEvent(applicant_id, job_id, event, at, IMPORTED, key)

    def _count(self, event: FeedbackEvent) -> None:
        self.accepted += 1
        self._people.add(event.applicant_id)
        self._first = min(self._first or event.at, event.at)
        self._last = max(self._last or event.at, event.at)


def _names(mapping: ColumnMapping) -> frozenset[str]:
    return known_names("events") | {normalise(column) for columns in mapping.sources.values() for column in columns}


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    if value is None or not text:
        raise InputError(f"{name} is empty")
    return text


def _time(value: Any) -> dt.datetime:
    """A time of ISO 8601 with its offset, or Unix seconds or milliseconds. Raises InputError."""
    text = str(value).strip() if value is not None else ""
    if not text:
        raise InputError("at is empty")
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        return _unix(number, text)
    try:
        at = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"at {text[:40]!r} is no time; write e.g. 2026-03-01T12:00:00Z") from None
    if at.tzinfo is None:
        raise InputError(f"at {text[:40]!r} has no time zone; write e.g. 2026-03-01T12:00:00Z or …+01:00")
    return at


def _unix(number: float, text: str) -> dt.datetime:
    seconds = number / 1000 if number >= MILLISECONDS_FROM else number
    try:
        if seconds < 0:
            raise ValueError
        return dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):
        raise InputError(f"at {text[:40]!r} is no time; write e.g. 2026-03-01T12:00:00Z") from None
