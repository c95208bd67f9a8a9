"""Input files as tables of raw records. For a record that cannot be read, the reason is yielded instead.

A broken line affects no other line. Every format may be packed with gzip (`.csv.gz`).
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dynaq.errors import InputError
from dynaq.ingest.delimited import open_delimited
from dynaq.ingest.encodings import unpacked, utf8_bytes
from dynaq.ingest.limits import JSON_BYTES, MAX_RECORD_BYTES
from dynaq.ingest.tables import Raw, ReadOptions, Table, Unreadable
from dynaq.ingest.workbooks import open_workbook

TABLE_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".xlsx")
_TABLE_ADVICE = {
    ".xls": "save it as .xlsx",
    ".ods": "save it as .xlsx",
    ".numbers": "export it as .xlsx or .csv",
    ".zip": "unpack it and name the file inside",
    ".ndjson": "rename it to .jsonl",
}


def format_of(path: Path) -> str:
    """The extension that names the format, in lower case and without `.gz`."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


@contextmanager
def open_table(path: Path, options: ReadOptions) -> Iterator[Table]:
    """Open an input file. Raises InputError on one that cannot be read at all."""
    suffix = format_of(path)
    if path.is_dir():
        raise InputError(f"input {path} is a folder; give a {', '.join(TABLE_SUFFIXES)} file")
    if not path.is_file():
        raise InputError(f"input file {path} does not exist")
    if suffix not in TABLE_SUFFIXES:
        advice = f"; {_TABLE_ADVICE[suffix]}" if suffix in _TABLE_ADVICE else ""
        raise InputError(
            f"input file {path}: extension {suffix!r} is not one of {', '.join(TABLE_SUFFIXES)} (or .gz){advice}"
        )
    try:
        with ExitStack() as stack:
            if suffix in (".csv", ".tsv"):
                yield stack.enter_context(open_delimited(path, options, default="\t" if suffix == ".tsv" else ","))
            elif suffix == ".xlsx":
                yield stack.enter_context(open_workbook(path, options))
            elif suffix == ".parquet":
                yield stack.enter_context(_open_parquet(path))
            else:
                file, note = stack.enter_context(utf8_bytes(path, options.encoding))
                notes = [note] if note else []
                records = _read_jsonl(file) if suffix == ".jsonl" else _read_json(path, file)
                yield Table(None, records, notes)
    except OSError as error:
        raise InputError(f"input file {path} cannot be read: {error.strerror or error}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def parse_json(text: str) -> Any:
    """Parse strict JSON. Raises ValueError on anything else, including NaN and excessive nesting."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _read_jsonl(file: BinaryIO) -> Iterator[Raw]:
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


def _read_json(path: Path, file: BinaryIO) -> Iterator[Raw]:
    """Reads the JSON shapes found in practice.

    These are a list of records, an object containing such a list, pandas' column-wise object, or JSON Lines under a
    .json name.
    """
    start = file.tell()
    content = file.read(JSON_BYTES + 1)
    if len(content) > JSON_BYTES:
        raise InputError(
            f"input file {path} is larger than {JSON_BYTES >> 30} GiB; write it as .jsonl, a record a line"
        )
    try:
        # NaN is what pandas writes for an empty cell.
        value = json.loads(content.decode(), parse_constant=lambda name: None)
    except RecursionError:
        raise InputError(f"input file {path} is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"input file {path}: broken UTF-8 at byte {error.start + 1}; name it with --encoding"
        ) from None
    except ValueError as error:
        if b"\n" in content and "Extra data" in str(error):
            file.seek(start)
            yield from _read_jsonl(file)
            return
        raise InputError(f"input file {path} is not JSON: {error}") from None
    for number, record in enumerate(_records_in(value, path), start=1):
        yield number, record if isinstance(record, dict) else Unreadable("not a JSON object")


def _records_in(value: Any, path: Path, depth: int = 0) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and value:
        columns = [set(column) for column in value.values() if isinstance(column, dict)]
        if len(columns) == len(value) and len(value) > 1:
            if all(rows == columns[0] and rows and all(r.isdigit() for r in rows) for rows in columns):
                return [{name: value[name][row] for name in value} for row in value[next(iter(value))]]
            return [{"id": key} | record for key, record in value.items()]
        lists = [item for item in value.values() if isinstance(item, list) and any(isinstance(i, dict) for i in item)]
        title_like = {"title", "name", "bio", "description", "skills"} & value.keys()
        if len(lists) == 1 and not title_like:
            found: list[Any] = lists[0]
            return found
        inner = [item for item in value.values() if isinstance(item, dict)]
        if not lists and len(inner) == 1 and not title_like and depth < 4:
            return _records_in(inner[0], path, depth + 1)
        return [value]
    raise InputError(f"input file {path} holds no records; a list of objects is expected")


@contextmanager
def _open_parquet(path: Path) -> Iterator[Table]:
    with unpacked(path) as source:
        try:
            with pq.ParquetFile(source) as file:
                yield Table(list(file.schema_arrow.names), _read_parquet(file))
        except pa.ArrowInvalid as error:
            raise InputError(f"input file {path} is no Parquet file: {str(error).splitlines()[0]}") from None


def _read_parquet(file: pq.ParquetFile) -> Iterator[Raw]:
    number = 0
    for batch in file.iter_batches(batch_size=256):
        for i in range(batch.num_rows):
            number += 1
            try:
                yield number, batch.slice(i, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield number, Unreadable("broken UTF-8")


def plain(value: Any, depth: int = 0) -> Any:
    """Convert a value from a file into one that both stores can keep. Raises ValueError if there is none."""
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
