"""A run folder on local disk, S3, GCS or any other filesystem that pyarrow knows by URI.

config.yaml  metrics.parquet  recommendations.parquet  agents/block_00000.json  agents/block_00000-<round>/

The two tables of a large cohort are folders of that name with files part-00000.parquet and so on, which pyarrow, pandas
and others read as one table.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyarrow import fs

from dynaq.errors import DynaqError, InputError

if TYPE_CHECKING:
    import pyarrow.dataset as ds

CONFIG = "config.yaml"
METRICS = "metrics.parquet"
RECOMMENDATIONS = "recommendations.parquet"
REPORT = "report.html"
COSTS = "costs.json"  # of an endpoint's calls, over all sessions of the run
BILLS = "bills.json"  # trial -> judgements paid, over all sessions of a comparison
COHORT_BLOCKS = "agents/cohort.json"  # block -> its applicants, as they were divided at the run's start
GOLD = "gold.parquet"  # the hand-made labels of --gold


@dataclass(frozen=True)
class RunFolder:
    """Reads and writes files by name relative to the folder. Holds only its URI, so it can be sent to any node."""

    uri: str

    @classmethod
    def at(cls, uri: str | os.PathLike[str]) -> RunFolder:
        """The folder at a URI or path; a path becomes absolute, because actors have another working directory.

        Raises InputError on an unknown URI.
        """
        text = os.fspath(uri)
        folder = cls(text if "://" in text else str(Path(text).expanduser().resolve()))
        try:
            _ = folder._place
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"run folder {text!r}: {error}; use a path or an s3://, gs:// or file:// URI") from error
        return folder

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self.uri.partition("?")[0].rstrip("/").rpartition("/")[2]

    @cached_property
    def _place(self) -> tuple[fs.FileSystem, str]:
        if "://" not in self.uri:
            return fs.LocalFileSystem(), self.uri
        filesystem, path = fs.FileSystem.from_uri(self.uri)
        return filesystem, path.rstrip("/")

    @property
    def local(self) -> Path | None:
        """The folder as a path, None unless it is on this machine's disk."""
        filesystem, path = self._place
        return Path(path) if isinstance(filesystem, fs.LocalFileSystem) else None

    def child(self, name: str) -> RunFolder:
        """A run folder inside this one (a trial). The URI's query parameters are kept."""
        base, mark, query = self.uri.partition("?")
        return RunFolder(f"{base.rstrip('/')}/{name}{mark}{query}")

    def exists(self, name: str = "") -> bool:
        """Whether the run folder, or a file or subfolder of it, exists."""
        filesystem, path = self._place
        return bool(filesystem.get_file_info(f"{path}/{name}".rstrip("/")).type != fs.FileType.NotFound)

    def names(self, name: str = "") -> list[str]:
        """Names of the direct entries of a subfolder; empty if it does not exist."""
        filesystem, path = self._place
        selector = fs.FileSelector(f"{path}/{name}".rstrip("/"), allow_not_found=True)
        return sorted(info.base_name for info in filesystem.get_file_info(selector))

    def files(self) -> list[str]:
        """Names of all files in the folder and below, relative to it, sorted; empty if it does not exist."""
        filesystem, path = self._place
        selector = fs.FileSelector(path, allow_not_found=True, recursive=True)
        found = (info.path for info in filesystem.get_file_info(selector) if info.type == fs.FileType.File)
        return sorted(name.removeprefix(path).lstrip("/") for name in found)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file atomically: by a rename on a local disk; object stores show an object only when it is complete.

        Raises DynaqError.
        """
        filesystem, path = self._place
        target = f"{path}/{name}"
        try:
            if not isinstance(filesystem, fs.LocalFileSystem):
                with filesystem.open_output_stream(target) as stream:
                    stream.write(data)
                return
            filesystem.create_dir(target.rpartition("/")[0], recursive=True)
            partial = Path(f"{target}.{uuid.uuid4().hex[:8]}.partial")
            partial.write_bytes(data)
            os.replace(partial, target)
        except OSError as error:
            raise DynaqError(f"cannot write {name} in run folder {self.uri!r}: {error}") from error

    def read_bytes(self, name: str) -> bytes:
        """A file's content. Raises InputError if it does not exist, DynaqError if it cannot be read."""
        return self._read(name, lambda file: file.read())

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """`size` bytes of a file from `offset`. Raises DynaqError if it is shorter, and as `read_bytes`."""
        data = self._read(name, lambda file: file.read_at(size, offset))
        if len(data) != size:
            raise DynaqError(f"{name} in run folder {self.uri!r} ends before byte {offset + size}")
        return data

    def _read(self, name: str, read: Callable[[pa.NativeFile], bytes]) -> bytes:
        filesystem, path = self._place
        try:
            with filesystem.open_input_file(f"{path}/{name}") as file:
                return bytes(read(file))
        except FileNotFoundError as error:
            raise InputError(f"run folder {self.uri!r} has no {name}; is it the folder of a finished run?") from error
        except OSError as error:
            raise DynaqError(f"cannot read {name} in run folder {self.uri!r}: {error}") from error

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet file. Raises as `write_bytes`."""
        sink = io.BytesIO()
        pq.write_table(table, sink)
        self.write_bytes(name, sink.getvalue())

    def write_parts(self, name: str, tables: Iterable[pa.Table]) -> None:
        """Write a table as a folder of Parquet files, one of `tables` in memory at a time."""
        filesystem, path = self._place
        if filesystem.get_file_info(f"{path}/{name}").type == fs.FileType.File:
            filesystem.delete_file(f"{path}/{name}")
        with self.new_folder(name) as parts:
            for number, table in enumerate(tables):
                # A column without any value has no type of its own, which would differ from part to part.
                schema = pa.schema([f.with_type(pa.float64()) if f.type == pa.null() else f for f in table.schema])
                pq.write_table(table.cast(schema), parts / f"part-{number:05d}.parquet")

    def in_parts(self, name: str) -> bool:
        """Whether a table was written by `write_parts`."""
        filesystem, path = self._place
        return bool(filesystem.get_file_info(f"{path}/{name}").type == fs.FileType.Directory)

    def read_table(self, name: str) -> pa.Table:
        """Read a Parquet file, or all parts of a table. Raises as `read_bytes`."""
        if self.in_parts(name):
            return self.dataset(name).to_table()
        return pq.read_table(pa.BufferReader(self.read_bytes(name)))

    def dataset(self, name: str) -> ds.Dataset:
        """A table, in parts or not, to read some of its rows or columns. Its rows are in the order of the parts."""
        import pyarrow.dataset as ds  # brings pandas, half a second at the start of each training actor

        filesystem, path = self._place
        place: str | list[str] = f"{path}/{name}"
        if self.in_parts(name):  # without what an interruption left beside them
            place = [f"{path}/{name}/{part}" for part in self.names(name) if part.endswith(".parquet")]
        return ds.dataset(place, filesystem=filesystem, format="parquet")

    def write_yaml(self, name: str, value: Any) -> None:
        """Write a YAML file, keys in the order given. Raises as `write_bytes`."""
        self.write_bytes(name, yaml.safe_dump(value, sort_keys=False).encode())

    def read_yaml(self, name: str) -> Any:
        """Read a YAML file. Raises as `read_bytes`."""
        return yaml.safe_load(self.read_bytes(name))

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file. Raises as `write_bytes`."""
        self.write_bytes(name, json.dumps(value).encode())

    def read_json(self, name: str) -> Any:
        """Read a JSON file. Raises as `read_bytes`."""
        return json.loads(self.read_bytes(name))

    @contextmanager
    def new_folder(self, name: str) -> Iterator[Path]:
        """A local folder to fill with files; it becomes the subfolder `name` if the `with` block does not raise."""
        local = self.local
        if local is None:
            with tempfile.TemporaryDirectory() as staging:
                yield Path(staging)
                for file in sorted(Path(staging).iterdir()):
                    self.write_bytes(f"{name}/{file.name}", file.read_bytes())
            return
        target = local / name
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.partial")
        partial.mkdir(parents=True)
        try:
            yield partial
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @contextmanager
    def as_local(self, name: str) -> Iterator[Path]:
        """A subfolder's files, without its own subfolders, on this machine's disk: in place, or a temporary copy."""
        if self.local is not None:
            yield self.local / name
            return
        with tempfile.TemporaryDirectory() as copy:
            for file in self.names(name):
                (Path(copy) / file).write_bytes(self.read_bytes(f"{name}/{file}"))
            yield Path(copy)

    def remove(self, name: str) -> None:
        """Delete a subfolder with its content, if it exists."""
        filesystem, path = self._place
        if self.exists(name):
            filesystem.delete_dir(f"{path}/{name}")

    def remove_file(self, name: str) -> None:
        """Delete a file. Raises DynaqError when that fails."""
        filesystem, path = self._place
        try:
            filesystem.delete_file(f"{path}/{name}")
        except OSError as error:
            raise DynaqError(f"cannot delete {name} in run folder {self.uri!r}: {error}") from error


def read_blocks(folder: RunFolder) -> dict[str, list[str]]:
    """Block number -> its applicants, as the run recorded them; empty for runs of earlier versions."""
    recorded: dict[str, list[str]] = folder.read_json(COHORT_BLOCKS) if folder.exists(COHORT_BLOCKS) else {}
    return recorded


def cohort_digest(cohort: Sequence[str]) -> str:
    """Hash of the cohort's members and their order, to tell two cohorts apart."""
    return hashlib.sha256("\n".join(cohort).encode()).hexdigest()[:16]
