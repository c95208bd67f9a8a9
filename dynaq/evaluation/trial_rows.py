"""The rows of a comparison: each trial's final values and learning curves, applicant by applicant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from dynaq.evaluation.run_quality import RATES, Known, quality_names, quality_rows
from dynaq.qrels import Qrels
from dynaq.runs.reading import Run
from dynaq.runs.trials import Trial, setting_json

COUNTS = {"APPLY": "applied", "SAVE": "saved", "CLICK": "clicked", "IGNORE": "ignored"}
FINALS = (*quality_names(), "cumulative_reward")
CURVES = (
    "ndcg",
    "recall",
    "mrr",
    "mean_reward",
    "cumulative_reward",
    "cumulative_regret",
    *RATES.values(),
    "q_loss",
    "model_loss",
    "planning_loss",
    "epsilon",
    "w_cosine",
    "trust",
)
KEY_SCHEMA = [
    ("trial", pa.string()),
    ("strategy", pa.string()),
    ("setting", pa.string()),
    ("seed", pa.int64()),
    ("applicant_id", pa.string()),
]
FINAL_SCHEMA = pa.schema([*KEY_SCHEMA, ("judgements_used", pa.int64()), *((name, pa.float64()) for name in FINALS)])
CURVE_SCHEMA = pa.schema(
    [
        *KEY_SCHEMA,
        ("round", pa.int64()),
        ("judgements_used", pa.int64()),
        *((name, pa.float64()) for name in CURVES),
    ]
)


def final_rows(trial: Trial, run: Run, known: Known, qrels: Qrels | None) -> Iterator[dict[str, Any]]:
    """Final values of a trial, a row per applicant, with the columns of FINAL_SCHEMA."""
    used, totals = _spent(run)
    for applicant_id, quality in quality_rows(run, known, qrels).items():
        yield _key(trial, applicant_id) | {
            "judgements_used": used.get(applicant_id, 0),
            **quality,
            "cumulative_reward": totals.get(applicant_id, math.nan),
        }


def _spent(run: Run) -> tuple[dict[str, int], dict[str, float]]:
    """Applicant -> judgements used, and applicant -> sum of the judge's rewards (absent without judgements)."""
    used: dict[str, int] = {}
    totals: dict[str, float] = {}
    for row in run.metrics.to_pylist():
        applicant_id = row["applicant_id"]
        used[applicant_id] = max(used.get(applicant_id, 0), row["judgements_used"])
        count = sum(_counts(row).values())
        if count:
            totals[applicant_id] = totals.get(applicant_id, 0.0) + count * row["judge_reward"]
    return used, totals


def curve_rows(trial: Trial, run: Run, known: Known) -> Iterator[dict[str, Any]]:
    """A trial's learning curves, a row per applicant and round, with the columns of CURVE_SCHEMA."""
    so_far: dict[str, dict[str, float]] = {}
    used: dict[str, int] = {}
    for row in sorted(run.metrics.to_pylist(), key=lambda row: row["round"]):
        applicant_id = row["applicant_id"]
        sums = so_far.setdefault(applicant_id, dict.fromkeys([*COUNTS, "reward"], 0.0))
        counts = _counts(row)
        new = sum(counts.values())
        # Offline, the rows of all rounds describe the same pairs.
        if row["judgements_used"] > used.get(applicant_id, -1):
            for label, count in counts.items():
                sums[label] += count
            sums["reward"] += new * row["judge_reward"] if new else 0.0
        used[applicant_id] = row["judgements_used"]
        asked = sum(sums[label] for label in COUNTS)
        total = sums["reward"] if asked else math.nan
        yield _key(trial, applicant_id) | {
            "round": row["round"],
            "judgements_used": row["judgements_used"],
            **{name: _number(row.get(name)) for name in CURVES},
            "mean_reward": row["judge_reward"] if new else math.nan,
            "cumulative_reward": total,
            "cumulative_regret": known.best_sum(applicant_id, int(asked)) - total,
            **{rate: sums[label] / asked if asked else math.nan for label, rate in RATES.items()},
        }


def _counts(row: Mapping[str, Any]) -> dict[str, int]:
    return {label: row.get(name) or 0 for label, name in COUNTS.items()}


def _key(trial: Trial, applicant_id: str) -> dict[str, Any]:
    return {
        "trial": trial.name,
        "strategy": trial.strategy,
        "setting": setting_json(trial.setting),
        "seed": trial.seed,
        "applicant_id": applicant_id,
    }


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def as_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table, with null for None and NaN."""
    columns = {
        name: [None if (value := row[name]) is None or value != value else value for row in rows]
        for name in schema.names
    }
    return pa.table(columns, schema=schema)
