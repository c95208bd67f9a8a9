"""Delimited text (`.csv`, `.tsv`): guesses the delimiter, finds a header below titles, isolates broken rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from dynaq.errors import InputError
from dynaq.ingest.encodings import utf8_bytes
from dynaq.ingest.headers import find_header, name_columns
from dynaq.ingest.limits import HEADER_ROWS, MAX_RECORD_BYTES, SAMPLE_BYTES
from dynaq.ingest.tables import Raw, ReadOptions, Table, Unreadable

DELIMITERS = (",", ";", "\t", "|")
_DELIMITER_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "bar": "|"}


class _CsvLines:
    """Physical lines of a CSV file, which can be rewound to where a record began."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.line = 0
        self.mark()

    def mark(self) -> None:
        """A record begins here."""
        self.record_line, self.record_start = self.line + 1, self.file.tell()

    def skip_record_line(self) -> None:
        """Continue after the first line of the record that began at the mark."""
        self.file.seek(self.record_start)
        self.line = self.record_line - 1
        next(self, None)

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        line = self.file.readline()
        if not line:
            raise StopIteration
        self.line += 1
        # Broken bytes survive as surrogates, and only the record that has them is rejected.
        return line.decode("utf-8", "surrogateescape")


@contextmanager
def open_delimited(path: Path, options: ReadOptions, *, default: str = ",") -> Iterator[Table]:
    """A `.csv` or `.tsv` file as a table.

    Args:
        path: the file, plain or `.gz`.
        options: encoding and delimiter, where the user names them.
        default: the delimiter to assume when the rows suggest none.

    Raises InputError when there is no header, or when two columns have the name of the same field.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)
    with utf8_bytes(path, options.encoding) as (file, note):
        notes = [note] if note else []
        start = file.tell()
        sample = file.read(SAMPLE_BYTES).decode("utf-8", "surrogateescape")
        file.seek(start)
        first = sample.split("\n", 1)[0].strip().lower()
        lines = _CsvLines(file)
        if first.startswith("sep=") and len(first) <= 6:  # Excel's way of naming the delimiter
            next(lines)
            sample = sample.split("\n", 1)[1] if "\n" in sample else ""
            default = first[4:5] or "\t"
        delimiter = _delimiter(options.delimiter) or guess_delimiter(sample, default)
        if delimiter != default and options.delimiter is None:
            notes.append(f"read with {_spoken(delimiter)} between the fields")
        dialect: dict[str, Any] = {"delimiter": delimiter, "strict": True}
        if '\\"' in sample and '""' not in sample.replace('""' + delimiter, "").replace(delimiter + '""', ""):
            dialect["escapechar"] = "\\"
        header_at = _header_row(sample, dialect, options)
        try:
            reader = csv.reader(lines, **dialect)
            for _ in range(header_at):
                next(reader)
            header = [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise InputError(f"input file {path}: the header cannot be read ({error})") from None
        if not any(header):
            raise InputError(f"input file {path} has no header line")
        if header_at:
            notes.append(f"the header was found on line {lines.line}, below other lines")
        names = name_columns(header, options.known, where=str(path))
        yield Table([name for name in names if name], _rows(lines, dialect, names), notes, cells=True)


def _header_row(sample: str, dialect: dict[str, Any], options: ReadOptions) -> int:
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(sample, newline=""), **{**dialect, "strict": False})
    try:
        for row in reader:
            rows.append(row)
            if len(rows) == HEADER_ROWS:
                break
    except csv.Error:
        pass
    return find_header(rows, options.known)


def _rows(lines: _CsvLines, dialect: dict[str, Any], names: Sequence[str]) -> Iterator[Raw]:
    reader = csv.reader(lines, **dialect)
    while True:
        lines.mark()
        try:
            row = next(reader, None)
        except csv.Error as error:
            # An unclosed quote swallows the lines after it: reject its first line only, and read the others again.
            yield lines.record_line, Unreadable(f"not CSV: {error}")
            lines.skip_record_line()
            reader = csv.reader(lines, **dialect)
            continue
        if row is None:
            return
        if not any(cell.strip() for cell in row) and (len(row) <= 1 or not any(row)):
            continue
        if len(row) > len(names) and not any(cell.strip() for cell in row[len(names) :]):
            row = row[: len(names)]
        if len(row) != len(names):
            yield lines.record_line, Unreadable(f"{len(row)} fields where the header names {len(names)}")
        else:
            yield lines.record_line, {k: v for k, v in zip(names, row, strict=True) if k and v != ""}


def _delimiter(given: str | None) -> str | None:
    if given is None:
        return None
    delimiter = _DELIMITER_NAMES.get(given.lower(), given)
    if len(delimiter) != 1 or delimiter in '"\n\r':
        raise InputError(f"--delimiter {given!r} is not one character; examples are ';', '|' and tab")
    return delimiter


def _spoken(delimiter: str) -> str:
    return {"\t": "tabs", ";": "semicolons", "|": "bars", ",": "commas"}.get(delimiter, repr(delimiter))


def guess_delimiter(sample: str, default: str = ",") -> str:
    """The delimiter that splits most rows into the same number of fields, and into more than one."""
    best, best_score = default, 0.0
    for delimiter in dict.fromkeys((default, *DELIMITERS)):
        counts: list[int] = []
        reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    counts.append(len(row))
                if len(counts) == 200:
                    break
        except csv.Error:
            pass
        wide = [count for count in counts if count > 1]
        if not wide:
            continue
        common = max(set(wide), key=wide.count)
        score = wide.count(common) / len(counts) + min(common, 50) / 1000
        if counts[0] == common:
            score += 0.5  # the header agrees with the rows
        if score > best_score + 1e-9:
            best, best_score = delimiter, score
    return best
