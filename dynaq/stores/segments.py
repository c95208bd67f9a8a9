"""Tables as Parquet segments in a folder, with one commit point.

`store.json` lists the live segments of every table. A write creates a new segment beside the others, and replacing
`store.json` commits it. A crash can only leave files that `store.json` does not list; the next writer removes them.
Rows are keyed, and the latest row of a key counts. One writer at a time holds `.lock`; readers need no lock and see the
last commit.
"""

from __future__ import annotations

import fcntl
import json
import os
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynaq.errors import DynaqError, InputError

STORE_FILE = "store.json"  # of every folder that is one
FORMAT = 1
MAX_SEGMENTS = 8  # more are merged when the writer closes
MAX_SEGMENTS_WHILE_OPEN = 64  # more are merged at once: a long run appends for hours
ROW_GROUP = 1024  # rows read at once: a few megabytes, so that buffers are reused


class SegmentFolder:
    """The folder, its manifest and its lock.

    Args:
        path: the folder.
        create: create it if it does not exist.
        read_only: take no lock; writing raises DynaqError.

    Raises InputError when the folder is not a store, or another process is writing to it.
    """

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self._lock: int | None = None
        if path.exists() and not path.is_dir():
            raise InputError(f"store {path} is a file; a store is a folder or a mongodb:// URI")
        if not (path / STORE_FILE).exists():
            if not create:
                raise InputError(f"store {path} does not exist; make it with `dynaq ingest --store {path} …`")
            if read_only:
                raise InputError(f"store {path} does not exist and cannot be made read-only")
            if path.is_dir() and any(entry.name != ".lock" for entry in path.iterdir()):
                raise InputError(f"folder {path} is not empty and holds no store; choose another folder")
        if not read_only:
            path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
        if (path / STORE_FILE).exists():
            self._manifest = self._read_manifest()
        else:
            self._manifest = {"format": FORMAT, "next": 0, "meta": {}, "tables": {}}
            self._commit()
        if not read_only:
            self._remove_strays()

    def _take_lock(self) -> None:
        try:
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"store {self.path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            writer = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise InputError(
                f"store {self.path} is being written by process {writer}; wait until it ends, or open it read-only"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._lock = lock

    def _read_manifest(self) -> dict[str, Any]:
        try:
            manifest: dict[str, Any] = json.loads((self.path / STORE_FILE).read_text(encoding="utf-8"))
            tables = manifest["format"], manifest["tables"], manifest["meta"], manifest["next"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DynaqError(
                f"store {self.path}: store.json cannot be read ({type(error).__name__}: {error})"
            ) from None
        if tables[0] != FORMAT:
            raise InputError(f"store {self.path} has format {tables[0]}; this version reads {FORMAT}")
        return manifest

    @property
    def manifest(self) -> dict[str, Any]:
        """The last commit. Readers read it anew each time; the only writer already has it."""
        if self.read_only:
            self._manifest = self._read_manifest()
        return self._manifest

    def _commit(self) -> None:
        temporary = self.path / "store.json.tmp"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(self._manifest, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path / STORE_FILE)
        sync_folder(self.path)

    def _remove_strays(self) -> None:
        live = {name for names in self._manifest["tables"].values() for name in names}
        for file in self.path.glob("*/*.parquet*"):
            if f"{file.parent.name}/{file.name}" not in live:
                file.unlink()

    def check_writable(self) -> None:
        """Raises DynaqError on a store that was opened read-only or closed."""
        if self._lock is None:
            raise DynaqError(f"store {self.path} is not open for writing")

    @property
    def closed(self) -> bool:
        """Whether writing is impossible because the folder is closed or was opened read-only."""
        return self._lock is None

    def put_meta(self, values: dict[str, Any]) -> None:
        """Set some of the store's metadata; the rest stays. Raises DynaqError when not open for writing."""
        self.check_writable()
        self._manifest["meta"].update(values)
        self._commit()

    def names(self, table: str) -> list[str]:
        """Live segments of a table, oldest first."""
        return list(self.manifest["tables"].get(table, []))

    def version(self, tables: Iterable[str]) -> str | None:
        """Another one after one of the tables was written, in this folder or in a new one of its name."""
        try:
            # Segments never change, but a store that is made anew begins with the same names.
            files = [(name, (self.path / name).stat()) for table in tables for name in self.names(table)]
        except FileNotFoundError:  # merged at this moment
            return None
        return " ".join(f"{name}:{file.st_ino}:{file.st_mtime_ns}" for name, file in files)

    def append(self, table: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        """Commit `batches` as one new segment; nothing changes when they have no rows or one fails."""
        self.check_writable()
        name = self._write(table, batches, schema)
        if name is not None:
            self._replace(table, [*self._manifest["tables"].get(table, []), name])

    def rewrite(self, table: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        """Commit `batches` as the table's whole contents."""
        self.check_writable()
        name = self._write(table, batches, schema)
        self._replace(table, [] if name is None else [name])

    def delete(self, table: str, keys: tuple[str, ...], column: str, gone: Callable[[Any], Any]) -> int:
        """Rewrite a table without the rows whose `column` the function marks. Returns how many live rows went.

        Nothing is written when no row is marked, not even one that a newer row of its key replaced.

        Args:
            table: name of the table.
            keys: its key columns.
            column: the column that decides.
            gone: its values -> a boolean array, True for rows to delete.
        """

        def marked(values: Any) -> Any:
            return pc.fill_null(gone(values), False)

        segments = self.open_segments(table)
        if not any(pc.any(marked(segment.read(columns=[column])[column])).as_py() for segment in segments):
            return 0
        count = 0

        def left() -> Iterator[pa.RecordBatch]:
            nonlocal count
            for batch in live_batches(segments, keys):
                remaining = batch.filter(pc.invert(marked(batch[column])))
                count += batch.num_rows - remaining.num_rows
                yield remaining

        self.rewrite(table, left(), segments[0].schema_arrow)
        return count

    def _replace(self, table: str, names: list[str]) -> None:
        old = self._manifest["tables"].get(table, [])
        self._manifest["tables"][table] = names
        self._commit()
        for name in set(old) - set(names):
            (self.path / name).unlink(missing_ok=True)

    def _write(self, table: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> str | None:
        name = f"{table}/{self._manifest['next']:08d}.parquet"
        target = self.path / name
        target.parent.mkdir(exist_ok=True)
        temporary = target.with_suffix(".parquet.tmp")
        rows = 0
        try:
            # Vectors do not compress, and uncompressed pages load at memory speed.
            vectors = any(pa.types.is_fixed_size_list(field.type) for field in schema)
            compression = "none" if vectors else "zstd"
            with pq.ParquetWriter(temporary, schema, compression=compression, use_dictionary=False) as writer:
                for batch in batches:
                    rows += batch.num_rows
                    writer.write_batch(batch, row_group_size=ROW_GROUP)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if rows == 0:
            temporary.unlink()
            return None
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
        self._manifest["next"] += 1
        return name

    def open_segments(self, table: str) -> list[pq.ParquetFile]:
        """All live segments, opened together, so that a concurrent merge cannot remove any of them."""
        for _ in range(5):
            try:
                # An open handle stays valid after its file is unlinked.
                return [pq.ParquetFile(pa.OSFile(str(self.path / name))) for name in self.names(table)]
            except FileNotFoundError:
                if not self.read_only:
                    break
            except pa.ArrowInvalid as error:
                raise DynaqError(f"store {self.path}: a segment of {table} is damaged ({error})") from None
        raise DynaqError(f"store {self.path}: a segment of {table} that store.json names is missing")

    def close(self, merge: dict[str, tuple[str, ...]]) -> None:
        """Merge tables that have many segments (table -> key columns) and release the lock. Idempotent."""
        if self._lock is None:
            return
        try:
            for table, keys in merge.items():
                if len(self.names(table)) > MAX_SEGMENTS:
                    self.merge(table, keys)
        finally:
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    def merge(self, table: str, keys: tuple[str, ...]) -> None:
        """Rewrite a table as one segment, without rows that newer ones replaced."""
        segments = self.open_segments(table)
        self.rewrite(table, live_batches(segments, keys), segments[0].schema_arrow)


def live_rows(
    segments: list[pq.ParquetFile], keys: tuple[str, ...], keep: set[str] | None = None
) -> list[npt.NDArray[np.bool_]]:
    """Per segment, a mask `[rows]` of rows that no later row replaces and whose (single) key is in `keep`, if given."""
    masks = []
    seen: set[Any] = set()
    for segment in reversed(segments):
        groups = groups_with(segment, keys[0], keep)
        columns = [segment.read_row_groups(groups, columns=[key]).column(0).to_pylist() for key in keys]
        rows = columns[0] if len(keys) == 1 else list(zip(*columns, strict=True))
        mask = np.ones(len(rows), bool)
        if not seen and len(set(rows)) == len(rows):
            seen.update(rows)
        else:
            for i in range(len(rows) - 1, -1, -1):
                mask[i] = rows[i] not in seen
                seen.add(rows[i])
        if keep is not None:
            mask &= np.fromiter((row in keep for row in rows), bool, len(rows))
        masks.append(_spread(mask, segment, groups))
    return masks[::-1]


def groups_with(segment: pq.ParquetFile, column: str, values: Collection[str] | None) -> list[int]:
    """Row groups that may hold one of the values (None: any) in a text column, by the file's own statistics.

    So reading a few ids of a table that is roughly in their order costs a few row groups, not the table.
    """
    metadata = segment.metadata
    every = list(range(segment.num_row_groups))
    if values is None or not every:
        return every
    wanted = sorted(values)
    place = next(i for i in range(metadata.num_columns) if metadata.schema.column(i).path == column)
    found = []
    for group in every:
        statistics = metadata.row_group(group).column(place).statistics
        if statistics is None or not statistics.has_min_max:
            found.append(group)
            continue
        first = bisect_left(wanted, statistics.min)
        if first < len(wanted) and wanted[first] <= statistics.max:
            found.append(group)
    return found


def _spread(mask: npt.NDArray[np.bool_], segment: pq.ParquetFile, groups: list[int]) -> npt.NDArray[np.bool_]:
    """A mask of the rows of some row groups as one of all rows; the others are False."""
    if len(groups) == segment.num_row_groups:
        return mask
    whole = np.zeros(segment.metadata.num_rows, bool)
    ends = np.cumsum([segment.metadata.row_group(group).num_rows for group in range(segment.num_row_groups)])
    read = 0
    for group in groups:
        rows = segment.metadata.row_group(group).num_rows
        whole[ends[group] - rows : ends[group]] = mask[read : read + rows]
        read += rows
    return whole


def live_batches(
    segments: list[pq.ParquetFile],
    keys: tuple[str, ...],
    columns: list[str] | None = None,
    keep: set[str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Row groups as batches of live rows, one in memory at a time.

    Args:
        segments: oldest first.
        keys: the key columns.
        columns: which columns to read; None means all.
        keep: keep only rows whose (single) key is among these.
    """
    groups = _live_groups(segments, live_rows(segments, keys, keep))
    # The next row group is read while the caller works on this one.
    with ThreadPoolExecutor(1) as reader:
        following = _submit(reader, next(groups, None), columns)
        while following is not None:
            alive, reading = following
            table = reading.result()
            following = _submit(reader, next(groups, None), columns)
            if not alive.all():
                table = table.filter(pa.array(alive))
            yield from table.combine_chunks().to_batches()


LiveGroup = tuple[pq.ParquetFile, int, npt.NDArray[np.bool_]]


def _live_groups(segments: list[pq.ParquetFile], masks: list[npt.NDArray[np.bool_]]) -> Iterator[LiveGroup]:
    """(segment, row group, mask of the rows to keep) for each group with rows to keep."""
    for segment, mask in zip(segments, masks, strict=True):
        start = 0
        for group in range(segment.num_row_groups):
            rows = segment.metadata.row_group(group).num_rows
            alive = mask[start : start + rows]
            start += rows
            if alive.any():
                yield segment, group, alive


def _submit(
    reader: ThreadPoolExecutor, live: LiveGroup | None, columns: list[str] | None
) -> tuple[npt.NDArray[np.bool_], Future[pa.Table]] | None:
    if live is None:
        return None
    segment, group, alive = live
    return alive, reader.submit(segment.read_row_group, group, columns=columns)


def sync_folder(path: Path) -> None:
    """Flush a folder to disk, which makes a rename in it durable."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
