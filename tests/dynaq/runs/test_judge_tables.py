from __future__ import annotations

import pyarrow as pa
import pytest

from dynaq.agent.judge_table import JudgeTable
from dynaq.runs.judge_tables import JUDGE_TABLE_SCHEMA, judge_table_row, pooled_table

LATE = JudgeTable((0.7, 0.1, 0.1, 0.1), (0.1, 0.1, 0.1, 0.7), share_fits=0.5, answers=30, known=4)
SURE = JudgeTable((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), share_fits=0.2, answers=10, known=1)


def table(*rows: tuple[int, int, JudgeTable]) -> pa.Table:
    return pa.Table.from_pylist([judge_table_row(*row) for row in rows], schema=JUDGE_TABLE_SCHEMA)


def test_blocks_count_by_their_answers_after_their_last_rounds() -> None:
    pooled = pooled_table(table((0, 2, LATE), (1, 1, SURE), (0, 1, SURE)))
    assert pooled is not None
    assert (pooled.answers, pooled.known) == (40, 5)
    assert pooled.share_fits == pytest.approx((30 * 0.5 + 10 * 0.2) / 40)
    fitting, misfits = (15.0, 2.0), (15.0, 8.0)
    assert pooled.fits[0] == pytest.approx((fitting[0] * 0.7 + fitting[1] * 1.0) / sum(fitting))
    assert pooled.not_fits[3] == pytest.approx((misfits[0] * 0.7 + misfits[1] * 1.0) / sum(misfits))


def test_a_run_whose_judge_said_nothing_has_no_table() -> None:
    assert pooled_table(table()) is None
    assert pooled_table(table((0, 1, JudgeTable((0.25,) * 4, (0.25,) * 4)))) is None
