"""The outcome of ingesting: counts, what was mended, and what was rejected and why."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynaq.errors import InputError
from dynaq.ingest.columns import FIELDS, RecordKind, shown

logger = logging.getLogger(__name__)

SHOWN_REJECTIONS = 20
LISTED_REJECTIONS = 100_000
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")


@dataclass(frozen=True)
class Rejection:
    """A record that was not used."""

    file: Path
    line: int
    reason: str


@dataclass(frozen=True)
class RejectionGroup:
    """The number of records that were rejected for one reason, and the first of them."""

    count: int
    example: Rejection


@dataclass(frozen=True)
class Counts:
    """What happened to one kind of record; `embedded` and `unchanged` count all records of the store.

    Args:
        accepted: records that were (or would be) written to the store.
        rejected: records that cannot be used.
        embedded: records that got vectors.
        unchanged: records whose vectors were up to date.
        mended: accepted records in which something was put right.
        exact: records with the same texts as an earlier one.
        near: jobs with nearly the same texts as an earlier one.
        dropped: duplicates that were left out; they count as neither accepted nor rejected.
    """

    accepted: int = 0
    rejected: int = 0
    embedded: int = 0
    unchanged: int = 0
    mended: int = 0
    exact: int = 0
    near: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class IngestReport:
    """The outcome of ingesting.

    Args:
        jobs: counts of jobs.
        candidates: counts of candidates.
        rejections: the first rejections.
        rejected_files: the files that list all of them.
        groups: rejections by reason, the most frequent first.
        mended: (what was put right, in how many records), the most frequent first.
        notes: what the user should know about how each file was read.
        personal: kind of personal data -> number of applicants from whose texts it was removed.
        advice: for each kind whose records were rejected because of its columns, what to do about it.
        alike: (id, id of the earlier one) of the first applicants that say the same and were kept.
    """

    jobs: Counts
    candidates: Counts
    rejections: tuple[Rejection, ...] = ()
    rejected_files: tuple[Path, ...] = ()
    groups: tuple[RejectionGroup, ...] = ()
    mended: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    personal: tuple[tuple[str, int], ...] = ()
    advice: tuple[str, ...] = ()
    alike: tuple[tuple[str, str], ...] = ()


class NothingAccepted(InputError):
    """No record of a kind could be used; nothing was written."""

    def __init__(self, message: str, report: IngestReport) -> None:
        super().__init__(message)
        self.report = report


@dataclass
class RejectedRecords:
    """Rejections by reason, and `rejected.jsonl` beside each input that has any, replaced atomically at the end.

    The first LISTED_REJECTIONS of a folder are listed there, and all are counted.
    """

    first: list[Rejection] = field(default_factory=list)
    written: set[Path] = field(default_factory=set)
    _groups: dict[str, tuple[int, Rejection]] = field(default_factory=dict)
    _lines: dict[Path, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, path: Path, line: int, reason: str, raw: Any) -> None:
        """Record a rejection. Of the record's content only the id is kept."""
        rejection = Rejection(path, line, reason)
        if len(self.first) < SHOWN_REJECTIONS:
            self.first.append(rejection)
        key = _VARIABLE.sub("…", reason)
        count, example = self._groups.get(key, (0, rejection))
        self._groups[key] = (count + 1, example)
        id_ = raw.get("id") if isinstance(raw, dict) else None
        entry: dict[str, Any] = {"file": path.name, "line": line, "reason": reason}
        if isinstance(id_, (str, int)):
            entry["id"] = id_ if isinstance(id_, int) else id_[:200]
        if len(self._lines[path.parent]) < LISTED_REJECTIONS:
            self._lines[path.parent].append(json.dumps(entry))

    def groups(self) -> tuple[RejectionGroup, ...]:
        """Rejections by reason, the most frequent first."""
        ordered = sorted(self._groups.values(), key=lambda group: -group[0])
        return tuple(RejectionGroup(count, example) for count, example in ordered)

    def write(self) -> None:
        """Write the files."""
        for folder, lines in self._lines.items():
            target = folder / "rejected.jsonl"
            if replace_file(target, "\n".join(lines) + "\n", "the reasons are not kept"):
                self.written.add(target)


def replace_file(target: Path, text: str, otherwise: str) -> bool:
    """Replace a file atomically. Returns whether that worked; if not, logs a warning that ends with `otherwise`."""
    temporary = target.with_name(target.name + ".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        logger.warning("%s could not be written (%s); %s", target, error.strerror, otherwise)
        return False
    return True


def impersonal_note(count: int) -> str:
    """What a user should know about stored applicants that were embedded without their personal data."""
    return (
        f"the texts of {count} applicants in the store have personal data; they are embedded and judged without it, "
        "and the store keeps them as they are; --keep-personal uses the whole texts"
    )


_MAPPED = {
    "jobs": ("title", "title=COLUMN,description=COLUMN"),
    "candidates": ("texts and skills", "bio=COLUMN,hard_skills=COLUMN"),
}


def needed_fields(kind: RecordKind) -> list[str]:
    """The fields one of which a record must fill."""
    return ["title"] if kind == "jobs" else [field for field in FIELDS[kind] if field != "id"]


def is_unfilled(kind: RecordKind, reason: str) -> bool:
    """Whether a record was rejected because the fields that it needs have no value, as with unknown columns."""
    return reason.startswith("title") if kind == "jobs" else "all empty" in reason


def advice(kind: RecordKind, columns: Sequence[str], sources: Mapping[str, Sequence[str]]) -> str:
    """The columns found, which of them were read, and what to type when that is wrong.

    sources: field -> columns that it was read from.
    """
    what, mapping = _MAPPED[kind]
    read = [f"{field} ← {' + '.join(sources[field])}" for field in needed_fields(kind) if field in sources]
    read_as = f"read as {', '.join(read)}" if read else f"no column was taken for {what}"
    other = "if others are meant" if read else "to say which one it is"
    return f"columns found: {shown(columns)}; {read_as}; {other}, name them, for example --map {mapping}"
