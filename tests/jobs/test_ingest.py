"""`dynaq ingest` and what follows from it, on both kinds of store."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from bson import ObjectId

from dynaq.stores import open_store
from jobs.cli import run
from tests.dynaq.markets.onet_files import CODES, write_text
from tests.dynaq.stores.test_mongo import fill_by_hand


@pytest.mark.usefixtures("ray_session_fixture")
def test_onet_becomes_a_store_with_relevance_and_a_second_run_embeds_nothing(
    store_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "onet").mkdir()
    arguments = ["ingest", "--store", store_uri, "--onet", str(write_text(tmp_path / "onet")), "--applicants", "3"]
    assert run(arguments) == 0
    assert "7 accepted, 0 rejected; 7 embedded" in capsys.readouterr().out
    with open_store(store_uri, read_only=True) as store:
        assert len(store.job_ids()) == len(CODES) - 1
        qrels = store.qrels()
        assert qrels is not None
        assert sorted(qrels.applicants) == store.candidate_ids()
        assert "O*NET" in store.meta()["attribution"]
    assert run(arguments) == 0
    assert "0 embedded, 7 had their vectors" in capsys.readouterr().out


def test_a_dry_run_names_what_is_wrong_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"id": 1, "title": "a"}\n{"id": 2}\n')
    assert run(["ingest", "--store", str(tmp_path / "store"), "--jobs", str(jobs), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "1 accepted, 1 rejected" in out
    assert "jobs.jsonl line 2: title" in out
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.jsonl"]


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_database_filled_by_hand_trains_as_it_is_and_no_secret_reaches_the_run_folder(
    mongo_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_by_hand(mongo_uri, [ObjectId() for _ in range(15)] + list(range(15)), [ObjectId(), 3, "ann"])
    out = tmp_path / "run"
    secret = mongo_uri + "?appName=s3cret"
    assert run(["train", "--store", secret, "--strategy", "cosine", "--budget", "5", "--out", str(out)]) == 0
    assert run(["ingest", "--store", secret, "--jobs", str(tmp_path / "nowhere.csv")]) == 2
    rows = pq.read_table(out / "recommendations.parquet").to_pylist()
    assert len({row["applicant_id"] for row in rows}) == 3
    assert len({row["job_id"] for row in rows}) == 30
    written = [path for path in out.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if b"s3cret" in path.read_bytes()]
    printed = capsys.readouterr()
    assert "s3cret" not in printed.out + printed.err
