"""The report's section on how far the judge could be believed, and what the agents made of that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from dynaq.agent.judge_table import JudgeTable
from dynaq.judging.judgement import LABELS
from dynaq.runs.judge_tables import JUDGE_TABLES, pooled_table
from jobs.reporting.compared_lines import Line

HARDLY = 0.1  # trust below which answers hardly depend on whether the job fits


def judge_trust(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Per line that asked a judge: the table over LABELS of its first run, its trust and a sentence."""
    found = []
    for line in lines:
        table = run_table(line)
        if table is not None:
            found.append(
                {
                    "name": line.name,
                    "colour": line.colour,
                    "rows": [("a job that fits", table.fits), ("a job that does not", table.not_fits)],
                    "trust": table.trust,
                    "known": table.known,
                    "sentence": sentence(table),
                }
            )
    return found


def run_table(line: Line) -> JudgeTable | None:
    """What the line's runs found of their judge, pooled; None where no judge was asked, or an older version trained."""
    tables = [run.folder.read_table(JUDGE_TABLES) for run in line.runs if run.folder.exists(JUDGE_TABLES)]
    # Blocks of different runs have the same numbers.
    shifted = [
        table.set_column(0, "block", pa.array([block + 10**6 * i for block in table["block"].to_pylist()], pa.int64()))
        for i, table in enumerate(tables)
    ]
    return pooled_table(pa.concat_tables(shifted)) if shifted else None


def sentence(table: JudgeTable) -> str:
    """What the table means, in one sentence."""
    source = (
        f"estimated with {table.known:,} pairs whose truth is known"
        if table.known
        else "estimated from how its answers agree with the texts, without knowing the truth"
    )
    if table.trust < HARDLY:
        return (
            f"The judge's answers hardly depend on whether a job fits ({source}); they were given almost no weight, "
            "and the lists stay close to what the texts alone say."
        )
    often = max(LABELS, key=lambda label: table.not_fits[LABELS.index(label)])
    return (
        f"The judge's APPLY is right about {round(10 * table.apply_right)} times in 10 ({source}); jobs that do not "
        f"fit get {often} most often. Its answers were weighed accordingly."
    )
