"""Input files as raw records, one at a time, each with its line number; what cannot be read is yielded as a reason.

`.jsonl` and `.csv` are UTF-8. A broken line costs that line only: its neighbours are read.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dynaq.errors import InputError

MAX_RECORD_BYTES = 15 << 20  # a MongoDB document ends at 16 MiB, and both stores take the same records
SUFFIXES = (".jsonl", ".csv", ".parquet", ".xlsx")


class Unreadable(str):
    """In the place of a record: why it could not be read."""


Raw = tuple[int, dict[str, Any] | Unreadable]


def read_records(path: Path) -> Iterator[Raw]:
    """(line or row number from 1, fields or reason). Raises InputError on a file that cannot be read at all."""
    if path.is_dir():
        raise InputError(f"input {path} is a folder; give a {', '.join(SUFFIXES)} file")
    if not path.is_file():
        raise InputError(f"input file {path} does not exist")
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet, ".xlsx": _read_xlsx}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"input file {path}: extension {path.suffix!r} is not one of {', '.join(SUFFIXES)}")
    try:
        yield from reader(path)
    except OSError as error:
        raise InputError(f"input file {path} cannot be read: {error.strerror or error}") from None


def _check_encoding(path: Path, file: BinaryIO) -> None:
    start = file.read(3)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"input file {path} is UTF-16; save it as UTF-8")
    file.seek(3 if start == b"\xef\xbb\xbf" else 0)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def parse_json(text: str) -> Any:
    """Strict JSON. Raises ValueError on anything else, NaN and bottomless nesting included."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _read_jsonl(path: Path) -> Iterator[Raw]:
    with path.open("rb") as file:
        _check_encoding(path, file)
        number = 0
        while line := file.readline(MAX_RECORD_BYTES):
            number += 1
            if len(line) == MAX_RECORD_BYTES and not line.endswith(b"\n"):
                while (rest := file.readline(MAX_RECORD_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield number, Unreadable(f"longer than {MAX_RECORD_BYTES >> 20} MiB")
                continue
            if not line.strip():
                continue
            try:
                record = parse_json(line.decode())
            except UnicodeDecodeError as error:
                yield number, Unreadable(f"broken UTF-8 at byte {error.start + 1} of the line")
            except ValueError as error:
                yield number, Unreadable(f"not JSON: {error}")
            else:
                yield number, record if isinstance(record, dict) else Unreadable("not a JSON object")


class _CsvLines:
    """Physical lines of a CSV file, with a way back to where a record began."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.line = 0
        self.mark()

    def mark(self) -> None:
        """A record begins here."""
        self.record_line, self.record_start = self.line + 1, self.file.tell()

    def skip_record_line(self) -> None:
        """Go on after the first line of the record that began at the mark."""
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


def _read_csv(path: Path) -> Iterator[Raw]:
    csv.field_size_limit(MAX_RECORD_BYTES)
    with path.open("rb") as file:
        _check_encoding(path, file)
        lines = _CsvLines(file)
        try:
            header = [name.strip() for name in next(csv.reader(lines, strict=True), [])]
        except csv.Error as error:
            raise InputError(f"input file {path}: the header cannot be read ({error})") from None
        if not any(header):
            raise InputError(f"input file {path} has no header line")
        if twice := {name for name in header if header.count(name) > 1}:
            raise InputError(f"input file {path}: column {sorted(twice)[0]!r} is there twice")
        reader = csv.reader(lines, strict=True)
        while True:
            lines.mark()
            try:
                row = next(reader, None)
            except csv.Error as error:
                # An open quote has swallowed what follows: give up its first line and read the others again.
                yield lines.record_line, Unreadable(f"not CSV: {error}")
                lines.skip_record_line()
                reader = csv.reader(lines, strict=True)
                continue
            if row is None:
                return
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            if len(row) != len(header):
                yield lines.record_line, Unreadable(f"{len(row)} fields where the header names {len(header)}")
            else:
                yield lines.record_line, {k: v for k, v in zip(header, row, strict=True) if k and v != ""}


def _read_parquet(path: Path) -> Iterator[Raw]:
    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=256):
                for i in range(batch.num_rows):
                    number += 1
                    try:
                        yield number, batch.slice(i, 1).to_pylist()[0]
                    except UnicodeDecodeError:
                        yield number, Unreadable("broken UTF-8")
    except pa.ArrowInvalid as error:
        raise InputError(f"input file {path} is no Parquet file: {str(error).splitlines()[0]}") from None


def _read_xlsx(path: Path) -> Iterator[Raw]:
    # Imported here: it takes a while, and few inputs are spreadsheets.
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InputError(f"input file {path} is no .xlsx workbook ({error})") from None
    try:
        rows = book.worksheets[0].iter_rows(values_only=True)
        header = [str(cell).strip() if cell is not None else "" for cell in next(rows, ())]
        if not any(header):
            raise InputError(f"input file {path}: the first sheet has no header row")
        for number, row in enumerate(rows, start=2):
            cells = {k: _cell(v) for k, v in zip(header, row, strict=False) if k and v is not None}
            if cells:
                yield number, cells
    finally:
        book.close()


def _cell(value: Any) -> str:
    """A cell as the text a person sees: 7 and not 7.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (dt.date, dt.datetime, dt.time)):
        return value.isoformat()
    return str(value)


def plain(value: Any, depth: int = 0) -> Any:
    """What both stores can keep, of a value from a file. Raises ValueError on what neither can."""
    if depth > 32:
        raise ValueError("metadata is nested deeper than 32 levels")
    if isinstance(value, dict):
        if any(not isinstance(key, str) or "\0" in key for key in value):
            raise ValueError("metadata has a key that is no text or holds a NUL character")
        return {key: plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"metadata has an integer beyond 64 bits ({str(value)[:24]}…)")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("metadata has a number that is not finite")
        return value
    return value.isoformat() if isinstance(value, (dt.date, dt.time)) else str(value)
