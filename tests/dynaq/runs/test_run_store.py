"""Run folders work from any directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynaq.errors import InputError
from dynaq.runs.folder import RunFolder
from dynaq.runs.reading import Run, open_run_store
from dynaq.stores import absolute, open_store


def run_on(folder: Path, store: str) -> Run:
    return Run("llm", RunFolder.at(folder), {"store": store})


def test_a_relative_store_of_an_older_run_is_found_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "project" / "data" / "mine"
    open_store(place, create=True).close()
    (tmp_path / "elsewhere").mkdir()
    for here in ("project", "elsewhere"):
        monkeypatch.chdir(tmp_path / here)
        trial = tmp_path / "project" / "runs" / "mine" / "llm-seed0"  # of a comparison, one folder deeper
        with open_run_store(run_on(trial, "data/mine")) as store:
            assert Path(store.uri).resolve() == place


def test_a_store_that_has_moved_is_asked_for(tmp_path: Path) -> None:
    run = run_on(tmp_path / "run", str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"gone.*; run '.*run' was trained on it: say where it is now with --store"):
        open_run_store(run)
    open_store(tmp_path / "moved", create=True).close()
    open_run_store(run, str(tmp_path / "moved")).close()


def test_only_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("data/mine") == str(tmp_path.resolve() / "data/mine")
    assert absolute("mongodb://host/db") == "mongodb://host/db"
