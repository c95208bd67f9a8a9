from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from dynaq.errors import InputError
from dynaq.qrels import Qrels, read_qrels

QRELS = Qrels({"b": {"007": 3, "x": 0.5}, "a": {"7": 1}})


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_every_format_gives_the_same_grades(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"q.{suffix}"
    if suffix == "parquet":
        pq.write_table(QRELS.to_table(), path)
    elif suffix == "csv":
        pa.csv.write_csv(QRELS.to_table(), path)
    else:
        rows = QRELS.to_table().to_pylist()
        path.write_text("\n".join(str(row).replace("'", '"') for row in rows) + "\n\n")
    qrels = read_qrels(path)
    assert qrels.applicants == ("b", "a")
    assert qrels.grades("b") == {"007": 3.0, "x": 0.5}
    assert qrels.grades("nobody") == {}
    assert len(qrels) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.txt", "x", "extension"),
        ("q.csv", "applicant_id,job_id\na,1\n", "no column grade"),
        ("q.csv", "applicant_id,job_id,grade\na,1,high\n", "record 1.*'high'"),
        ("q.csv", "applicant_id,job_id,grade\na,1,-1\n", "record 1"),
        ("q.csv", "applicant_id,job_id,grade\n,1,1\n", "empty"),
        ("q.jsonl", '{"applicant_id": "a", "job_id": "1", "grade": NaN}', "record 1"),
        ("q.jsonl", '{"applicant_id": "a"}', "line 1.*job_id"),
        ("q.jsonl", "{", "line 1"),
        ("q.parquet", "no parquet", "cannot be read"),
    ],
)
def test_a_bad_file_says_where(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_qrels(tmp_path / name)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_qrels(tmp_path / "q.csv")


def test_no_grades_is_an_empty_table() -> None:
    assert Qrels({}).to_table().num_rows == 0
    assert isinstance(Qrels({}).to_table(), pa.Table)
