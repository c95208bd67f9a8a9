"""A keyed table for small durable writes: an append-only log in front of Parquet segments.

One write is one line of the log, `crc32 json\n`, and returns when it is on disk. A crash can tear only the last line,
since each line is synced before the next begins; a torn line was never acknowledged and is ignored.

A large log becomes a Parquet segment and is then removed. A crash between the two steps leaves rows in both places,
which is why rows are keyed. Readers read the logs first, so they miss no row that moves in the meantime.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dynaq.errors import DynaqError
from dynaq.stores.segments import MAX_SEGMENTS_WHILE_OPEN, SegmentFolder, live_batches, sync_folder

KEY = "key"
LOG_BYTES = 8 << 20  # a larger log becomes a segment
Row = Mapping[str, Any]


class EventLog:
    """One keyed table of a folder store. One writer at a time, which holds the folder's lock."""

    def __init__(self, folder: SegmentFolder, table: str, schema: pa.Schema) -> None:
        self._folder, self._table, self._schema = folder, table, schema
        self._times = {field.name for field in schema if pa.types.is_timestamp(field.type)}
        self._file: int | None = None
        self._bytes = 0

    def append(self, rows: Sequence[Row]) -> None:
        """Keep all rows or none; they are on disk when this returns. Raises DynaqError when they cannot be written."""
        self._folder.check_writable()
        if not rows:
            return
        if self._file is None or self._bytes > LOG_BYTES:
            self._turn_over()
        assert self._file is not None
        line = _frame([{name: self._encode(name, row[name]) for name in self._schema.names} for row in rows])
        try:
            _write_all(self._file, line)
            os.fdatasync(self._file)
        except OSError as error:
            self._abandon()
            raise DynaqError(f"store {self._folder.path}: {self._table} was not written ({error.strerror})") from None
        self._bytes += len(line)

    def table(self) -> pa.Table:
        """All rows, each key once."""
        recent = self._recent()  # before the segments: see the module's docstring
        segments = self._folder.open_segments(self._table)
        batches = list(live_batches(segments, (KEY,))) if segments else []
        settled = pa.Table.from_batches(batches, schema=self._schema)
        if not recent:
            return settled
        unsettled = pa.Table.from_pylist(list(recent.values()), schema=self._schema)
        twice = pc.is_in(unsettled[KEY], value_set=settled[KEY].combine_chunks())
        return pa.concat_tables([settled, unsettled.filter(pc.invert(twice))])

    def all_keys(self) -> Iterator[str]:
        """Every key."""
        recent = self._recent()
        for segment in self._folder.open_segments(self._table):
            yield from segment.read(columns=[KEY]).column(0).to_pylist()
        yield from recent

    def settle(self) -> None:
        """Turn the logs into a segment. This drops torn lines."""
        self._folder.check_writable()
        self._close_file()
        logs = self._logs()
        rows = list(self._recent().values())
        if rows:
            self._folder.append(self._table, [pa.RecordBatch.from_pylist(rows, self._schema)], self._schema)
        for log in logs:
            log.unlink()
        if len(self._folder.names(self._table)) > MAX_SEGMENTS_WHILE_OPEN:
            self._folder.merge(self._table, (KEY,))

    def delete(self, column: str, gone: Callable[[Any], Any]) -> int:
        """Delete the rows whose `column` the function marks, as `SegmentFolder.delete` does. Returns how many."""
        self.settle()  # deletes torn lines too, which may hold anything
        return self._folder.delete(self._table, (KEY,), column, gone)

    def _turn_over(self) -> None:
        """Settle the existing logs and begin a new one."""
        self.settle()
        number = int(self._folder.manifest["next"])  # settling left no log of that number
        path = self._folder.path / self._table / f"{number:08d}.log"
        try:
            path.parent.mkdir(exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            sync_folder(path.parent)
            sync_folder(self._folder.path)
        except OSError as error:
            raise DynaqError(f"store {self._folder.path}: {path.name} cannot be made ({error.strerror})") from None
        self._bytes = 0

    def _abandon(self) -> None:
        """Give up the log after a failed write, whose line is cut off if possible; the next append begins a new log."""
        assert self._file is not None
        try:
            os.ftruncate(self._file, self._bytes)
            os.fdatasync(self._file)
        except OSError:
            pass  # the line may stay, torn or whole: it was not acknowledged, and keys make repeating it harmless
        self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _logs(self) -> list[Path]:
        return sorted((self._folder.path / self._table).glob("*.log"))

    def _recent(self) -> dict[str, Row]:
        """Rows of the logs by key; the first of a key wins."""
        rows: dict[str, Row] = {}
        for log in self._logs():
            try:
                data = log.read_bytes()
            except FileNotFoundError:  # has just become a segment
                continue
            for row in _frames(data, log):
                rows.setdefault(row[KEY], {name: self._decode(name, row[name]) for name in self._schema.names})
        return rows

    def _encode(self, name: str, value: Any) -> Any:
        return round(value.timestamp() * 1000) if name in self._times else value

    def _decode(self, name: str, value: Any) -> Any:
        if name not in self._times:
            return value
        seconds, milliseconds = divmod(value, 1000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=1000 * milliseconds)


def _frame(rows: Sequence[Row]) -> bytes:
    text = json.dumps(rows, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _frames(data: bytes, log: Path) -> Iterator[Row]:
    """Rows of the intact lines. Raises DynaqError when an intact line follows a damaged one."""
    lines = data.split(b"\n")
    torn = False
    for line in lines:
        whole = len(line) > 9 and line[:8] == b"%08x" % zlib.crc32(line[9:])
        if whole and torn:
            raise DynaqError(f"store log {log} is damaged before its end; restore it from a backup, or remove it")
        if whole:
            yield from json.loads(line[9:])
        else:
            torn = torn or bool(line)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
