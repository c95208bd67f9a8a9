"""How far a run's judge was believed: a row per block of agents and round, in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynaq.agent.judge_table import JudgeTable
from dynaq.judging.judgement import LABELS

JUDGE_TABLES = "judge_tables.parquet"
FITS, NOT_FITS = "fits", "not_fits"  # followed by _ and the label in lower case

JUDGE_TABLE_SCHEMA = pa.schema(
    [
        ("block", pa.int32()),
        ("round", pa.int32()),
        *((f"{row}_{label.lower()}", pa.float64()) for row in (FITS, NOT_FITS) for label in LABELS),
        ("trust", pa.float64()),
        ("share_fits", pa.float64()),
        ("answers", pa.int64()),
        ("known", pa.int64()),
    ]
)


def judge_table_row(block: int, round_: int, table: JudgeTable) -> dict[str, Any]:
    """A block's table after a round, with the columns of JUDGE_TABLE_SCHEMA."""
    rows = {FITS: table.fits, NOT_FITS: table.not_fits}
    probabilities = {
        f"{row}_{label.lower()}": p for row, values in rows.items() for label, p in zip(LABELS, values, strict=True)
    }
    return probabilities | {
        "block": block,
        "round": round_,
        "trust": table.trust,
        "share_fits": table.share_fits,
        "answers": table.answers,
        "known": table.known,
    }


def pooled_table(rows: pa.Table) -> JudgeTable | None:
    """The tables of all blocks after their last rounds as one, by the answers that each rests on; None of none.

    rows: with the columns of JUDGE_TABLE_SCHEMA.
    """
    last: dict[int, Mapping[str, Any]] = {}
    for row in rows.sort_by("round").to_pylist():
        last[row["block"]] = row
    tables = [row for row in last.values() if row["answers"]]
    if not tables:
        return None
    answers = np.array([row["answers"] for row in tables], np.float64)
    share = _mean(tables, "share_fits", answers)
    fitting = answers * np.array([row["share_fits"] for row in tables])
    return JudgeTable(
        fits=tuple(_mean(tables, f"{FITS}_{label.lower()}", fitting) for label in LABELS),
        not_fits=tuple(_mean(tables, f"{NOT_FITS}_{label.lower()}", answers - fitting) for label in LABELS),
        share_fits=share,
        answers=int(answers.sum()),
        known=sum(row["known"] for row in tables),
    )


def _mean(rows: list[Mapping[str, Any]], name: str, weights: npt.NDArray[np.float64]) -> float:
    weights = weights if weights.sum() > 0 else np.ones(len(rows))
    return float(np.average([row[name] for row in rows], weights=weights))
