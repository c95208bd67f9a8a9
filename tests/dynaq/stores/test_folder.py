"""What only the folder store has: files that a crash or a second writer could hurt."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dynaq.errors import DynaqError, InputError
from dynaq.judging.judgement import judgement_from_probabilities
from dynaq.layout import EXTENDED
from dynaq.records import Job
from dynaq.stores import open_feedback, open_store, segments
from dynaq.stores.segments import MAX_SEGMENTS

SRC = str(Path(__file__).parents[3])


def jobs(n: int, title: str = "t") -> list[Job]:
    return [Job(id=f"{i:05d}", title=title) for i in range(n)]


def test_a_second_writer_gets_a_clear_error_and_a_reader_does_not(tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    with open_store(uri, create=True) as first:
        first.put_records("job", jobs(1))
        with pytest.raises(InputError, match=f"being written by process {os.getpid()}"):
            open_store(uri)
        with open_store(uri, read_only=True) as reader:
            assert reader.ids("job") == ["00000"]
    with open_store(uri) as later:
        assert later.ids("job") == ["00000"]


def test_another_process_that_writes_is_refused_and_named(tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    with open_store(uri, create=True):
        code = f"from dynaq.stores import open_feedback, open_store; open_store({uri!r})"
        result = subprocess.run([sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True)
    assert result.returncode != 0
    assert f"process {os.getpid()}" in result.stderr


def test_one_process_at_a_time_writes_feedback(tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    open_store(uri, create=True).close()
    with open_feedback(uri), pytest.raises(InputError, match=f"events is being written by process {os.getpid()}"):
        open_feedback(uri)
    with pytest.raises(InputError, match="does not exist"):
        open_feedback(str(tmp_path / "nothing"))


def _write_for_ever(uri: str, ready: object) -> None:
    with open_store(uri, create=True) as store:
        for turn in range(1_000_000):
            store.put_records("job", jobs(500, title=f"turn {turn}"))
            store.put_vectors(
                "job", [j.id for j in jobs(500)], {b: np.full((500, 384), turn, np.float32) for b in EXTENDED.action}
            )
            ready.set()  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.013, 0.029, 0.041])
def test_a_killed_writer_leaves_the_last_commit_whole(tmp_path: Path, delay: float) -> None:
    uri = str(tmp_path / "s")
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    writer = context.Process(target=_write_for_ever, args=(uri, ready))
    writer.start()
    assert ready.wait(60)
    time.sleep(delay)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    with open_store(uri) as store:
        titles = {j.title for j in store.records("job")}
        assert len(titles) == 1
        assert len(store.ids("job")) == 500
        values = [np.unique(b.blocks["title"]) for b in store.vectors("job", ["title"])]
        assert len(np.unique(np.concatenate(values))) == 1
        # The dead process's lock is free, and its unfinished files are removed.
        store.put_records("job", jobs(1, title="after"))
        assert not list(Path(uri).rglob("*.tmp"))
    with open_store(uri, read_only=True) as store:
        assert next(store.records("job")).title == "after"


def test_a_failing_source_commits_nothing(tmp_path: Path) -> None:
    def broken() -> object:
        yield from jobs(10_000)
        raise OSError("the source went away")

    uri = str(tmp_path / "s")
    with open_store(uri, create=True) as store:
        store.put_records("job", jobs(1, title="kept"))
        with pytest.raises(OSError, match="went away"):
            store.put_records("job", broken())  # type: ignore[arg-type]
        assert [j.title for j in store.records("job")] == ["kept"]
        assert not list(Path(uri).rglob("*.tmp"))


def test_segments_are_merged_at_the_end_and_a_reader_in_the_middle_is_not_disturbed(tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    with open_store(uri, create=True) as store:
        for i in range(3 * MAX_SEGMENTS):
            store.put_records("job", [Job(id=str(i % 20), title=f"turn {i}")])
        reader = open_store(uri, read_only=True)
        reading = reader.records("job", ["1", "2", "3"])
        first = next(reading)
    assert len(list((Path(uri) / "jobs_text").glob("*.parquet"))) == 1
    assert [first.title, *(j.title for j in reading)] == ["turn 21", "turn 22", "turn 23"]
    assert len(reader.ids("job")) == 20


def test_a_folder_that_is_something_else_is_not_made_a_store(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(InputError, match="not empty"):
        open_store(str(tmp_path), create=True)
    with pytest.raises(InputError, match="is a file"):
        open_store(str(tmp_path / "letters.txt"), create=True)
    assert os.listdir(tmp_path) == ["letters.txt"]


def test_a_damaged_store_says_what_is_damaged(tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    with open_store(uri, create=True) as store:
        store.put_records("job", jobs(3))
    segment = next((tmp_path / "s" / "jobs_text").glob("*.parquet"))
    segment.write_bytes(segment.read_bytes()[:40])
    with open_store(uri, read_only=True) as store, pytest.raises(DynaqError, match="jobs_text is damaged"):
        store.ids("job")
    segment.unlink()
    with open_store(uri, read_only=True) as store, pytest.raises(DynaqError, match=r"jobs_text.*missing"):
        store.ids("job")
    (tmp_path / "s" / "store.json").write_text("{")
    with pytest.raises(DynaqError, match=r"store\.json cannot be read"):
        open_store(uri)


@pytest.mark.parametrize("uri", ["", "redis://localhost/0", "mongo://x"])
def test_a_uri_of_no_known_kind_is_an_input_error(uri: str) -> None:
    with pytest.raises(InputError):
        open_store(uri, create=True)


def test_a_few_ids_are_read_without_the_rest_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a later segment replaces some of them, and where ids are in no order."""
    monkeypatch.setattr(segments, "ROW_GROUP", 4)
    read: list[int] = []
    whole = segments.groups_with

    def counted(segment: pq.ParquetFile, column: str, values: Collection[str] | None) -> list[int]:
        groups = whole(segment, column, values)
        read.append(len(groups))
        return groups

    monkeypatch.setattr(segments, "groups_with", counted)
    with open_store(str(tmp_path / "s"), create=True) as store:
        store.put_records("job", jobs(40))
        assert [one.id for one in store.records("job", ["00009", "00031", "nobody"])] == ["00009", "00031"]
        assert read == [2]
        store.put_records("job", [Job(id="00009", title="new"), Job(id="00002", title="new")])
        found = {one.id: one.title for one in store.records("job", ["00009", "00010"])}
        assert found == {"00009": "new", "00010": "t"}
        assert len(list(store.records("job"))) == 40
        answers = [judgement_from_probabilities(f"a{i:02d}", "j", (1, 0, 0, 0), judge="one") for i in range(40)]
        store.add_judgements(answers)
        store.add_judgements([judgement_from_probabilities("a07", "k", (1, 0, 0, 0), judge="one")])
        rows = store.judgements("one", ["a07", "a39", "b"]).to_pylist()
    assert [(row["applicant_id"], row["job_id"]) for row in rows] == [("a07", "j"), ("a39", "j"), ("a07", "k")]
