"""The doctor: says what is wrong and what to do, and fails when something is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs import doctor
from jobs.cli import run
from tests.support.markets import make_store


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_healthy_machine_and_store_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(str(tmp_path / "store"))
    assert run(["doctor", "--store", str(tmp_path / "store")]) == 0
    said = capsys.readouterr().out
    assert "40 jobs, 6 applicants" in said
    assert "1 CPU cores" in said  # what the test session's Ray was told, and not its 8 slots
    assert "bad " not in said


def test_a_store_that_is_not_there_and_a_cluster_that_does_not_answer_are_named(tmp_path: Path) -> None:
    (store,) = doctor.records(str(tmp_path / "nowhere"))
    assert (store.state, "nowhere" in store.advice) == ("bad", True)


def test_records_without_vectors_are_counted(tmp_path: Path) -> None:
    make_store(str(tmp_path / "store"), without_vectors=2)
    found = list(doctor.records(str(tmp_path / "store")))
    assert [one.state for one in found] == ["ok", "warn"]
    assert "2 applicants have no vectors" in found[1].what


def test_a_pinned_package_at_another_version_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda name: ["typer==0.0.1", "no-such-package==1"])
    found = [one for one in doctor.versions() if one.state == "bad"]
    assert ["typer" in found[0].what, "no-such-package" in found[1].what] == [True, True]
    assert all("make setup" in one.advice for one in found)


def test_a_gpu_that_torch_cannot_use_is_bad_and_none_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(doctor, "_host_has_gpu", lambda: True)
    assert [(one.state, "make clean setup" in one.advice) for one in doctor.gpu()] == [("bad", True)]
    monkeypatch.setattr(doctor, "_host_has_gpu", lambda: False)
    assert [one.state for one in doctor.gpu()] == ["ok"]
