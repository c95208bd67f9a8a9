"""One name, one number: evaluate, tune and report take the quality of a run from the same rows."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dynaq.evaluation.comparison import METRIC_TITLES, statistics
from dynaq.evaluation.run_quality import Known, evaluate_run, metric_range, quality_names, quality_rows
from dynaq.evaluation.trial_rows import curve_rows, final_rows
from dynaq.qrels import Qrels
from dynaq.runs.folder import RunFolder
from dynaq.runs.reading import Run
from dynaq.runs.trials import Trial, TrialResult
from jobs.reporting.compared_lines import read_comparison
from jobs.reporting.tensorboard import write_curves
from jobs.terminal.tables import comparison_table

LISTS = {"ann": "abcd", "bob": "ab", "eve": "xy"}
JUDGED = {
    ("ann", "a"): (1.0, "APPLY"),
    ("ann", "b"): (0.0, "IGNORE"),
    ("ann", "c"): (0.0, "IGNORE"),
    ("ann", "d"): (0.0, "CLICK"),
    ("bob", "a"): (0.6, "APPLY"),
    ("bob", "q"): (0.9, "APPLY"),
}
QRELS = Qrels({"ann": {"b": 2.0}, "bob": {"a": 1.0, "b": 1.0}})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The judge knows all four jobs of Ann's list, one of Bob's two and none of Eve's."""
    folder = RunFolder.at(tmp_path)
    rows = [
        {"applicant_id": who, "rank": rank, "job_id": job, "q_value": 1.0 / rank}
        for who, jobs in LISTS.items()
        for rank, job in enumerate(jobs, 1)
    ]
    folder.write_table("recommendations.parquet", pa.Table.from_pylist(rows))
    metrics = [
        {
            "applicant_id": who,
            "round": round_,
            "judgements_used": used[round_ - 1],
            "mean_reward": 0.9,  # as the strategy blends it
            "cumulative_reward": 9.0,
            "judge_reward": 0.2 * round_ + 0.1 * number,
            "applied": 1,
            "ndcg": 0.5,
        }
        for number, (who, used) in enumerate({"ann": (1, 2), "bob": (1, 2), "eve": (1, 5)}.items())
        for round_ in (1, 2)
    ]
    folder.write_table("metrics.parquet", pa.Table.from_pylist(metrics))
    config = {"strategy": "llm", "config": {"seed": 0}}
    folder.write_yaml("config.yaml", config)
    return Run("llm", folder, config)


def test_every_applicant_counts_as_much_however_much_of_their_list_was_judged(run: Run) -> None:
    found = evaluate_run(run, JUDGED, QRELS)
    assert found.mean("mean_reward") == pytest.approx((0.25 + 0.6) / 2)  # over pairs it would be 1.6 / 5
    assert found.mean("apply_rate") == pytest.approx((0.25 + 1.0) / 2)
    assert found.mean("click_rate") == pytest.approx(0.25 / 2)
    assert found.mean("judged") == pytest.approx((1.0 + 0.5 + 0.0) / 3)
    assert found.mean("regret") == pytest.approx((0.0 + 0.3) / 2)
    assert found.mean("mrr") == pytest.approx((0.5 + 1.0) / 2)  # nothing is relevant to Eve
    assert found.applicants == 3


def compared_and_reported(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run's entry in the statistics of a comparison, and in those of its own report."""
    trial, known = Trial("llm", "llm", 0, {}), Known(JUDGED)
    finals, curves = list(final_rows(trial, run, known, QRELS)), list(curve_rows(trial, run, known))
    tuned = statistics([TrialResult(trial, "done")], finals, curves, (0,))["strategies"][0]
    return tuned, read_comparison(run.folder, [run], {"llm": JUDGED}, QRELS)["strategies"][0]


def test_evaluate_tune_and_report_say_the_same(run: Run) -> None:
    evaluated = evaluate_run(run, JUDGED, QRELS)
    tuned, reported = compared_and_reported(run)
    for name in METRIC_TITLES:
        mean = evaluated.quality[name].mean
        assert tuned["metrics"][name]["mean"] == reported["metrics"][name]["mean"] == pytest.approx(mean)
        assert tuned["metrics"][name] == reported["metrics"][name]
    shown = evaluated.to_json()
    for name in ("ndcg@10", "mean_reward@10", "apply_rate@10"):
        interval = reported["metrics"][name]
        assert shown[f"{name}_interval"] == [interval["low"], interval["high"]]


def test_learning_curves_of_a_run_are_those_of_a_comparison(run: Run) -> None:
    tuned, reported = compared_and_reported(run)
    assert set(tuned["curves"]) == set(reported["curves"]) >= {"mean_reward", "cumulative_reward", "cumulative_regret"}
    for name, curve in tuned["curves"].items():
        for part, values in curve.items():
            assert [math.nan if value is None else value for value in values] == pytest.approx(
                reported["curves"][name][part], nan_ok=True
            )
    assert reported["curves"]["mean_reward"]["judgements"] == [1, 2, 5]
    # Until Eve's second round at 5 judgements, her curve stays at its first value.
    assert reported["curves"]["mean_reward"]["mean"] == pytest.approx([0.3, (0.4 + 0.5 + 0.4) / 3, 0.5])
    events = run.folder.local
    write_curves(run, JUDGED)
    points = EventAccumulator(str(events)).Reload().Scalars("curve/mean_reward")
    assert [(point.step, point.value) for point in points] == [
        (1, pytest.approx(0.3)),
        (2, pytest.approx(1.3 / 3)),
        (5, pytest.approx(0.5)),
    ]


def test_evaluate_prints_the_intervals_of_its_means(run: Run) -> None:
    lines = Console(width=100, file=io.StringIO())
    lines.print(comparison_table({"llm": evaluate_run(run, JUDGED, QRELS)}))
    printed = lines.file.getvalue()
    for metric in ("mean_reward", "apply_rate", "ndcg"):
        found = evaluate_run(run, JUDGED, QRELS).interval(metric)
        assert f"{found.mean:.3f}" in printed
        assert f"{found.low:.2f}–{found.high:.2f}" in printed


def test_the_json_keeps_its_names_and_null_is_what_is_not_known(run: Run) -> None:
    shown = evaluate_run(run, {}, None, k=5).to_json()
    assert list(shown) == [
        "applicants",
        "judgements_per_applicant",
        "ndcg@5",
        "ndcg@5_interval",
        "recall@5",
        "mrr",
        "mean_reward@5",
        "mean_reward@5_interval",
        "apply_rate@5",
        "apply_rate@5_interval",
        "judged@5",
        "corrected_reward@5",
        "corrected_reward@5_interval",
        "truth_known",
    ]
    assert (shown["corrected_reward@5"], shown["corrected_reward@5_interval"], shown["truth_known"]) == (None, None, 0)
    assert (shown["ndcg@5"], shown["ndcg@5_interval"], shown["mean_reward@5"]) == (None, [None, None], None)
    assert (shown["judged@5"], shown["judgements_per_applicant"]) == (0.0, 3.0)


def test_rows_have_every_metric_and_shares_stay_shares(run: Run) -> None:
    rows = quality_rows(run, Known(JUDGED), QRELS, k=3)
    assert list(rows) == list(LISTS)
    for row in rows.values():
        assert tuple(row) == quality_names(3)
        values = np.array([row[name] for name in row if metric_range(name) == (0.0, 1.0)])
        assert ((values >= 0) & (values <= 1) | np.isnan(values)).all()
    assert metric_range("mean_reward@3") == (-math.inf, math.inf)
