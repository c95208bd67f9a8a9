"""A large run is read in part: a sample of its applicants for means, and anyone's list when asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynaq.errors import InputError
from dynaq.runs import reading
from dynaq.runs.folder import METRICS, RECOMMENDATIONS, RunFolder
from dynaq.runs.reading import Run, read_runs
from tests.support.runs import make_run

PEOPLE = [f"a{i:02d}" for i in range(20)]


def in_parts(path: Path) -> tuple[Run, Run]:
    """A run with its tables in files, and the same run with them in parts."""
    jobs = [f"j{i:02d}" for i in range(30)]
    small, large = (make_run(path / name, path, PEOPLE, jobs) for name in ("small", "large"))
    folder = RunFolder.at(large)
    for name in (METRICS, RECOMMENDATIONS):
        table = folder.read_table(name)
        folder.write_parts(name, [table.slice(start, 37) for start in range(0, table.num_rows, 37)])
    return read_runs(str(small))[0], read_runs(str(large))[0]


def test_parts_read_as_the_file_does(tmp_path: Path) -> None:
    small, large = in_parts(tmp_path)
    assert not large.sampled
    assert large.sampling == ""
    assert large.ranked == small.ranked
    assert large.judgements_per_applicant == small.judgements_per_applicant


def test_of_a_large_run_a_sample_is_read_and_anyone_can_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SAMPLE", 5)
    small, large = in_parts(tmp_path)
    assert large.sampled
    assert large.sampling == "Figures and curves are of 5 of the 20 applicants, evenly drawn."
    assert large.applicants == small.applicants == len(PEOPLE)
    assert list(large.ranked) == ["a00", "a04", "a09", "a14", "a19"]
    assert set(large.metrics.column("applicant_id").to_pylist()) == set(large.ranked)
    assert large.jobs_for("a07", 10) == small.jobs_for("a07", 10)
    with pytest.raises(InputError, match="'nobody' is not among the 20"):
        large.jobs_for("nobody", 10)
