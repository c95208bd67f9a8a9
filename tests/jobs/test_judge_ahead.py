"""dynaq judge --all-pairs and --top: what is said, what is refused, where bad rows are listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dynaq.stores import open_store
from jobs import judge as verb
from jobs.cli import run
from tests.support.judges import FINGERPRINT, RuleJudge
from tests.support.markets import make_ledger, make_store


@pytest.fixture
def store(tmp_path: Path) -> str:
    make_store(str(tmp_path / "store"))
    return str(tmp_path / "store")


def ruled(monkeypatch: pytest.MonkeyPatch, judge: RuleJudge) -> None:
    def backend(*_: Any, **__: Any) -> Any:
        return judge.backend()

    monkeypatch.setattr(verb, "judge_backend", backend)


@pytest.mark.usefixtures("ray_session_fixture")
def test_pairs_of_a_file_are_judged_and_bad_rows_listed_beside_it(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ruled(monkeypatch, RuleJudge(tmp_path / "asked.log"))
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("applicant_id,job_id\na000,j001\na000,j002\nnobody,j001\na001,\n")
    arguments = ["judge", "--store", store, "--judge", "http://rule", "--all-pairs", str(pairs)]
    assert run(arguments) == 0
    said = capsys.readouterr()
    assert "2 pairs:" in said.out
    assert "2 rows cannot be used" in said.out
    assert "line 4: applicant_id 'nobody' is not in the store" in said.err
    listed = [json.loads(line) for line in (tmp_path / "pairs.csv.rejected.jsonl").read_text().splitlines()]
    assert [(one["line"], one["reason"]) for one in listed][1:] == [(5, "job_id is missing")]
    with open_store(store, read_only=True) as opened:
        rows = opened.judgements(FINGERPRINT).to_pylist()
    assert {("a000", "j001"), ("a000", "j002")} <= {(row["applicant_id"], row["job_id"]) for row in rows}


def test_what_can_only_be_a_mistake_is_refused_before_anything_starts(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make_ledger(tmp_path / "ledger.parquet")
    assert run(["judge", "--store", store, "--judge", f"ledger:{ledger}", "--top", "3"]) == 2
    assert "--import FILE" in capsys.readouterr().err
    ruled(monkeypatch, RuleJudge(tmp_path / "asked.log"))
    assert run(["judge", "--store", store, "--all-pairs", str(tmp_path / "nowhere.csv")]) == 2
    assert "nowhere.csv does not exist" in capsys.readouterr().err
    assert run(["judge", "--store", store, "--all-pairs", "x.csv", "--top", "3"]) == 2
    assert "give one of" in capsys.readouterr().err
