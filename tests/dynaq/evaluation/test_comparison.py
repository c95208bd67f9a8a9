"""The rows of a comparison and what follows from them, against values worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import t

from dynaq.evaluation.comparison import choose_arms, statistics, verdict
from dynaq.evaluation.intervals import NO_SEED, Interval
from dynaq.evaluation.run_quality import Known
from dynaq.evaluation.trial_rows import CURVE_SCHEMA, FINAL_SCHEMA, FINALS, as_table, curve_rows, final_rows
from dynaq.qrels import Qrels
from dynaq.runs.folder import RunFolder
from dynaq.runs.reading import Run
from dynaq.runs.trials import Trial, TrialResult

TRIAL = Trial("llm-seed1", "llm", 1, {"gamma": 0.9})


def metrics_row(round_: int, used: int, reward: float, labels: tuple[int, int, int, int]) -> dict[str, Any]:
    names = ("applied", "saved", "clicked", "ignored")
    return {
        "applicant_id": "ann",
        "round": round_,
        "judgements_used": used,
        "judge_reward": reward,
        "ndcg": 0.5,
    } | dict(zip(names, labels, strict=True))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Ann's agent bought a, b, then c, d; its list is b, c, x."""
    folder = RunFolder.at(tmp_path)
    rows = [metrics_row(1, 2, 0.45, (1, 0, 0, 1)), metrics_row(2, 4, 0.25, (0, 1, 1, 0))]
    folder.write_table("metrics.parquet", pa.Table.from_pylist(rows))
    listed = [{"applicant_id": "ann", "rank": i, "job_id": job, "q_value": 1.0 / i} for i, job in enumerate("bcx", 1)]
    folder.write_table("recommendations.parquet", pa.Table.from_pylist(listed))
    return Run("llm-seed1", folder, {})


KNOWN = Known(
    {
        ("ann", "a"): (1.0, "APPLY"),
        ("ann", "b"): (-0.1, "IGNORE"),
        ("ann", "c"): (0.5, "SAVE"),
        ("ann", "d"): (0.0, "CLICK"),
    }
)


def test_final_values_by_hand(run: Run) -> None:
    [row] = final_rows(TRIAL, run, KNOWN, Qrels({"ann": {"c": 3.0, "z": 1.0}}))
    assert (row["trial"], row["setting"], row["seed"]) == ("llm-seed1", '{"gamma": 0.9}', 1)
    assert row["judgements_used"] == 4
    assert row["mean_reward@10"] == pytest.approx(0.2)  # mean of b and c; x is not judged
    assert row["judged@10"] == pytest.approx(2 / 3)
    assert (row["apply_rate@10"], row["save_rate@10"], row["ignore_rate@10"]) == (0.0, 0.5, 0.5)
    assert row["regret@10"] == pytest.approx((1.0 + 0.5) / 2 - 0.2)  # against the applicant's two best known jobs
    assert row["cumulative_reward"] == pytest.approx(2 * 0.45 + 2 * 0.25)
    assert (row["mrr"], row["recall@10"]) == (0.5, 0.5)
    assert row["ndcg@10"] == pytest.approx((3 / math.log2(3)) / (3 + 1 / math.log2(3)))
    assert as_table([row], FINAL_SCHEMA).num_rows == 1


def test_curves_by_hand(run: Run) -> None:
    first, second = curve_rows(TRIAL, run, KNOWN)
    assert (first["mean_reward"], first["cumulative_reward"]) == (0.45, pytest.approx(0.9))
    assert first["cumulative_regret"] == pytest.approx(1.5 - 0.9)
    assert (first["apply_rate"], first["ignore_rate"]) == (0.5, 0.5)
    assert second["cumulative_regret"] == pytest.approx(1.4 - 1.4)  # all four known pairs were judged by then
    assert second["apply_rate"] == 0.25
    assert math.isnan(second["q_loss"])
    assert as_table([first, second], CURVE_SCHEMA).column("q_loss").null_count == 2


def test_the_pairs_of_an_offline_run_count_once_however_many_rounds_it_learned(tmp_path: Path) -> None:
    folder = RunFolder.at(tmp_path)
    rows = [metrics_row(round_, 2, 0.45, (1, 0, 0, 1)) for round_ in (1, 2, 3)]
    folder.write_table("metrics.parquet", pa.Table.from_pylist(rows))
    last = list(curve_rows(TRIAL, Run("llm", folder, {}), KNOWN))[-1]
    assert (last["mean_reward"], last["cumulative_reward"]) == (0.45, pytest.approx(0.9))
    assert last["cumulative_regret"] == pytest.approx(1.5 - 0.9)


def test_without_a_judge_there_is_no_reward_to_sum_up(tmp_path: Path) -> None:
    folder = RunFolder.at(tmp_path)
    folder.write_table("metrics.parquet", pa.Table.from_pylist([metrics_row(1, 0, math.nan, (0, 0, 0, 0))]))
    [row] = curve_rows(TRIAL, Run("cosine", folder, {}), KNOWN)
    assert math.isnan(row["cumulative_reward"])
    assert math.isnan(row["cumulative_regret"])


