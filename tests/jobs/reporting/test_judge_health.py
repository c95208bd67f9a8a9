"""What a judge remarks about its answers reaches the terminal."""

from __future__ import annotations

import pyarrow as pa

from dynaq.judging.judgement import JUDGEMENT_SCHEMA, judgement_from_probabilities, judgement_row
from jobs.reporting.judge_health import judge_health, remarks_line


def test_texts_that_were_shortened_are_counted_in_one_line() -> None:
    notes = ["profile cut to 96 tokens; job condensed to 32 tokens"] * 3 + ["profile cut to 96 tokens"] + [""] * 6
    rows = [
        judgement_row(judgement_from_probabilities("a", f"j{i}", (1, 0, 0, 0), judge="x", note=note))
        for i, note in enumerate(notes)
    ]
    health = judge_health(pa.Table.from_pylist(rows, JUDGEMENT_SCHEMA), [])
    assert remarks_line(health) == (
        "Judge's remarks on 10 answers: profile cut to 96 tokens 4 times, job condensed to 32 tokens 3 times"
    )
    assert remarks_line(None) == ""
