"""The whole service as a person starts it, its processes killed and replaced while it takes feedback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.recommend import durability, replicas

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_every_acknowledged_event_is_there_once_although_the_process_was_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    durability(tmp_path, events=600, kills=1)  # raises when an event is lost or stored twice
    told = capsys.readouterr().out
    assert "600 events acknowledged, 600 in the store, each once; 1 processes killed" in told
    assert "after the service ended: 600 events acknowledged, 600 in the store, each once" in told
    assert not list((tmp_path / "store/events").rglob("*.log"))  # on SIGTERM the service turns its logs into segments


def test_every_acknowledged_event_is_there_once_although_a_replica_was_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replicas(tmp_path, events=600, kills=1)
    told = capsys.readouterr().out
    assert "600 events acknowledged, 600 in the store, each once; 1 processes of 2 replicas killed" in told


def test_neither_a_killed_replica_nor_a_rolling_update_fails_a_call(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.rolling_update", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=390)
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["failures"] == []
    assert outcome["sent"] == outcome["stored"] > 10