def finals_and_curves(
    means: dict[str, float], seeds: int, applicants: int = 20
) -> tuple[list[Any], list[Any], list[Any]]:
    """Trials of strategies whose nDCG rises to these values with the judgements, 0.1 apart between applicants."""
    rng = np.random.default_rng(0)
    people = rng.normal(0.0, 0.1, applicants)
    results, finals, curves = [], [], []
    for strategy, mean in means.items():
        for seed in range(seeds):
            trial = Trial(f"{strategy}-seed{seed}", strategy, seed, {})
            results.append(TrialResult(trial, "done", 1.0, 100.0, applicants * 20, 7))
            for who, level in enumerate(people):
                key = {"trial": trial.name, "applicant_id": f"a{who}"}
                value = mean + level + rng.normal(0.0, 0.02)
                finals.append(key | dict.fromkeys(FINALS, value))
                for used in (5, 10, 20):
                    point = value * (1.0 if used == 20 else 0.5)
                    row = dict.fromkeys(CURVE_SCHEMA.names[5:], point) | {"judgements_used": used}
                    curves.append(key | row | {"cumulative_reward": point * used})
    return results, finals, curves


def test_a_comparison_says_which_is_better_and_where_it_cannot_tell() -> None:
    found = statistics(*finals_and_curves({"llm": 0.8, "hybrid": 0.8, "cosine": 0.6}, 3), (0, 1, 2), threshold=0.7)
    assert json.loads(json.dumps(found)) == found  # no NaN, no infinity, no numpy
    ndcg = {(p["a"], p["b"]): p for p in found["pairs"] if (p["metric"], p["phase"]) == ("ndcg@10", "final")}
    assert ndcg["llm", "cosine"]["better"] == "llm"
    assert ndcg["llm", "cosine"]["low"] < 0.2 < ndcg["llm", "cosine"]["high"]
    assert ndcg["llm", "hybrid"]["better"] is None
    assert ndcg["llm", "hybrid"]["verdict"].startswith("The data cannot tell llm from hybrid on nDCG@10")
    regret = [p for p in found["pairs"] if p["metric"] == "regret@10" and p["b"] == "cosine"]
    assert {p["better"] for p in regret} == {"cosine"}  # of regret, less is better
    llm, _, cosine = found["strategies"]
    assert found["comparisons"] == len(found["pairs"]) == 3 * 8
    assert llm["cold_start"]["metrics"]["ndcg"]["mean"] == pytest.approx(0.4, abs=0.05)
    assert llm["cold_start"]["metrics"]["mean_reward"]["mean"] == pytest.approx(0.4, abs=0.05)
    assert llm["steps_to_threshold"]["judgements"] == 20
    assert cosine["steps_to_threshold"]["judgements"] is None
    assert llm["curves"]["ndcg"]["judgements"] == [5, 10, 20]
    assert (llm["judgements_used"], llm["judgements_paid"], llm["judgements_per_applicant"]) == (1200, 21, 20)
    assert found["notes"] == []


def test_one_seed_is_said_to_be_one() -> None:
    assert statistics(*finals_and_curves({"llm": 0.8}, 1), (0,))["notes"] == [NO_SEED]


def test_of_many_settings_the_best_of_each_strategy_and_a_few_more_are_compared() -> None:
    class Rows:
        def final(self, arm: Any, metric: str) -> Any:
            return np.array([[arm.setting["gamma"]]])

    from dynaq.evaluation.comparison import Arm

    done = (TrialResult(TRIAL, "done"),)
    arms = [Arm("llm", {"gamma": i / 10}, done * 2) for i in range(8)] + [Arm("cosine", {"gamma": 0.0}, done)]
    chosen = choose_arms(arms, Rows())  # type: ignore[arg-type]
    assert [(arm.strategy, arm.setting["gamma"]) for arm in chosen] == [
        ("llm", 0.3),
        ("llm", 0.4),
        ("llm", 0.5),
        ("llm", 0.6),
        ("llm", 0.7),
        ("cosine", 0.0),
    ]


def test_a_verdict_names_the_better_one_first() -> None:
    sentence = verdict("cosine", "llm", "ndcg@10", "final", Interval(-0.2, -0.3, -0.1), "llm")
    assert sentence == "llm is better than cosine on nDCG@10: +0.200 (+0.100 to +0.300)."
    unknown = Interval(math.nan, math.nan, math.nan)
    assert "Too little is known" in verdict("a", "b", "ndcg@10", "final", unknown, None)


def test_who_asks_nobody_is_there_before_the_first_judgement_or_never() -> None:
    results, finals, curves = finals_and_curves({"llm": 0.8, "cosine": 0.6}, 2)
    silent = [replace(one, judgements=0) if one.trial.strategy == "cosine" else one for one in results]
    curves = [row | {"judgements_used": 0} if row["trial"].startswith("cosine") else row for row in curves]
    _, cosine = statistics(silent, finals, curves, (0, 1), threshold=0.5)["strategies"]
    assert cosine["steps_to_threshold"]["judgements"] == 0
    _, cosine = statistics(silent, finals, curves, (0, 1), threshold=0.7)["strategies"]
    assert cosine["steps_to_threshold"]["judgements"] is None
    assert cosine["curves"]["ndcg"]["judgements"] == [5, 10, 20]  # a level line beside the others


def test_all_comparisons_of_a_report_are_corrected_as_one_family() -> None:
    """Two strategies are compared 8 times, four of them 6 · 8 times: the same difference is less certain."""
    two = statistics(*finals_and_curves({"llm": 0.8, "cosine": 0.6}, 1), (0,))["pairs"][0]
    means = {"llm": 0.8, "cosine": 0.6, "hybrid": 0.7, "other": 0.7}
    four = statistics(*finals_and_curves(means, 1), (0,))["pairs"][0]
    assert (two["a"], two["b"], two["difference"]) == (four["a"], four["b"], four["difference"])
    half = [(pair["high"] - pair["low"]) / 2 for pair in (two, four)]
    quantiles = [t.ppf(1 - 0.025 / comparisons, 19) for comparisons in (8, 48)]
    assert half[1] / half[0] == pytest.approx(quantiles[1] / quantiles[0])
