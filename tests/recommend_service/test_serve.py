"""The whole service as a person starts it: `dynaq serve --recommend`, its process killed while it takes feedback."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.recommend import durability

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_every_acknowledged_event_is_there_once_although_the_process_was_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    durability(tmp_path, events=600, kills=1)  # raises when an event is lost or stored twice
    told = capsys.readouterr().out
    assert "600 events acknowledged, 600 in the store, each once; 1 processes killed" in told
    assert "after the service ended: 600 events acknowledged, 600 in the store, each once" in told
    assert not list((tmp_path / "store/events").rglob("*.log"))  # on SIGTERM the service turns its logs into segments
