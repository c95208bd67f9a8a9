"""What the report says of how far the judge could be believed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynaq.agent.judge_table import JudgeTable
from dynaq.runs.judge_tables import JUDGE_TABLE_SCHEMA, JUDGE_TABLES, judge_table_row
from jobs.cli import run
from jobs.reporting.judge_trust import sentence
from tests.support.markets import make_ledger, make_store
from tests.support.runs import make_run

GOOD = JudgeTable((0.6, 0.2, 0.1, 0.1), (0.1, 0.1, 0.2, 0.6), share_fits=0.2, answers=100)
BLIND = JudgeTable((0.3, 0.2, 0.1, 0.4), (0.3, 0.2, 0.1, 0.4), share_fits=0.2, answers=100)


def test_the_sentence_says_how_often_an_apply_is_right() -> None:
    # 0.2 * 0.6 of all pairs are right APPLYs, 0.8 * 0.1 wrong ones.
    assert "APPLY is right about 6 times in 10" in sentence(GOOD)
    assert "jobs that do not fit get IGNORE most often" in sentence(GOOD)
    assert "without knowing the truth" in sentence(GOOD)


def test_the_sentence_says_that_a_blind_judge_had_no_weight_and_what_is_known() -> None:
    assert "hardly depend on whether a job fits" in sentence(BLIND)
    known = JudgeTable(GOOD.fits, GOOD.not_fits, share_fits=0.2, answers=100, known=1234)
    assert "1,234 pairs whose truth is known" in sentence(known)


def test_the_page_has_the_table_the_sentence_and_the_trust_over_judgements(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(str(tmp_path / "store"))
    make_ledger(tmp_path / "ledger.parquet")
    people, jobs = ["a000", "a001"], [f"j{i:03d}" for i in range(40)]
    judge = f"ledger:{tmp_path}/ledger.parquet"
    folder = make_run(tmp_path / "run", tmp_path / "store", people, jobs, judge=judge)
    rows = pa.Table.from_pylist([judge_table_row(0, 4, GOOD)], schema=JUDGE_TABLE_SCHEMA)
    pq.write_table(rows, folder / JUDGE_TABLES)
    assert run(["report", "--run", str(folder)]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "APPLY is right about 6 times in 10" in page
    assert "what the judge says of" in page
    assert '<td data-label="APPLY"><span class="value">60 %</span>' in page
    assert "how far the judge is believed" in page
