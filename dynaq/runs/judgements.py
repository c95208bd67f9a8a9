"""The judgements of a run's applicants by the run's judge."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from dynaq.judging.history import memory_of, newest_answers
from dynaq.judging.judgement import JUDGEMENT_SCHEMA
from dynaq.judging.ledger_file import LEDGER, read_ledger
from dynaq.runs.reading import Run
from dynaq.stores import Store

Judged = Mapping[tuple[str, str], tuple[float, str]]  # (applicant, job) -> reward, label


def judgement_table(run: Run, store: Store) -> pa.Table:
    """The judgements of the run's applicants by the run's judge, with the columns of JUDGEMENT_SCHEMA.

    Of a judge with memory, the newest of each pair, whatever it was told.
    Empty for a run without a judge (cosine), unless it was part of a comparison that had one.
    """
    judge, fingerprint = run.config.get("judge"), run.config.get("judge_fingerprint")
    if not judge:
        return JUDGEMENT_SCHEMA.empty_table()
    if judge.startswith(LEDGER):
        return read_ledger(judge.removeprefix(LEDGER), list(run.ranked))
    if fingerprint and memory_of(fingerprint):
        return newest_answers(store.judgements(None, list(run.ranked)), fingerprint)
    return store.judgements(fingerprint, list(run.ranked))


def judged_pairs(run: Run, store: Store) -> Judged:
    """`judgement_table` as (applicant, job) -> reward, label."""
    table = judgement_table(run, store)
    columns = (table.column(name).to_pylist() for name in ("applicant_id", "job_id", "reward", "label"))
    return {(applicant, job): (reward, label) for applicant, job, reward, label in zip(*columns, strict=True)}
