"""Event logs from elsewhere, through the command: what is kept, once, and what is rejected and why."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynaq.feedback.events import FeedbackEvent, events
from dynaq.records import Candidate, Job
from dynaq.stores import open_store
from jobs.cli import run

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> str:
    with open_store(tmp_path / "store", create=True) as opened:
        opened.put_records("job", (Job(id=id_, title="Cook") for id_ in ("j1", "j2", "17")))
        opened.put_records("candidate", (Candidate(id=id_, bio="I cook") for id_ in ("ann", "bob")))
    return str(tmp_path / "store")


def kept(store: str) -> list[FeedbackEvent]:
    with open_store(store, read_only=True) as opened:
        assert opened.exposures().num_rows == 0
        return list(events(opened.feedback()))


def ingest(store: str, file: Path, *options: str) -> int:
    return run(["ingest", "--store", store, "--events", str(file), *options])


def test_a_log_read_twice_and_a_longer_one_add_each_event_once(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.csv"
    log.write_text(
        "user;vacancy_id;action;timestamp\nann;j1;Applied;2026-03-01T13:00:00+01:00\nbob;j2;viewed;1772366400\n"
    )
    assert ingest(store, log) == 0
    assert (
        "events: 2 accepted (2 new, 0 there already or twice), 0 rejected; of 2 applicants" in capsys.readouterr().out
    )
    assert {(one.applicant_id, one.job_id, one.event, one.at, one.source) for one in kept(store)} == {
        ("ann", "j1", "apply", AT, "import"),
        ("bob", "j2", "click", AT, "import"),
    }
    log.write_text(log.read_text() + "ann;j2;not for me;2026-03-02T00:00:00Z\n")
    assert ingest(store, log) == 0
    assert "(1 new, 2 there already or twice)" in capsys.readouterr().out
    assert len(kept(store)) == 3


def test_every_format_and_named_columns_are_read(store: str, tmp_path: Path) -> None:
    row = {"applicant_id": "ann", "job_id": 17, "event": "save", "at": AT + timedelta(hours=1)}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "log.parquet")
    with gzip.open(tmp_path / "log.jsonl.gz", "wt") as file:
        file.write(json.dumps({"wer": "bob", "job": "17", "type": "hire", "ts": 1772370000000}) + "\n")
    (tmp_path / "log.tsv").write_text("applicant_id\tjob_id\tevent\tat\nbob\tj1\tundo\t2026-03-01T12:00:00Z\n")
    assert ingest(store, tmp_path / "log.parquet") == 0
    assert ingest(store, tmp_path / "log.jsonl.gz", "--map", "applicant_id=wer") == 0
    assert ingest(store, tmp_path / "log.tsv") == 0
    assert {(one.applicant_id, one.job_id, one.event, one.at) for one in kept(store)} == {
        ("ann", "17", "save", AT + timedelta(hours=1)),
        ("bob", "17", "hire", AT + timedelta(hours=1)),
        ("bob", "j1", "undo", AT),
    }


BAD = {
    "nobody,j1,apply,2026-03-01T12:00:00Z": "applicant 'nobody' is not in the store",
    "ann,j9,apply,2026-03-01T12:00:00Z": "job 'j9' is not in the store",
    "ann,j1,impression,2026-03-01T12:00:00Z": "event 'impression' is not one of apply",
    "ann,j1,apply,2026-03-01T12:00:00": "has no time zone",
    "ann,j1,apply,yesterday": "'yesterday' is no time",
    "ann,j1,apply,2926-03-01T12:00:00Z": "lies in the future",
    "ann,,apply,2026-03-01T12:00:00Z": "job_id is empty",
}


def test_what_cannot_be_used_is_counted_by_reason(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        "applicant_id,job_id,event,at",
        *BAD,
        "noone,j1,apply,2026-03-01T12:00:00Z",
        "ann,j1,save,2026-03-01T12:00:00Z",
    ]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    assert ingest(store, tmp_path / "log.csv", "--dry-run") == 0
    assert "events: 1 accepted, 8 rejected" in capsys.readouterr().out
    assert kept(store) == []
    assert ingest(store, tmp_path / "log.csv") == 0
    told = capsys.readouterr().out
    assert "rejected: 2 × applicant 'nobody' is not in the store (first: log.csv line 2)" in told
    listed = [json.loads(line)["reason"] for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert len(kept(store)) == 1
    assert all(reason in said for reason, said in zip(BAD.values(), listed, strict=False))


def test_a_log_without_a_usable_event_writes_nothing(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.csv").write_text("\n".join(["applicant_id,job_id,event,at", *BAD]))
    assert ingest(store, tmp_path / "log.csv") == 2
    assert "none of 7 events can be used; nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "rejected.jsonl").exists()
    assert not (Path(store) / "events").exists() or kept(store) == []


def test_a_log_without_a_column_of_times_says_which_columns_there_are(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.csv").write_text("applicant_id,job_id,event,wann\nann,j1,apply,2026-03-01T12:00:00Z\n")
    assert ingest(store, tmp_path / "log.csv") == 2
    assert "no column was taken for at (columns found: applicant_id, job_id, event, wann)" in capsys.readouterr().err
    assert run(["ingest", "--store", store, "--events", "log.csv", "--jobs", "jobs.csv"]) == 2
