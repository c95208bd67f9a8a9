"""What of a run folder is served, and how a broken one is told from a whole one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dynaq.errors import DynaqError, InputError
from dynaq.runs.folder import RunFolder
from dynaq.runs.q_table import (
    CATALOGUE,
    Q_COLUMNS,
    Q_VALUES,
    SERVING,
    ServedRun,
    served_run_id,
    write_q_values,
    write_serving,
)

JOBS = tuple(f"j{i}" for i in range(7))
Q = np.random.default_rng(0).standard_normal((5, len(JOBS))).astype(np.float32)


def make_run(path: Path, q: np.ndarray = Q, columns: np.ndarray | None = None) -> str:
    folder = RunFolder.at(path)
    for block, rows in (("agents/block_00000-0003", range(3)), ("agents/block_00001-0003", range(3, 5))):
        with folder.new_folder(block) as files:
            own = None if columns is None else columns[list(rows)]
            write_q_values(files, [f"a{row}" for row in rows], q[list(rows)], own)
    return write_serving(folder, "extended", JOBS, ["agents/block_00000-0003", "agents/block_00001-0003"])


def test_every_agents_q_comes_back_exactly(tmp_path: Path) -> None:
    run_id = make_run(tmp_path / "run")
    run = ServedRun.open(str(tmp_path / "run"))
    assert (run.run_id, run.layout, run.job_ids) == (run_id, "extended", JOBS)
    for row in (4, 0, 2, 3, 1):
        columns, q = run.q_values(f"a{row}")  # type: ignore[misc]
        np.testing.assert_array_equal(q, Q[row])
        np.testing.assert_array_equal(columns, range(len(JOBS)))
    assert run.q_values("nobody") is None


def test_candidates_come_back_with_their_columns_in_the_catalogues_order(tmp_path: Path) -> None:
    columns = np.array([[6, 0, 3], [1, 2, 3], [5, 4, 6], [0, 1, 2], [3, 2, 6]])
    make_run(tmp_path / "run", Q[:, :3], columns)
    run = ServedRun.open(str(tmp_path / "run"))
    for row in range(5):
        known, q = run.q_values(f"a{row}")  # type: ignore[misc]
        order = np.argsort(columns[row])
        np.testing.assert_array_equal(known, columns[row][order])
        np.testing.assert_array_equal(q, Q[row, :3][order])
        best = columns[row][np.argsort(-Q[row, :3])]
        assert run.ranked(f"a{row}") == [JOBS[column] for column in best]
    assert run.ranked("nobody") is None
    # A program that knows only whole catalogues refuses it.
    assert json.loads((tmp_path / "run" / SERVING).read_text())["format"] == 2


@pytest.mark.parametrize("wrong", [[0, 0, 1], [0, 1, 7], [-1, 0, 1]])
def test_columns_that_cannot_be_are_refused(tmp_path: Path, wrong: list[int]) -> None:
    make_run(tmp_path / "run", Q[:, :3], np.array([[0, 1, 2]] * 4 + [wrong]))
    with pytest.raises(InputError, match=Q_COLUMNS):
        ServedRun.open(str(tmp_path / "run"))


def test_columns_that_were_changed_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run", Q[:, :3], np.tile(np.arange(3), (5, 1)))
    flip(tmp_path / "run" / "agents/block_00001-0003" / Q_COLUMNS)
    with pytest.raises(InputError, match="not the file that was written"):
        ServedRun.open(str(tmp_path / "run"))


def test_the_id_is_that_of_the_content(tmp_path: Path) -> None:
    same = {make_run(tmp_path / "one"), make_run(tmp_path / "two"), served_run_id(str(tmp_path / "two"))}
    assert len(same) == 1
    assert make_run(tmp_path / "three", Q + 1) not in same


def test_of_a_comparison_the_best_trial_is_served(tmp_path: Path) -> None:
    run_id = make_run(tmp_path / "all" / "llm")
    RunFolder.at(tmp_path / "all").write_yaml("config.yaml", {"trials": ["cosine", "llm"], "best": "llm"})
    assert ServedRun.open(str(tmp_path / "all")).run_id == run_id


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def rename(path: Path) -> None:
    record = json.loads(path.read_text())
    record["blocks"][0]["applicants"][0] = "somebody else"
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("file", "hurt", "reason"),
    [
        (f"agents/block_00001-0003/{Q_VALUES}", flip, "not the file that was written"),
        (f"agents/block_00001-0003/{Q_VALUES}", cut, "not the file that was written"),
        (f"agents/block_00000-0003/{Q_VALUES}", Path.unlink, Q_VALUES),
        (CATALOGUE, flip, "not the file that was written"),
        (CATALOGUE, Path.unlink, CATALOGUE),
        (SERVING, cut, "cannot be read"),
        (SERVING, rename, "was changed"),
        (SERVING, Path.unlink, "not a finished run"),
        (SERVING, lambda path: path.write_text('{"format": 1}'), "broken"),
        (SERVING, lambda path: path.write_text('{"format": 9}'), "format 9"),
    ],
)
def test_a_broken_run_is_refused_by_name(tmp_path: Path, file: str, hurt: Callable[[Path], None], reason: str) -> None:
    make_run(tmp_path / "run")
    hurt(tmp_path / "run" / file)
    with pytest.raises(InputError, match=reason):
        ServedRun.open(str(tmp_path / "run"))


def test_q_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    bad = Q.copy()
    bad[3, 3] = np.nan
    make_run(tmp_path / "run", bad)
    with pytest.raises(InputError, match="NaN"):
        ServedRun.open(str(tmp_path / "run"))


def test_a_file_that_shrinks_afterwards_is_an_error(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    run = ServedRun.open(str(tmp_path / "run"))
    cut(tmp_path / "run" / "agents/block_00001-0003" / Q_VALUES)
    with pytest.raises(DynaqError, match="ends before"):
        run.q_values("a4")
