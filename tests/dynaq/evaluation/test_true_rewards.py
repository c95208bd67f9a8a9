from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dynaq.evaluation.run_quality import evaluate_run
from dynaq.evaluation.true_rewards import TrueRewards, corrected_reward, corrected_words
from dynaq.feedback.events import FEEDBACK_SCHEMA
from dynaq.judging.judgement import JUDGEMENT_SCHEMA, judgement_from_probabilities, judgement_row
from dynaq.qrels import Qrels
from dynaq.runs.folder import RunFolder
from dynaq.runs.reading import Run

START = datetime(2026, 1, 1, tzinfo=UTC)


def events(*rows: tuple[str, str, str]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"key": str(n), "applicant_id": a, "job_id": j, "event": e, "at": START + timedelta(n), "source": "t"}
            for n, (a, j, e) in enumerate(rows)
        ],
        schema=FEEDBACK_SCHEMA,
    )


def labels(*rows: tuple[str, str, int]) -> pa.Table:
    judgements = [judgement_from_probabilities(a, j, np.eye(4)[label].tolist(), judge="gold") for a, j, label in rows]
    return pa.Table.from_pylist([judgement_row(j) for j in judgements], schema=JUDGEMENT_SCHEMA)


def test_what_people_did_outranks_labels_and_labels_outrank_relevance() -> None:
    true = TrueRewards(
        events(("ann", "a", "save"), ("ann", "a", "ignore")),
        labels(("ann", "a", 0), ("ann", "b", 1), ("bob", "a", 2)),
        Qrels({"ann": {"a": 3.0, "b": 3.0, "c": 3.0}}),
    )
    assert [true.of("ann", job) for job in "abcd"] == [-0.1, 0.5, 1.0, -0.1]
    assert true.of("bob", "a") == 0.0
    assert math.isnan(true.of("bob", "b"))
    assert math.isnan(TrueRewards().of("ann", "a"))


def test_a_judge_that_likes_every_list_is_corrected_by_what_people_did(tmp_path: Path) -> None:
    """The judge promises 0.9 of every job; people apply to half of the known ones."""
    people = [f"p{i}" for i in range(12)]
    rows = [
        {"applicant_id": a, "rank": r + 1, "job_id": f"j{r}", "q_value": 1.0 - r} for a in people for r in range(10)
    ]
    folder = RunFolder.at(tmp_path)
    folder.write_table("recommendations.parquet", pa.Table.from_pylist(rows))
    metrics = [{"applicant_id": a, "round": 1, "judgements_used": 5} for a in people]
    folder.write_table("metrics.parquet", pa.Table.from_pylist(metrics))
    run = Run("llm", folder, {"strategy": "llm", "config": {"seed": 0}})
    judged = {(a, f"j{r}"): (0.9, "APPLY") for a in people for r in range(10)}
    told = events(*((a, f"j{r}", "apply" if r % 2 else "ignore") for a in people for r in range(4)))
    found = corrected_reward([run], judged, TrueRewards(told), 10)
    assert found is not None
    assert (found.judged, found.known) == (pytest.approx(0.9), 48)
    assert found.mean == pytest.approx(0.45)
    assert found.low <= 0.45 <= found.high < 0.9
    assert "0.900; corrected by 48 pairs of the top 10 whose truth is known, their reward is 0.450" in corrected_words(
        "llm", vars(found), 10
    )
    shown = evaluate_run(run, judged, None, true=TrueRewards(told)).to_json()
    assert (shown["corrected_reward@10"], shown["truth_known"]) == (pytest.approx(0.45), 48)
    assert shown["corrected_reward@10_interval"][1] < 0.9
    assert corrected_reward([run], judged, TrueRewards(), 10) is None
