"""dynaq promote: what may serve, what may not, and how to go back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.block_actor import RECOMMENDATION_SCHEMA
from dynaq.feedback.events import Exposure, FeedbackEvent
from dynaq.feedback.exposure_policy import POOL, explore
from dynaq.records import Job
from dynaq.runs.folder import RunFolder
from dynaq.runs.q_table import write_q_values, write_serving
from dynaq.stores import open_store
from jobs.cli import run

pytestmark = pytest.mark.slow

PEOPLE, JOBS, K = 600, 120, 10
NOISE_NOW = 1.2
START = datetime(2025, 3, 1, 12, tzinfo=UTC)
APPLICANTS = [f"a{i:03d}" for i in range(PEOPLE)]
JOB_IDS = [f"j{i:03d}" for i in range(JOBS)]
WISHES = np.random.default_rng(0).beta(0.5, 3, size=(PEOPLE, JOBS))


def make_run(path: Path, noise: float, seed: int = 1, layout: str = "extended", until: datetime | None = None) -> str:
    """A finished run whose agents know the wishes up to noise, in their standard deviations. Returns its id."""
    rng = np.random.default_rng(seed)
    q = (WISHES + noise * WISHES.std() * rng.standard_normal(WISHES.shape)).astype(np.float32)
    folder = RunFolder.at(path)
    block = "agents/block_00000-0001"
    with folder.new_folder(block) as files:
        write_q_values(files, APPLICANTS, q)
    rows = [
        {"applicant_id": applicant_id, "rank": rank, "job_id": JOB_IDS[job], "q_value": float(q[row, job])}
        for row, applicant_id in enumerate(APPLICANTS)
        for rank, job in enumerate(np.argsort(-q[row], kind="stable")[:POOL], start=1)
    ]
    folder.write_table("recommendations.parquet", pa.Table.from_pylist(rows, schema=RECOMMENDATION_SCHEMA))
    feedback = {"until": until.isoformat()} if until else None
    folder.write_yaml("config.yaml", {"store": str(path.parent / "store"), "config": {}, "feedback": feedback})
    return write_serving(folder, layout, JOB_IDS, [block])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs, a store with the lists that people were shown by `now`, and what they did."""
    folder = tmp_path_factory.mktemp("promote")
    policy = make_run(folder / "now", noise=NOISE_NOW)
    make_run(folder / "better", noise=0.3, seed=2)
    make_run(folder / "worse", noise=1.9, seed=2)
    make_run(folder / "opposite", noise=0.0, seed=2, layout="classic")
    make_run(folder / "late", noise=0.3, seed=3, until=START + timedelta(days=9))
    rng = np.random.default_rng(5)
    now = np.argsort(
        -(WISHES + NOISE_NOW * WISHES.std() * np.random.default_rng(1).standard_normal(WISHES.shape)), axis=1
    )
    shown, done = [], []
    for row, applicant_id in enumerate(APPLICANTS):
        jobs, propensities = explore([JOB_IDS[job] for job in now[row]], K, rng)
        shown.append(Exposure(applicant_id, applicant_id, START, jobs, propensities, policy))
        for rank, job in enumerate(jobs):
            if rng.random() < WISHES[row, JOB_IDS.index(job)] / np.log2(rank + 2):
                at = START + timedelta(minutes=5)
                done.append(FeedbackEvent(applicant_id, job, "save", at, "test", f"{applicant_id}-{rank}"))
    with open_store(str(folder / "store"), create=True) as store:
        store.put_records("job", [Job(id=job_id, title=job_id) for job_id in JOB_IDS])
        store.put_meta(layout="extended")
        store.add_exposures(shown)
        store.add_feedback(done)
    return folder


@pytest.fixture
def serving(runs: Path, tmp_path: Path) -> Path:
    """`now` serves."""
    assert promote(runs, tmp_path / "serving", "now") == 0
    return tmp_path / "serving"


def promote(runs: Path, serving: Path, name: str, *options: str) -> int:
    return run(["promote", "--run", str(runs / name), "--serving", str(serving), *options])


def current(serving: Path) -> str:
    return str(json.loads((serving / "current.json").read_text())["run"])


