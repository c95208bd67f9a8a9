"""Bad input: one clear line on stderr that names it, exit code 2, no traceback, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dynaq.stores import open_store
from jobs.cli import run
from tests.support.markets import make_ledger, make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("market") / "store")
    make_store(uri)
    return uri


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_ledger(tmp_path_factory.mktemp("ledger") / "ledger.parquet")


def one_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused; returns its one line."""
    code = run(list(arguments))
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("dynaq: ")
    return lines[0]


def train(store: str, out: Path, *more: str) -> tuple[str, ...]:
    return ("train", "--store", store, "--out", str(out), *more)


def test_a_store_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = one_line(capsys, *train(str(tmp_path / "nowhere"), tmp_path / "run"))
    assert "nowhere" in line
    assert not (tmp_path / "run").exists()


def test_an_unknown_applicant(capsys: pytest.CaptureFixture[str], store: str, tmp_path: Path) -> None:
    line = one_line(capsys, *train(store, tmp_path / "run", "--cohort", "a001,nobody"))
    assert "'nobody'" in line


def test_an_empty_catalogue(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from dynaq.records import Candidate

    with open_store(str(tmp_path / "store"), create=True) as empty:
        empty.put_records("candidate", [Candidate(id="a")])
    line = one_line(capsys, *train(str(tmp_path / "store"), tmp_path / "run", "--strategy", "cosine"))
    assert "job" in line


def test_a_budget_of_zero(capsys: pytest.CaptureFixture[str], store: str, tmp_path: Path) -> None:
    assert "--budget" in one_line(capsys, *train(store, tmp_path / "run", "--budget", "0"))


def test_a_strategy_that_does_not_exist(capsys: pytest.CaptureFixture[str], store: str, tmp_path: Path) -> None:
    assert "'greedy'" in one_line(capsys, *train(store, tmp_path / "run", "--strategy", "greedy"))
    tune = ("tune", "--store", store, "--out", str(tmp_path / "run"), "--strategies", "cosine,greedy")
    assert "'greedy'" in one_line(capsys, *tune)


def test_a_judge_that_does_not_exist(capsys: pytest.CaptureFixture[str], store: str, tmp_path: Path) -> None:
    assert "'oracle'" in one_line(capsys, *train(store, tmp_path / "run", "--judge", "oracle"))
    line = one_line(capsys, *train(store, tmp_path / "run", "--judge", f"ledger:{tmp_path}/none.parquet"))
    assert "none.parquet" in line


def test_rights_without_anybody_concerned(capsys: pytest.CaptureFixture[str], store: str, tmp_path: Path) -> None:
    for verb in ("forget", "export-person"):
        assert "'nobody'" in one_line(capsys, verb, "--store", store, "--applicant", "nobody")
        line = one_line(capsys, verb, "--store", store, "--applicant", "a000", "--runs", str(tmp_path / "nowhere"))
        assert "nowhere" in line
    assert "--keep-days" in one_line(capsys, "serve", "--reward", "--keep-days", "30")
    with open_store(store, read_only=True) as opened:
        assert opened.forgotten() == []


def test_a_command_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'fly'" in one_line(capsys, "fly")


def test_an_option_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--wings" in one_line(capsys, "report", "--wings")


def test_a_folder_that_is_no_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for verb in (("evaluate",), ("report",), ("recommend", "--applicant", "a001")):
        assert str(tmp_path) in one_line(capsys, verb[0], "--run", str(tmp_path), *verb[1:])


@pytest.mark.slow
def test_a_run_folder_that_is_taken(
    capsys: pytest.CaptureFixture[str], store: str, ledger: str, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("strategy: cosine\n")
    command = train(store, tmp_path, "--judge", f"ledger:{ledger}")
    assert "--resume" in one_line(capsys, *command)
    assert "another strategy" in one_line(capsys, *command, "--resume")


def test_input_files_that_are_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = one_line(capsys, "ingest", "--store", str(tmp_path / "store"), "--jobs", str(tmp_path / "jobs.csv"))
    assert "jobs.csv" in line
    assert "nothing to ingest" in one_line(capsys, "ingest", "--store", str(tmp_path / "store"))


@pytest.mark.slow
def test_the_console_script_prints_no_traceback_unless_asked(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("dynaq")
    command, sent = [str(script), "submit", "--address", "http://127.0.0.1:1"], ["--", "report", "--run", str(tmp_path)]
    plain = subprocess.run([*command, *sent], capture_output=True, text=True, env=os.environ, timeout=120)
    debug = subprocess.run([*command, "--debug", *sent], capture_output=True, text=True, env=os.environ, timeout=120)
    assert plain.returncode == 2
    assert "Traceback" not in plain.stderr
    assert "no Ray dashboard answers" in plain.stderr
    assert "Traceback" in debug.stderr
    assert "InputError" in debug.stderr
