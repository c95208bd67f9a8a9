"""One name, one number: evaluate, tune and report take the quality of a run from the same rows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dynaq.evaluation.comparison import METRIC_TITLES, statistics
from dynaq.evaluation.run_quality import Known, evaluate_run, metric_range, quality_names, quality_rows
from dynaq.evaluation.trial_rows import CURVES, final_rows
from dynaq.qrels import Qrels
from dynaq.runs.folder import RunFolder
from dynaq.runs.reading import Run
from dynaq.runs.trials import Trial, TrialResult
from jobs.reporting.compared_lines import read_comparison

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
        {"applicant_id": who, "round": 1, "judgements_used": 5, "judge_reward": 0.2, "ndcg": 0.5} for who in LISTS
    ]
    folder.write_table("metrics.parquet", pa.Table.from_pylist(metrics))
    return Run("llm", folder, {"strategy": "llm", "config": {"seed": 0}})


def test_every_applicant_counts_as_much_however_much_of_their_list_was_judged(run: Run) -> None:
    found = evaluate_run(run, JUDGED, QRELS)
    assert found.mean("mean_reward") == pytest.approx((0.25 + 0.6) / 2)  # over pairs it would be 1.6 / 5
    assert found.mean("apply_rate") == pytest.approx((0.25 + 1.0) / 2)
    assert found.mean("click_rate") == pytest.approx(0.25 / 2)
    assert found.mean("judged") == pytest.approx((1.0 + 0.5 + 0.0) / 3)
    assert found.mean("regret") == pytest.approx((0.0 + 0.3) / 2)
    assert found.mean("mrr") == pytest.approx((0.5 + 1.0) / 2)  # nothing is relevant to Eve
    assert found.applicants == 3


def test_evaluate_tune_and_report_say_the_same(run: Run) -> None:
    evaluated = evaluate_run(run, JUDGED, QRELS)
    finals = list(final_rows(Trial("llm", "llm", 0, {}), run, Known(JUDGED), QRELS))
    curve = {"trial": "llm", "judgements_used": 5} | dict.fromkeys(CURVES, math.nan)
    curves = [curve | {"applicant_id": who} for who in LISTS]
    tuned = statistics([TrialResult(Trial("llm", "llm", 0, {}), "done")], finals, curves, (0,))["strategies"][0]
    reported = read_comparison(run.folder, [run], {"llm": JUDGED}, QRELS)["strategies"][0]
    for name in METRIC_TITLES:
        mean = evaluated.quality[name].mean
        assert tuned["metrics"][name]["mean"] == reported["metrics"][name]["mean"] == pytest.approx(mean)
        assert tuned["metrics"][name] == reported["metrics"][name]
    shown = evaluated.to_json()
    interval = reported["metrics"]["ndcg@10"]
    assert shown["ndcg@10_interval"] == [interval["low"], interval["high"]]


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
        "apply_rate@5",
        "judged@5",
        "corrected_reward@5",
        "corrected_reward@5_interval",
        "truth_known",
    ]
    assert (shown["corrected_reward@5"], shown["corrected_reward@5_interval"], shown["truth_known"]) == (None, None, 0)
    assert (shown["ndcg@5"], shown["ndcg@5_interval"], shown["mean_reward@5"]) == (None, [None, None], None)
    assert (shown["judged@5"], shown["judgements_per_applicant"]) == (0.0, 5.0)


def test_rows_have_every_metric_and_shares_stay_shares(run: Run) -> None:
    rows = quality_rows(run, Known(JUDGED), QRELS, k=3)
    assert list(rows) == list(LISTS)
    for row in rows.values():
        assert tuple(row) == quality_names(3)
        values = np.array([row[name] for name in row if metric_range(name) == (0.0, 1.0)])
        assert ((values >= 0) & (values <= 1) | np.isnan(values)).all()
    assert metric_range("mean_reward@3") == (-math.inf, math.inf)
