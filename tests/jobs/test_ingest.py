"""dynaq ingest: several files after one option, what was rejected is said, a store that can be trained on comes out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynaq.stores import open_store
from jobs.cli import run


@pytest.mark.slow
def test_several_files_go_into_one_store_and_the_rejected_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"id": "1", "title": "Nurse", "technical_skills": "triage;care"}) + "\n"
    )
    (tmp_path / "b.csv").write_text("id,title\n2,Cook\n3,\n")
    (tmp_path / "people.jsonl").write_text(json.dumps({"id": "p", "bio": "I cook.", "skills": ["cooking"]}) + "\n")
    files = ["--jobs", f"{tmp_path}/a.jsonl", f"{tmp_path}/b.csv", "--candidates", f"{tmp_path}/people.jsonl"]
    assert run(["ingest", "--store", f"{tmp_path}/store", *files]) == 0
    said = capsys.readouterr().out
    assert "jobs: 2 accepted, 1 rejected" in said
    assert "candidates: 1 accepted, 0 rejected" in said
    with open_store(f"{tmp_path}/store", read_only=True) as store:
        assert (store.ids("job"), len(store.hashes("job")), len(store.hashes("candidate"))) == (["1", "2"], 2, 1)
