"""Graded relevance (qrels): how well a job fits an applicant, by a source independent of our embeddings and judges.

The file formats are Parquet, CSV and JSONL with `applicant_id, job_id, grade`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dynaq.errors import InputError
from dynaq.judging.judgement import LABELS, Label

QRELS_SCHEMA = pa.schema([("applicant_id", pa.string()), ("job_id", pa.string()), ("grade", pa.float64())])


class Qrels:
    """Grades per applicant and job. A job that is not listed has grade 0."""

    def __init__(self, grades: Mapping[str, Mapping[str, float]]) -> None:
        self._grades = {applicant: dict(jobs) for applicant, jobs in grades.items()}
        self._highest = max((g for jobs in self._grades.values() for g in jobs.values()), default=0.0)

    @property
    def applicants(self) -> tuple[str, ...]:
        """Applicants with at least one grade, in input order."""
        return tuple(self._grades)

    def grades(self, applicant_id: str) -> dict[str, float]:
        """Job id -> grade; empty for an applicant without any."""
        return dict(self._grades.get(applicant_id, {}))

    def label(self, applicant_id: str, job_id: str) -> Label:
        """What a judge who never errs would answer: APPLY for the highest grade of all, in equal steps down to IGNORE.

        Every grade above 0 is at least a CLICK.
        """
        grade = self._grades.get(applicant_id, {}).get(job_id, 0.0)
        steps = max(1, round((len(LABELS) - 1) * grade / self._highest)) if grade > 0 else 0
        return LABELS[len(LABELS) - 1 - steps]

    def __len__(self) -> int:
        """Number of graded pairs."""
        return sum(len(jobs) for jobs in self._grades.values())

    def to_table(self) -> pa.Table:
        """`applicant_id, job_id, grade`, one row per graded pair."""
        rows = [(a, j, g) for a, jobs in self._grades.items() for j, g in jobs.items()]
        columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, QRELS_SCHEMA, strict=True)]
        return pa.Table.from_arrays(arrays, schema=QRELS_SCHEMA)


def qrels_from_table(table: pa.Table, source: str = "qrels") -> Qrels:
    """Build Qrels from a table. Raises InputError on a missing column, an empty id or a grade not ≥ 0."""
    missing = [name for name in QRELS_SCHEMA.names if name not in table.column_names]
    if missing:
        raise InputError(f"{source}: no column {', '.join(missing)}; qrels need applicant_id, job_id, grade")
    columns = (table.column(name).to_pylist() for name in QRELS_SCHEMA.names)
    return _qrels_from_rows(zip(*columns, strict=True), source)


def _qrels_from_rows(rows: Iterable[tuple[Any, Any, Any]], source: str) -> Qrels:
    grades: dict[str, dict[str, float]] = {}
    for number, (applicant, job, grade) in enumerate(rows, start=1):
        try:
            value = float(grade)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value) or value < 0:
            raise InputError(f"{source}, record {number}: grade {grade!r} is not a number of at least 0")
        if applicant in (None, "") or job in (None, ""):
            raise InputError(f"{source}, record {number}: applicant_id and job_id must not be empty")
        grades.setdefault(str(applicant), {})[str(job)] = value
    return Qrels(grades)


def read_qrels(path: str | Path) -> Qrels:
    """Read a qrels file by its extension (.parquet, .csv, .jsonl). Raises InputError on anything else."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"qrels file {path} does not exist")
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return _qrels_from_rows(_jsonl_rows(path), str(path))
    try:
        if suffix == ".parquet":
            return qrels_from_table(pq.read_table(path), str(path))
        if suffix == ".csv":
            # Without explicit types pyarrow would read the ids "007" and "7" as the same number.
            types = {"applicant_id": pa.string(), "job_id": pa.string(), "grade": pa.string()}
            options = pa_csv.ConvertOptions(column_types=types, strings_can_be_null=False)
            return qrels_from_table(pa_csv.read_csv(path, convert_options=options), str(path))
    except pa.ArrowInvalid as error:
        raise InputError(f"qrels file {path} cannot be read as {suffix[1:]}: {str(error).splitlines()[0]}") from None
    raise InputError(f"qrels file {path}: extension {suffix!r} is not one of .parquet, .csv, .jsonl")


def _jsonl_rows(path: Path) -> Iterable[tuple[Any, Any, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                yield tuple(record[name] for name in QRELS_SCHEMA.names)
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"qrels file {path}, line {number}: {type(error).__name__}: {error}") from None
