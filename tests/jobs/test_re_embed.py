"""`dynaq ingest --re-embed` and what ingestion says of languages, with the real default encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynaq.ingest import ingest_files
from dynaq.stores import open_store
from jobs.cli import run
from jobs.terminal.console import Rate, duration
from tests.support.embedders import HashEmbedder

RUSSIAN = "Мы ищем визажиста в салон красоты, опыт работы от одного года"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    jobs, people = tmp_path / "jobs.jsonl", tmp_path / "people.jsonl"
    jobs.write_text(json.dumps({"id": "j", "title": "Визажист", "description": RUSSIAN}) + "\n")
    people.write_text(json.dumps({"id": "p", "bio": "I did make-up for many years in a theatre in the city"}) + "\n")
    return jobs, people


def said_by(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """What `dynaq ingest` printed, line breaks as blanks."""
    assert run(["ingest", *map(str, arguments)]) == code
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_ingestion_says_what_the_encoder_does_not_read(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    said = said_by(capsys, "--store", store, "--jobs", files[0], "--candidates", files[1])
    assert "jobs 1 Russian; candidates 1 English" in said
    assert "1 records are in a language that encoder all-MiniLM-L6-v2 does not read" in said
    assert f"dynaq ingest --store {store} --re-embed --encoder multilingual" in said


def test_a_store_of_another_encoder_is_changed(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = str(tmp_path / "store")
    with open_store(uri, create=True) as store:
        ingest_files(store, jobs=[files[0]], candidates=[files[1]], encoder=HashEmbedder("own", "r1", 96))
    said = said_by(capsys, "--store", uri, "--re-embed", "--encoder", "all-MiniLM-L6-v2")
    assert "jobs: 1 embedded" in said
    assert "train anew" in said
    with open_store(uri) as store:
        assert (store.meta()["encoder"], store.dimension()) == ("all-MiniLM-L6-v2", 384)
    assert "1 had their vectors" in said_by(capsys, "--store", uri, "--re-embed")


def test_a_wrong_encoder_makes_no_store(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    said = said_by(capsys, "--store", store, "--jobs", files[0], "--encoder", "MiniLM", code=2)
    assert "multilingual" in said
    assert not store.exists()


def test_how_long_it_will_take_is_told_by_the_last_minute() -> None:
    now = [0.0]
    rate = Rate(lambda: now[0])
    assert rate.left(0, 1000) == ""
    for second in range(1, 10):
        now[0] = second
        said = rate.left(10 * second, 1000)
    assert said == "about 91 s left"
    for second in range(10, 200):  # ten times slower
        now[0] = second
        said = rate.left(90 + second - 9, 1000)
    assert said == "about 12 min left"
    assert rate.left(1000, 1000) == ""
    assert duration(3 * 3600) == "3.0 h"
