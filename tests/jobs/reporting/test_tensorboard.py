"""What TensorBoard finds in a run folder, read back with TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cluster.trainer import CohortProgress
from dynaq.runs.folder import RunFolder
from dynaq.runs.reading import read_runs
from jobs.reporting.tensorboard import RunEvents, write_curves
from tests.support.runs import make_run

JOB_IDS = [f"j{i:03d}" for i in range(40)]


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def points(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def progress(judgements: int, reward: float, **learning: float) -> CohortProgress:
    return CohortProgress(4, 1, 2, judgements, 80, reward, float("nan"), seconds=2.0, learning=learning)


def test_curves_are_the_means_of_the_metrics_by_judgements(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", tmp_path / "store", ["a", "b", "c"], JOB_IDS)
    write_curves(read_runs(str(folder))[0], {})
    rows = pq.read_table(folder / "metrics.parquet").to_pylist()
    events = read(folder)
    for name in ("ndcg", "q_loss", "model_loss", "planning_loss", "epsilon"):
        for step, value in points(events, f"curve/{name}"):
            own = [row[name] for row in rows if row["judgements_used"] == step]
            assert value == pytest.approx(sum(own) / len(own), rel=1e-5)
    rewards = points(events, "curve/mean_reward")
    assert rewards == [(5 * i, pytest.approx(i / 10)) for i in (1, 2, 3, 4)]  # the judge's, not the strategy's
    assert [step for step, _ in points(events, "curve/ndcg")] == [5, 10, 15, 20]
    assert "budget: 20" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()


def test_a_strategy_without_judge_has_curves_by_round(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", tmp_path / "store", ["a", "b"], JOB_IDS, strategy="cosine")
    write_curves(read_runs(str(folder))[0], {})
    events = read(folder)
    assert [step for step, _ in points(events, "curve/ndcg")] == [1, 2, 3, 4]
    assert "curve/mean_reward" not in events.Tags()["scalars"]  # cosines are no judge's rewards


def test_a_run_that_makes_no_progress_leaves_no_file(tmp_path: Path) -> None:
    with RunEvents(RunFolder.at(tmp_path)):
        pass
    assert not list(tmp_path.iterdir())


def test_curves_are_written_once(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", tmp_path / "store", ["a"], JOB_IDS)
    for _ in range(2):
        write_curves(read_runs(str(folder))[0], {})
    assert len(list(folder.glob("events.out.tfevents*"))) == 1


def test_a_run_can_be_watched_while_it_trains(tmp_path: Path) -> None:
    with RunEvents(RunFolder.at(tmp_path)) as events:
        events.progress(progress(20, 0.25, q_loss=0.5, epsilon=float("nan")))
        events.progress(progress(40, 0.5, q_loss=0.125))
    seen = read(tmp_path)
    assert points(seen, "live/strategy_reward") == [(20, 0.25), (40, 0.5)]
    assert points(seen, "live/q_loss") == [(20, 0.5), (40, 0.125)]
    assert points(seen, "live/judgements_per_second") == [(20, 10.0), (40, 20.0)]
    assert {"live/ndcg", "live/epsilon"}.isdisjoint(seen.Tags()["scalars"])  # unknown is no point


def test_a_remote_run_has_its_events_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.at(tmp_path / "remote")
    monkeypatch.setattr(RunFolder, "local", None)  # as an object store, which takes whole files only
    with RunEvents(folder) as events:
        events.progress(progress(20, 0.25))
        assert not (tmp_path / "remote").exists()
    assert points(read(tmp_path / "remote"), "live/strategy_reward") == [(20, 0.25)]
