"""The part of a run folder that is served: every agent's Q over the catalogue, with checksums.

A finished run has `serving.json`, written last, which names the catalogue (`catalogue.parquet`, job ids in column
order) and a file of Q values per block. An agent's row is read from its offset in the file on request, so that a
million agents need no memory; the service ranks it once and keeps the top.
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
SERVING_FORMAT = 1

FloatArray = npt.NDArray[np.float32]


def write_q_values(folder: Path, applicant_ids: Sequence[str], q_values: FloatArray) -> None:
    """Write a block's Q `[agents, n_jobs]` into its folder."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(q_values, "<f4"), allow_pickle=False)
    data = buffer.getvalue()
    (folder / Q_VALUES).write_bytes(data)
    record = {"applicants": list(applicant_ids), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / AGENTS).write_text(json.dumps(record))


def write_serving(folder: RunFolder, layout: str, job_ids: Sequence[str], blocks: Sequence[str]) -> str:
    """Finish a run folder for serving, given its blocks' folders. Returns the run's id, a hash of its content."""
    catalogue = io.BytesIO()
    pq.write_table(pa.table({"job_id": pa.array(job_ids, pa.string())}), catalogue)
    folder.write_bytes(CATALOGUE, catalogue.getvalue())
    record: dict[str, Any] = {
        "format": SERVING_FORMAT,
        "layout": layout,
        "jobs": len(job_ids),
        "catalogue_sha256": hashlib.sha256(catalogue.getvalue()).hexdigest(),
        "blocks": [{"folder": block} | folder.read_json(f"{block}/{AGENTS}") for block in blocks],
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
        places: applicant -> file and offset of the agent's row.
        earlier_ids: ids that it had before applicants were forgotten.
    """

    folder: RunFolder
    run_id: str
    layout: str
    job_ids: tuple[str, ...]
    places: Mapping[str, tuple[str, int]]
    earlier_ids: frozenset[str] = frozenset()

    @classmethod
    def open(cls, uri: str) -> ServedRun:
        """Open a run and check its checksums and shapes, and that all values are finite.

        Raises InputError naming what is missing or broken, DynaqError when it cannot be read.
        """
        folder, record = _record(uri)
        try:
            job_ids = _catalogue(folder, record)
            places: dict[str, tuple[str, int]] = {}
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

    def q_values(self, applicant_id: str) -> FloatArray | None:
        """An agent's Q over `job_ids`, `[n_jobs]`, read from disk; None for an applicant without an agent.

        Raises DynaqError when the file cannot be read any more.
        """
        place = self.places.get(applicant_id)
        if place is None:
            return None
        return np.frombuffer(self.folder.read_range(*place, 4 * len(self.job_ids)), "<f4")


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
        if record["format"] != SERVING_FORMAT:
            raise InputError(f"run {folder.uri!r} has format {record['format']}; this program serves {SERVING_FORMAT}")
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


def _checked_block(folder: RunFolder, block: Mapping[str, Any], jobs: int) -> dict[str, tuple[str, int]]:
    """Check a block's file. Returns applicant -> file and offset of the agent's row."""
    name = f"{block['folder']}/{Q_VALUES}"
    data = folder.read_bytes(name)
    if hashlib.sha256(data).hexdigest() != block["sha256"]:
        raise InputError(f"run {folder.uri!r} is broken: {name} is not the file that was written")
    values = np.load(io.BytesIO(data), allow_pickle=False)
    if values.shape != (len(block["applicants"]), jobs) or values.dtype != np.dtype("<f4"):
        raise InputError(f"run {folder.uri!r} is broken: {name} holds {values.dtype} {values.shape}")
    if not np.isfinite(values).all():
        raise InputError(f"run {folder.uri!r} is broken: {name} holds NaN or infinity")
    header = len(data) - values.nbytes
    return {applicant: (name, header + 4 * jobs * row) for row, applicant in enumerate(block["applicants"])}
