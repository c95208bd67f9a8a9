from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynaq.errors import InputError, JudgeError
from dynaq.judging import ledger_file
from dynaq.judging.judgement import Slate
from dynaq.judging.ledger_file import ReplayJudge, check_ledger, read_ledger, write_ledger
from dynaq.records import Candidate, Job
from tests.support.toy_market import grade_judgement

ROWS = [
    {"applicant_id": "ann", "job_id": "j1", "label": "APPLY"},
    {"applicant_id": "ann", "job_id": "j2", "label": "IGNORE"},
    {"applicant_id": "bob", "job_id": "j1", "label": "SAVE"},
]


def written(tmp_path: Path, rows: Sequence[dict[str, Any]], kind: str = "jsonl") -> Path:
    path = tmp_path / f"ledger.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_labels_are_read_and_replayed(tmp_path: Path, kind: str) -> None:
    judge = ReplayJudge(written(tmp_path, ROWS, kind))
    assert len(judge) == 3
    (ann, bob) = judge.fetch([Slate("ann", ("j2", "j1")), Slate("bob", ("j1",))])
    assert [(j.job_id, j.label, j.reward) for j in ann] == [("j2", "IGNORE", -0.1), ("j1", "APPLY", 1.0)]
    assert bob[0].probabilities == (0.0, 1.0, 0.0, 0.0)
    assert bob[0].judge == judge.fingerprint


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_probabilities_are_read_and_their_expected_value_is_the_reward(tmp_path: Path, kind: str) -> None:
    row = {"applicant_id": "ann", "job_id": "j1", "p_apply": 0.5, "p_save": 0.2, "p_click": 0.1, "p_ignore": 0.2}
    (judgement,) = ReplayJudge(written(tmp_path, [row], kind)).judge(Candidate(id="ann"), [Job(id="j1", title="t")])
    assert judgement.probabilities == (0.5, 0.2, 0.1, 0.2)
    assert judgement.label == "APPLY"
    assert judgement.reward == pytest.approx(0.5 + 0.1 - 0.02)


def test_a_drawn_label_and_its_reward_are_kept_where_they_are_recorded(tmp_path: Path) -> None:
    row = {"applicant_id": "ann", "job_id": "j1", "p_apply": 0.5, "p_save": 0.2, "p_click": 0.1, "p_ignore": 0.2}
    judge = ReplayJudge(written(tmp_path, [row | {"label": "SAVE", "reward": 0.5, "note": "drawn"}]))
    ((judgement,),) = judge.fetch([Slate("ann", ("j1",))])
    assert (judgement.label, judgement.reward, judgement.note) == ("SAVE", 0.5, "drawn")


def test_a_pair_that_the_ledger_lacks_is_an_error_that_names_it(tmp_path: Path) -> None:
    judge = ReplayJudge(written(tmp_path, ROWS))
    with pytest.raises(JudgeError, match=r"ledger\.jsonl has no judgement of 'bob' on 'j2'"):
        judge.fetch([Slate("ann", ("j1",)), Slate("bob", ("j1", "j2"))])


def test_the_last_judgement_of_a_pair_counts(tmp_path: Path) -> None:
    judge = ReplayJudge(written(tmp_path, [*ROWS, {"applicant_id": "ann", "job_id": "j1", "label": "CLICK"}]))
    assert judge.fetch([Slate("ann", ("j1",))])[0][0].label == "CLICK"


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    judgements = [grade_judgement("ann", "j1", 3), grade_judgement("ann", "j2", 0)]
    path = tmp_path / "out.parquet"
    write_ledger(path, judgements)
    (replayed,) = ReplayJudge(path).fetch([Slate("ann", ("j1", "j2"))])
    assert [j.probabilities for j in replayed] == [j.probabilities for j in judgements]
    assert [j.created_at for j in replayed] == [j.created_at for j in judgements]


P = {"p_apply": 0.5, "p_save": 0.2, "p_click": 0.1, "p_ignore": 0.2}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, {"applicant_id": "bob", "job_id": "j2", "label": "MAYBE"}], r"row 4: .*MAYBE"),
        ([*ROWS, {"applicant_id": "bob", "job_id": "j2", "label": None}], r"row 4: "),
        ([{"applicant_id": "ann", "job_id": "j1"} | P | {"p_apply": 0.9}], r"row 1: .*sum to 1"),
        ([{"applicant_id": "ann", "job_id": "j1"} | P | {"p_apply": -0.5, "p_save": 1.2}], r"row 1: "),
        ([{"applicant_id": "ann", "job_id": "j1"} | P, {"applicant_id": "ann", "job_id": "j2"}], r"row 2: "),
        ([ROWS[0], {"job_id": "j2", "label": "SAVE"}], r"row 2: applicant_id is missing"),
        ([{"applicant_id": "ann", "label": "APPLY"}], "no column job_id"),
        ([{"applicant_id": "ann", "job_id": "j1"}], "row 1: needs a label"),
        ([{"applicant_id": "ann", "job_id": "j1"} | P | {"label": "LIKE"}], "row 1: .*LIKE"),
    ],
    ids=["label", "null", "sum", "negative", "absent", "no applicant", "no column", "no label", "odd label"],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_bad_row_is_named(tmp_path: Path, kind: str, rows: list[dict[str, Any]], message: str) -> None:
    names = dict.fromkeys(name for row in rows for name in row)
    rows = [{name: row.get(name) for name in names} for row in rows]
    with pytest.raises(InputError, match=message) as error:
        read_ledger(written(tmp_path, rows, kind))
    assert f"ledger.{kind}" in str(error.value)


def test_a_file_read_in_parts_is_the_same_and_names_the_same_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"applicant_id": f"a{i}", "job_id": "j", "label": "SAVE", "reward": 0.4 if i % 2 else None} for i in range(9)
    ]
    path = tmp_path / "ledger.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    whole = read_ledger(path)
    monkeypatch.setattr(ledger_file, "PART_ROWS", 2)
    assert read_ledger(path) == whole
    assert whole.column("reward").to_pylist() == [0.4 if i % 2 else 0.5 for i in range(9)]
    assert read_ledger(path, ["a3", "a8"]).column("applicant_id").to_pylist() == ["a3", "a8"]
    rows[7]["label"] = "MAYBE"
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(InputError, match="row 8: needs a label"):
        check_ledger(path)


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.parquet does not exist"):
        read_ledger(tmp_path / "absent.parquet")
    other = tmp_path / "ledger.txt"
    other.write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match=r"\.txt is not a ledger format"):
        read_ledger(other)
    broken = tmp_path / "ledger.jsonl"
    broken.write_text("{not json\n", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read"):
        read_ledger(broken)
    broken = tmp_path / "ledger.parquet"
    broken.write_bytes(b"PAR0")
    with pytest.raises(InputError, match="cannot be read"):
        read_ledger(broken)