def test_the_first_run_is_promoted_as_it_is(runs: Path, serving: Path) -> None:
    found = json.loads((serving / "current.json").read_text())
    assert found["run"] == str(runs / "now")
    assert found["run_id"].startswith("run-")
    assert datetime.fromisoformat(found["promoted_at"]).tzinfo is not None
    assert len(list((serving / "history").iterdir())) == 1


def test_a_better_run_is_promoted_with_its_evaluation(
    runs: Path, serving: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert promote(runs, serving, "better", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["promoted"], found["verdict"]) == (True, "better")
    assert found["evaluation"]["slates"] == PEOPLE
    assert found["evaluation"]["candidate"].keys() == found["evaluation"]["current"].keys() == {"ips", "snips", "dr"}
    assert found["evaluation"]["difference"]["dr"]["low"] > 0
    assert current(serving) == str(runs / "better")


def test_a_credibly_worse_run_is_refused_whatever_the_options(
    runs: Path, serving: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in ([], ["--untested"]):
        assert promote(runs, serving, "worse", *options) == 1
        text = capsys.readouterr()
        assert "earns less than what serves now" in text.err
        assert "doubly robust" in text.out
    assert current(serving) == str(runs / "now")


def test_lists_that_the_run_may_have_learned_from_do_not_count(
    runs: Path, serving: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote(runs, serving, "late") == 1
    text = capsys.readouterr()
    assert f"{PEOPLE} shown earlier" in text.out
    assert "add --untested" in text.err
    assert current(serving) == str(runs / "now")
    assert promote(runs, serving, "late", "--untested") == 0
    assert current(serving) == str(runs / "late")


def test_a_run_of_another_layout_is_refused(runs: Path, serving: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert promote(runs, serving, "opposite") == 2
    assert "classic layout, the store is in extended" in capsys.readouterr().err


def test_a_broken_run_is_refused_and_the_old_one_goes_on(
    runs: Path, serving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "broken", noise=0.3)
    store = ["--store", str(runs / "store")]
    other = (runs / "worse" / "recommendations.parquet").read_bytes()
    (tmp_path / "broken" / "recommendations.parquet").write_bytes(other)
    assert promote(tmp_path, serving, "broken", *store) == 2
    assert "are not the best of their agent" in capsys.readouterr().err
    values = tmp_path / "broken" / "agents" / "block_00000-0001" / "q_values.npy"
    values.write_bytes(values.read_bytes()[:-1] + b"x")
    assert promote(tmp_path, serving, "broken", *store) == 2
    assert "not the file that was written" in capsys.readouterr().err
    assert current(serving) == str(runs / "now")


def test_agents_that_recommend_nothing_are_a_broken_run(
    runs: Path, serving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "gaps", noise=0.3)
    folder = RunFolder.at(tmp_path / "gaps")
    table = folder.read_table("recommendations.parquet")
    folder.write_table("recommendations.parquet", table.slice(POOL))
    assert promote(tmp_path, serving, "gaps", "--store", str(runs / "store")) == 2
    assert "differ in 1 applicants, 'a000'" in capsys.readouterr().err


def test_rolling_back_serves_what_served_before_step_by_step(
    runs: Path, serving: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("better", "late"):
        assert promote(runs, serving, name, "--untested") == 0
    back = ["promote", "--serving", str(serving), "--rollback"]
    assert run(back) == 0
    assert current(serving) == str(runs / "better")
    assert run(back) == 0
    assert current(serving) == str(runs / "now")
    assert run(back) == 2
    assert "nothing to roll back to" in capsys.readouterr().err
    assert len(list((serving / "history").iterdir())) == 5


def test_what_serves_already_and_what_does_not_go_together_is_said(
    runs: Path, serving: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote(runs, serving, "now") == 2
    assert "serves already" in capsys.readouterr().err
    assert promote(runs, serving, "better", "--rollback") == 2
    assert run(["promote", "--serving", str(serving)]) == 2
    assert promote(runs, serving, "nowhere") == 2


def test_when_what_serves_is_gone_nothing_can_be_told(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "gone", noise=1.0)
    assert promote(tmp_path, tmp_path / "serving", "gone", "--store", str(runs / "store")) == 0
    (tmp_path / "gone" / "serving.json").unlink()
    assert promote(runs, tmp_path / "serving", "better") == 1
    assert "cannot be read any more" in capsys.readouterr().err
    assert promote(runs, tmp_path / "serving", "better", "--untested") == 0
