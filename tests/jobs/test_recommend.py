"""dynaq recommend with a wish, on a store that the packaged encoder embedded."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dynaq.encoder import Encoder
from dynaq.ingest.embedding import embed_pending
from dynaq.layout import EXTENDED
from dynaq.records import Candidate, Job
from dynaq.stores import open_store
from jobs.cli import run

TITLES = ("Accountant", "Tax adviser", "Veterinary nurse", "Software developer")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    jobs = [Job(id=f"j{i}", title=title, description=f"Works as {title}.") for i, title in enumerate(TITLES)]
    with open_store(str(tmp_path / "store"), create=True) as store:
        store.put_records("job", jobs)
        store.put_records("candidate", [Candidate(id="a", bio="Accountant")])
        embed_pending(store, Encoder(), EXTENDED)
    rows = [{"applicant_id": "a", "rank": i + 1, "job_id": f"j{i}", "q_value": 3.0 - i / 10} for i in range(len(jobs))]
    rows.append({"applicant_id": "a", "rank": len(rows) + 1, "job_id": "gone", "q_value": 0.0})
    (tmp_path / "run").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "run/recommendations.parquet")
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump({"strategy": "llm", "store": str(tmp_path / "store")}))
    return tmp_path


def ranked(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> list[str]:
    assert run(["recommend", "--run", str(folder / "run"), "--applicant", "a", "--json", *more]) == 0
    return [one["job_id"] for one in json.loads(capsys.readouterr().out)["recommendations"]]


def test_a_wish_orders_the_list_anew(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ranked(folder, capsys) == ["j0", "j1", "j2", "j3", "gone"]
    assert ranked(folder, capsys, "-k", "1", "--preference", "I want to work with animals") == ["j2"]
    assert len(ranked(folder, capsys, "--preference", "animals")) == len(TITLES)


def test_a_wish_needs_the_encoder_of_the_store(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_store(str(folder / "store")) as store:
        store.put_meta(encoder="other", encoder_revision="x")
    assert run(["recommend", "--run", str(folder / "run"), "--applicant", "a", "--preference", "animals"]) == 2
    assert "encoder other" in capsys.readouterr().err
