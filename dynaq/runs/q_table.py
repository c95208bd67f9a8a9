"""The part of a run folder that is served: every agent's Q over the catalogue or its candidates, with checksums.

A finished run has `serving.json`, written last, which names the catalogue (`catalogue.parquet`, job ids in column
order) and a file of Q values per block. Where agents had candidates of a larger catalogue, `q_columns.npy` beside it
says which column each value is about; such a run has format 2, so that older programs refuse it instead of reading it
wrongly. An agent's row is read from its offset in the file on request, so that a million agents need no memory; the
service ranks it once and keeps the top.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dynaq.errors import InputError
from dynaq.runs.folder import CONFIG, RunFolder

SERVING = "serving.json"
CATALOGUE = "catalogue.parquet"
Q_VALUES = "q_values.npy"
AGENTS = "q_values.json"  # the applicants of the rows of Q_VALUES, and its checksum
Q_COLUMNS = "q_columns.npy"  # int32, of the shape of Q_VALUES
WHOLE, CANDIDATES = 1, 2  # formats: Q over the whole catalogue, or over candidates

FloatArray = npt.NDArray[np.float32]
Columns = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Place:
    """Where an agent's row is: the block's folder, the number of values, and where they and their columns begin."""

    folder: str
    width: int
    offset: int
    columns_offset: int | None


def write_q_values(
    folder: Path,
    applicant_ids: Sequence[str],
    q_values: FloatArray,
    columns: npt.NDArray[np.integer[Any]] | None = None,
) -> None:
    """Write a block's Q `[agents, n_jobs]` into its folder; or `[agents, k]`, with the columns that it is about."""
    record: dict[str, Any] = {"applicants": list(applicant_ids)}
    record["sha256"] = _write(folder / Q_VALUES, np.ascontiguousarray(q_values, "<f4"))
    if columns is not None:
        record["columns_sha256"] = _write(folder / Q_COLUMNS, np.ascontiguousarray(columns, "<i4"))
    (folder / AGENTS).write_text(json.dumps(record))


def _write(file: Path, array: npt.NDArray[Any]) -> str:
    """Write an array. Returns the file's checksum."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    file.write_bytes(buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def write_serving(folder: RunFolder, layout: str, job_ids: Sequence[str], blocks: Sequence[str]) -> str:
    """Finish a run folder for serving, given its blocks' folders. Returns the run's id, a hash of its content."""
    catalogue = io.BytesIO()
    pq.write_table(pa.table({"job_id": pa.array(job_ids, pa.string())}), catalogue)
    folder.write_bytes(CATALOGUE, catalogue.getvalue())
    agents = [{"folder": block} | folder.read_json(f"{block}/{AGENTS}") for block in blocks]
    record: dict[str, Any] = {
        "format": CANDIDATES if any("columns_sha256" in block for block in agents) else WHOLE,
        "layout": layout,
        "jobs": len(job_ids),
        "catalogue_sha256": hashlib.sha256(catalogue.getvalue()).hexdigest(),
        "blocks": agents,
    }
    return _write_record(folder, record)


def replace_blocks(folder: RunFolder, blocks: Sequence[str]) -> str | None:
    """Serve these blocks instead of those that the run named. Returns the new run id; None if nothing changed.

    The ids that the run had before stay in `earlier_ids`: lists that it ranked are logged under them.
    """
    record = folder.read_json(SERVING)
    if [block["folder"] for block in record["blocks"]] == list(blocks):
        return None
    record["earlier_ids"] = [*record.get("earlier_ids", ()), record["run_id"]]
    record["blocks"] = [{"folder": block} | folder.read_json(f"{block}/{AGENTS}") for block in blocks]
    return _write_record(folder, record)


def _write_record(folder: RunFolder, record: dict[str, Any]) -> str:
    record["run_id"] = _run_id(record)
    folder.write_json(SERVING, record)
    return str(record["run_id"])


@dataclass(frozen=True)
class ServedRun:
    """A finished run whose files were checked.

    Args:
        folder: the run folder; for a comparison, that of its best trial.
        run_id: `run-` and 12 hex digits of the SHA-256 of its content.
        layout: layout of the catalogue it was trained on.
        job_ids: the columns of Q.
        places: applicant -> where the agent's row is.
        earlier_ids: ids that it had before applicants were forgotten.
    """

    folder: RunFolder
    run_id: str
    layout: str
    job_ids: tuple[str, ...]
    places: Mapping[str, Place]
    earlier_ids: frozenset[str] = frozenset()

    @classmethod
    def open(cls, uri: str) -> ServedRun:
        """Open a run and check its checksums and shapes, and that all values are finite.

        Raises InputError naming what is missing or broken, DynaqError when it cannot be read.
        """
        folder, record = _record(uri)
        try:
            job_ids = _catalogue(folder, record)
            places: dict[str, Place] = {}
            for block in record["blocks"]:
                places |= _checked_block(folder, block, len(job_ids))
            if record["run_id"] != _run_id(record):
                raise InputError(f"run {folder.uri!r} is broken: {SERVING} was changed after it was written")
            earlier = frozenset(map(str, record.get("earlier_ids", ())))
            return cls(folder, str(record["run_id"]), str(record["layout"]), job_ids, places, earlier)
        except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"run {folder.uri!r} is broken ({reason}); train it again, or serve another") from error

    @cached_property
    def columns(self) -> Mapping[str, int]:
        """Job id -> its column of Q."""
        return {job_id: column for column, job_id in enumerate(self.job_ids)}

    @cached_property
    def judge(self) -> str | None:
        """Fingerprint of the judge whose answers the agents learned from; None if unknown or there was none."""
        config = self.folder.read_yaml(CONFIG) if self.folder.exists(CONFIG) else {}
        return config.get("judge_fingerprint")

    def q_values(self, applicant_id: str) -> tuple[Columns, FloatArray] | None:
        """The columns that an agent knows and its Q of them, both `[k]`, read from disk; None without an agent.

        Columns are distinct indices into `job_ids`, and rise. Raises DynaqError when a file cannot be read any more.
        """
        place = self.places.get(applicant_id)
        if place is None:
            return None
        q = np.frombuffer(self.folder.read_range(f"{place.folder}/{Q_VALUES}", place.offset, 4 * place.width), "<f4")
        if place.columns_offset is None:
            return np.arange(place.width, dtype=np.int32), q
        data = self.folder.read_range(f"{place.folder}/{Q_COLUMNS}", place.columns_offset, 4 * place.width)
        columns = np.frombuffer(data, "<i4")
        order = np.argsort(columns)
        return columns[order], q[order]

    def ranked(self, applicant_id: str) -> list[str] | None:
        """The jobs that an agent knows, best first, ties in the catalogue's order; None without an agent."""
        found = self.q_values(applicant_id)
        if found is None:
            return None
        columns, q = found
        return [self.job_ids[column] for column in columns[np.argsort(-q, kind="stable")]]


