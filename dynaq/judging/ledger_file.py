"""The ledger as a file: judgements made earlier, and the judge that replays them.

A ledger file is Parquet or JSONL with `applicant_id, job_id` and either `label` or the four probabilities
`p_apply, p_save, p_click, p_ignore`; `reward`, `label_mass`, `created_at` and `note` are optional.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from dynaq.errors import InputError, JudgeError
from dynaq.judging.judgement import JUDGEMENT_SCHEMA, LABEL_VALUES, LABELS, Judgement, Slate, judgement_row
from dynaq.records import Candidate, Job

PROBABILITIES = tuple(f"p_{label.lower()}" for label in LABELS)
PART_ROWS = 1 << 17  # of a ledger file in memory at once while it is checked
LEDGER = "ledger:"  # `--judge ledger:FILE` names a judge that replays a file
Key = tuple[str, str]


def ledger_fingerprint(path: str | Path) -> str:
    """`ledger-` and 12 hex digits of the SHA-256 of the file."""
    with Path(path).open("rb") as file:
        return f"ledger-{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"


def read_ledger(path: str | Path, applicants: Sequence[str] | None = None) -> pa.Table:
    """The judgements of a ledger file, with the columns of JUDGEMENT_SCHEMA; the last row of a pair counts.

    applicants: whose judgements to return; None means all.
    Raises InputError naming the file and the first invalid row.
    """
    only = None if applicants is None else pa.array(list(applicants), pa.string())
    parts = [JUDGEMENT_SCHEMA.empty_table()]
    parts += [part if only is None else part.filter(pc.is_in(part["applicant_id"], only)) for part in _parts(path)]
    return pa.concat_tables(parts)


def check_ledger(path: str | Path) -> None:
    """Raises InputError as `read_ledger`, with a part of the file in memory at a time."""
    for _ in _parts(path):
        pass


def _parts(path: str | Path) -> Iterator[pa.Table]:
    """The file in parts of PART_ROWS, with the columns of JUDGEMENT_SCHEMA."""
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"ledger {path} does not exist; give a .parquet or .jsonl file with applicant_id, job_id, label"
        )
    judge = ledger_fingerprint(path)
    first = 0
    try:
        for table in _read(path):
            yield _normalised(table, path, judge, first)
            first += table.num_rows
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"ledger {path} cannot be read: {error}") from error


def _read(path: Path) -> Iterator[pa.Table]:
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            yield file.schema_arrow.empty_table()  # so that columns are checked where there are no rows
            yield from (pa.Table.from_batches([batch]) for batch in file.iter_batches(PART_ROWS))
    elif path.suffix == ".jsonl":
        yield pa_json.read_json(path)
    else:
        raise InputError(f"ledger {path}: {path.suffix or 'no suffix'} is not a ledger format; use .parquet or .jsonl")


def _normalised(table: pa.Table, path: Path, judge: str, first: int) -> pa.Table:
    """Rows of the file from row number `first` on, with the columns of JUDGEMENT_SCHEMA."""
    missing = [name for name in ("applicant_id", "job_id") if name not in table.column_names]
    if missing:
        raise InputError(f"ledger {path} has no column {missing[0]}; it needs applicant_id, job_id and label")
    n = table.num_rows
    for name in ("applicant_id", "job_id"):
        if table.column(name).null_count:
            row = first + table.column(name).to_pylist().index(None) + 1
            raise InputError(f"ledger {path}, row {row}: {name} is missing")
    probabilities = _probabilities(table, path, first)
    label_column = table.column("label").to_pylist() if "label" in table.column_names else [None] * n
    odd = next((i for i, label in enumerate(label_column) if label and label not in LABELS), None)
    if odd is not None:
        raise InputError(
            f"ledger {path}, row {first + odd + 1}: label {label_column[odd]!r} is not one of {', '.join(LABELS)}"
        )
    likeliest = probabilities.argmax(axis=1)
    columns: dict[str, Any] = {
        "applicant_id": table.column("applicant_id").cast(pa.string()),
        "job_id": table.column("job_id").cast(pa.string()),
        "label": [label or LABELS[i] for label, i in zip(label_column, likeliest, strict=True)],
        "reward": probabilities @ np.array([LABEL_VALUES[label] for label in LABELS]),
        "label_mass": np.ones(n),
        "judge": [judge] * n,
        "created_at": [datetime.fromtimestamp(0, UTC)] * n,
        "note": [""] * n,
    }
    columns |= {name: probabilities[:, i] for i, name in enumerate(PROBABILITIES)}
    for name in ("reward", "label_mass", "created_at", "note"):
        if name in table.column_names:
            kind = JUDGEMENT_SCHEMA.field(name).type
            columns[name] = pc.coalesce(table.column(name).cast(kind), pa.array(columns[name], kind))
    return pa.table(columns, schema=JUDGEMENT_SCHEMA)


def _probabilities(table: pa.Table, path: Path, first: int) -> npt.NDArray[np.float64]:
    """`[rows, 4]`, from the four probability columns if the table has them, else from the label."""
    rows = np.zeros((table.num_rows, len(LABELS)))
    if all(name in table.column_names for name in PROBABILITIES):
        rows = np.stack([table.column(name).to_numpy().astype(np.float64) for name in PROBABILITIES], axis=1)
    elif "label" in table.column_names:
        codes = {label: i for i, label in enumerate(LABELS)}
        for number, label in enumerate(table.column("label").to_pylist()):
            if label in codes:
                rows[number, codes[label]] = 1.0
    total = rows.sum(axis=1)
    bad = np.flatnonzero(~(np.isfinite(total) & (np.abs(total - 1.0) < 1e-3) & (rows >= 0).all(axis=1)))
    if len(bad):
        row = {name: table.column(name)[int(bad[0])].as_py() for name in table.column_names}
        raise InputError(
            f"ledger {path}, row {first + int(bad[0]) + 1}: needs a label ({', '.join(LABELS)}) or "
            f"{', '.join(PROBABILITIES)} that sum to 1, found {row}"
        )
    return rows


def judgements(table: pa.Table) -> Iterator[Judgement]:
    """Records of a table with the columns of JUDGEMENT_SCHEMA."""
    for row in table.to_pylist():
        yield Judgement(**row)


def write_ledger(path: str | Path, judgements: Iterable[Judgement]) -> None:
    """Write a Parquet ledger with all columns of a judgement."""
    pq.write_table(pa.Table.from_pylist([judgement_row(j) for j in judgements], schema=JUDGEMENT_SCHEMA), path)


class ReplayJudge:
    """Replays a ledger file. A pair that the file lacks is an error, never a guess."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._table = read_ledger(path)
        self.fingerprint = ledger_fingerprint(path)
        pairs = zip(*(self._table.column(name).to_pylist() for name in ("applicant_id", "job_id")), strict=True)
        self._row: dict[Key, int] = {pair: row for row, pair in enumerate(pairs)}

    def __len__(self) -> int:
        return len(self._row)

    def judge(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """Raises JudgeError naming the first pair that the ledger lacks."""
        return [self._lookup(applicant.id, job.id) for job in jobs]

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """`judge` for a broker. Raises as `judge`."""
        return self.judge(applicant, jobs)

    def fetch(self, slates: Sequence[Slate]) -> list[list[Judgement]]:
        """`judge` by ids, since a ledger needs no texts. Raises as `judge`."""
        return [[self._lookup(slate.applicant_id, job_id) for job_id in slate.job_ids] for slate in slates]

    def _lookup(self, applicant_id: str, job_id: str) -> Judgement:
        row = self._row.get((applicant_id, job_id))
        if row is None:
            raise JudgeError(
                f"ledger {self._path} has no judgement of {applicant_id!r} on {job_id!r}; "
                "replay needs every pair that an agent asks about"
            )
        return Judgement(**self._table.slice(row, 1).to_pylist()[0])
