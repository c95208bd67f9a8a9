"""The report on the judge: how sure it is of its four answers, how often it abstains, and what it answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynaq.evaluation.run_quality import K
from dynaq.judging.judgement import LABELS
from jobs.reporting.compared_lines import Line

LOW_MASS = 0.5  # below it, most of the probability fell outside the four answers
MAX_NOTES = 6  # kinds of remarks on the page


def judge_health(judgements: pa.Table, lines: Sequence[Line]) -> dict[str, Any] | None:
    """Label mass, abstentions and remarks; None when no judge was asked.

    judgements: the judge's answers about the run's applicants, columns of JUDGEMENT_SCHEMA.
    """
    if judgements.num_rows == 0:
        return None
    mass = judgements.column("label_mass").to_numpy()
    asked = sum(int(run.judgements_per_applicant * len(run.ranked)) for line in lines for run in line.runs)
    columns = [run.metrics.column("abstained") for line in lines for run in line.runs if run.metrics.num_rows]
    abstained = sum(int(pc.sum(column).as_py() or 0) for column in columns)
    notes = Counter(note for text in judgements.column("note").to_pylist() for note in (text or "").split("; ") if note)
    return {
        "judgements": judgements.num_rows,
        "mass": float(mass.mean()),
        "mass_low": float(np.quantile(mass, 0.05)),
        "low_share": float((mass < LOW_MASS).mean()),
        "masses": mass.tolist(),
        "abstained": abstained,
        "abstained_share": abstained / (asked + abstained) if asked + abstained else 0.0,
        "shares": shares(judgements),
        "notes": notes.most_common(MAX_NOTES),
    }


def remarks_line(health: Mapping[str, Any] | None) -> str:
    """The judge's remarks on its answers, such as texts that it saw only in part, in one line; "" for none."""
    if not health or not health["notes"]:
        return ""
    counts = ", ".join(f"{note} {count:,} times" for note, count in health["notes"])
    return f"Judge's remarks on {health['judgements']:,} answers: {counts}"


def shares(judgements: pa.Table) -> list[float]:
    """Mean probability of each of LABELS."""
    return [float(judgements.column(f"p_{label.lower()}").to_numpy().mean()) for label in LABELS]


def top_rewards(judgements: pa.Table, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The judge's answers on each line's final top lists: rewards of the pairs that it judged, and label shares."""
    place = {
        pair: row
        for row, pair in enumerate(
            zip(*(judgements.column(name).to_pylist() for name in ("applicant_id", "job_id")), strict=True)
        )
    }
    found = []
    for line in lines:
        pairs = [(one, job_id) for run in line.runs for one, ranked in run.ranked.items() for job_id, _ in ranked[:K]]
        known = judgements.take(pa.array([place[pair] for pair in pairs if pair in place], pa.int64()))
        if known.num_rows:
            found.append(
                {
                    "name": line.name,
                    "colour": line.colour,
                    "judged": known.num_rows / len(pairs),
                    "rewards": known.column("reward").to_pylist(),
                    "shares": shares(known),
                }
            )
    return found