def served_run_id(uri: str) -> str:
    """The id of the run that is now at a URI, without reading its Q values. Raises InputError, DynaqError."""
    return str(_record(uri)[1].get("run_id"))


def _record(uri: str) -> tuple[RunFolder, dict[str, Any]]:
    folder = RunFolder.at(uri)
    if not folder.exists(SERVING) and folder.exists(CONFIG):
        config = folder.read_yaml(CONFIG)
        if isinstance(config, dict) and config.get("trials") and config.get("best"):
            folder = RunFolder.at(folder.child(str(config["best"])).uri)
    if not folder.exists(SERVING):
        raise InputError(
            f"{folder.uri!r} is not a finished run: it has no {SERVING}; train it, or continue with --resume"
        )
    try:
        record = folder.read_json(SERVING)
        if record["format"] not in (WHOLE, CANDIDATES):
            raise InputError(
                f"run {folder.uri!r} has format {record['format']}; this program serves {WHOLE} and {CANDIDATES}"
            )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"run {folder.uri!r} is broken: {SERVING} cannot be read ({error})") from error
    return folder, record


def _run_id(record: Mapping[str, Any]) -> str:
    text = json.dumps({key: value for key, value in record.items() if key != "run_id"}, sort_keys=True)
    return f"run-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _catalogue(folder: RunFolder, record: Mapping[str, Any]) -> tuple[str, ...]:
    data = folder.read_bytes(CATALOGUE)
    if hashlib.sha256(data).hexdigest() != record["catalogue_sha256"]:
        raise InputError(f"run {folder.uri!r} is broken: {CATALOGUE} is not the file that was written")
    return tuple(pq.read_table(pa.BufferReader(data)).column("job_id").to_pylist())


def _checked_block(folder: RunFolder, block: Mapping[str, Any], jobs: int) -> dict[str, Place]:
    """Check a block's files. Returns applicant -> where the agent's row is."""
    columns_offset, width = None, jobs
    if "columns_sha256" in block:
        name = f"{block['folder']}/{Q_COLUMNS}"
        columns, columns_offset = _checked(folder, name, block["columns_sha256"], block, "<i4")
        width = columns.shape[1]
        distinct = np.sort(columns, axis=1)
        if columns.size and (distinct[:, 0].min() < 0 or distinct[:, -1].max() >= jobs or not np.diff(distinct).all()):
            raise InputError(f"run {folder.uri!r} is broken: {name} names columns twice, or some that do not exist")
    name = f"{block['folder']}/{Q_VALUES}"
    values, offset = _checked(folder, name, block["sha256"], block, "<f4")
    if values.shape[1] != width:
        raise InputError(f"run {folder.uri!r} is broken: {name} holds {values.dtype} {values.shape}")
    if not np.isfinite(values).all():
        raise InputError(f"run {folder.uri!r} is broken: {name} holds NaN or infinity")
    step = 4 * width
    return {
        applicant: Place(
            block["folder"],
            width,
            offset + step * row,
            None if columns_offset is None else columns_offset + step * row,
        )
        for row, applicant in enumerate(block["applicants"])
    }


def _checked(
    folder: RunFolder, name: str, checksum: str, block: Mapping[str, Any], dtype: str
) -> tuple[npt.NDArray[Any], int]:
    """A file's array with a row per agent, and the offset of its first number."""
    data = folder.read_bytes(name)
    if hashlib.sha256(data).hexdigest() != checksum:
        raise InputError(f"run {folder.uri!r} is broken: {name} is not the file that was written")
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.ndim != 2 or len(array) != len(block["applicants"]) or array.dtype != np.dtype(dtype):
        raise InputError(f"run {folder.uri!r} is broken: {name} holds {array.dtype} {array.shape}")
    return array, len(data) - array.nbytes
