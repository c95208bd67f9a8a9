"""What every reader of a table returns: its columns, its records one at a time, and notes for the user."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


class Unreadable(str):
    """Takes the place of a record: the reason why it could not be read."""


Raw = tuple[int, dict[str, Any] | Unreadable]


@dataclass(frozen=True)
class ReadOptions:
    """How to read a file, where the user says so.

    Args:
        encoding: None detects it from the bytes.
        delimiter: None detects it from the rows.
        sheet: a workbook's sheet; None takes the one that looks like the table.
        known: normalised names of columns by which a header is recognised.
    """

    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    known: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Table:
    """An open file of records.

    Args:
        columns: the header's names; None where each record names its own fields.
        records: (line or row number from 1, fields or the reason why they cannot be read).
        notes: what the user should know about how the file was read.
        cells: whether all values are text, as in CSV and spreadsheets.
    """

    columns: list[str] | None
    records: Iterator[Raw]
    notes: list[str] = field(default_factory=list)
    cells: bool = False
