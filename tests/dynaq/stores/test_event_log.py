"""Acknowledged events survive a crash of the writer at any byte of the log."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from dynaq.errors import DynaqError
from dynaq.stores import event_log, open_feedback, open_store
from tests.support.events import event


def keys(uri: str) -> list[str]:
    with open_store(uri, read_only=True) as store:
        return store.feedback()["key"].to_pylist()


def crashed(tmp_path: Path) -> tuple[str, Path]:
    """A store whose writer is gone without a close, and its log: one line of k0, one of k1 and k2."""
    uri = str(tmp_path / "s")
    child = multiprocessing.get_context("fork").Process(target=_write_and_vanish, args=(uri,))
    child.start()
    child.join()
    (log,) = Path(uri).glob("events/feedback/*.log")
    return uri, log


def _write_and_vanish(uri: str) -> None:
    store = open_store(uri, create=True)
    store.add_feedback([event("k0")])
    store.add_feedback([event("k1"), event("k2")])
    os._exit(0)


def test_a_line_torn_at_any_byte_costs_itself_only(tmp_path: Path) -> None:
    uri, log = crashed(tmp_path)
    whole = log.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        log.write_bytes(whole[:length])
        # A line that lacks only its line break is complete, as its checksum shows.
        assert keys(uri) == (["k0"] if length < len(whole) - 1 else ["k0", "k1", "k2"])
    # A file system may have allocated the blocks but not written them.
    log.write_bytes(whole[:first] + bytes(len(whole) - first))
    assert keys(uri) == ["k0"]


def test_the_next_writer_goes_on_behind_a_torn_line(tmp_path: Path) -> None:
    uri, log = crashed(tmp_path)
    log.write_bytes(log.read_bytes()[:-20])
    with open_store(uri) as store:
        assert store.add_feedback([event("k0"), event("k2"), event("k3")]) == 2
        assert keys(uri) == ["k0", "k2", "k3"]
    assert keys(uri) == ["k0", "k2", "k3"]
    assert not list(Path(uri).glob("events/feedback/*.log"))


def test_damage_before_the_end_is_an_error_not_a_loss(tmp_path: Path) -> None:
    uri, log = crashed(tmp_path)
    data = bytearray(log.read_bytes())
    data[30] ^= 1
    log.write_bytes(data)
    with pytest.raises(DynaqError, match="damaged before its end"):
        keys(uri)


def test_a_crash_between_segment_and_log_doubles_nothing(tmp_path: Path) -> None:
    uri, log = crashed(tmp_path)
    before = log.read_bytes()
    open_feedback(uri).close()
    assert not log.exists()
    log.write_bytes(before)
    assert keys(uri) == ["k0", "k1", "k2"]
    with open_store(uri) as store:
        assert store.add_feedback([event("k1"), event("k9")]) == 1
    assert keys(uri) == ["k0", "k1", "k2", "k9"]


def test_a_grown_log_becomes_a_segment_while_events_come_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "LOG_BYTES", 1000)
    uri = str(tmp_path / "s")
    with open_store(uri, create=True) as store:
        for i in range(100):
            store.add_feedback([event(f"{i:03d}")])
        (log,) = Path(uri).glob("events/feedback/*.log")
        assert log.stat().st_size < 1300
        assert list(Path(uri).glob("events/feedback/*.parquet"))
        assert keys(uri) == [f"{i:03d}" for i in range(100)]
        assert store.add_feedback([event("000"), event("099"), event("100")]) == 1


def test_a_write_is_synced_before_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, write, order = os.fdatasync, event_log._write_all, list[str]()
    monkeypatch.setattr(event_log, "_write_all", lambda *a: (order.append("write"), write(*a)))
    monkeypatch.setattr(os, "fdatasync", lambda file: (order.append("sync"), sync(file)))
    with open_store(str(tmp_path / "s"), create=True) as store:
        store.add_feedback([event("1")])
        store.add_feedback([event("2")])
        assert order == ["write", "sync"] * 2


def test_a_full_disk_is_an_error_and_what_was_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "s")

    def half(file: int, data: bytes) -> None:
        os.write(file, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_store(uri, create=True) as store:
        store.add_feedback([event("1")])
        with monkeypatch.context() as full:
            full.setattr(event_log, "_write_all", half)
            with pytest.raises(DynaqError, match="No space left"):
                store.add_feedback([event("2")])
        assert keys(uri) == ["1"]
        assert store.add_feedback([event("2"), event("3")]) == 2
    assert keys(uri) == ["1", "2", "3"]


def _write_for_ever(uri: str, turn: int, told: Connection) -> None:
    event_log.LOG_BYTES = 20_000
    store = open_store(uri, create=True)
    for i in range(1_000_000):
        batch = [f"{turn}-{i}-{n}" for n in range(i % 3 + 1)]
        store.add_feedback([event(key) for key in batch])
        told.send(batch)


@pytest.mark.slow
def test_whatever_was_acknowledged_before_a_kill_is_there_once(tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    context = multiprocessing.get_context("fork")
    acknowledged: list[str] = []
    generator = random.Random(0)
    for turn in range(5):
        ours, theirs = context.Pipe(duplex=False)
        writer = context.Process(target=_write_for_ever, args=(uri, turn, theirs))
        writer.start()
        theirs.close()
        acknowledged += ours.recv()
        time.sleep(generator.uniform(0.05, 0.3))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        while ours.poll():
            try:
                acknowledged += ours.recv()
            except EOFError:
                break
    stored = keys(uri)
    assert len(acknowledged) > 100
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)
    assert len(stored) - len(acknowledged) <= 5 * 3  # written, but killed before it was acknowledged
