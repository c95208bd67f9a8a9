"""The judge's answers about counterfactuals. They stay in the audit's folder: no ledger mixes them with real ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import pyarrow as pa

from cluster.broker import JudgeBackend, LazyJudge
from dynaq.audit.measure import Row
from dynaq.errors import InputError
from dynaq.judging.history import without_memory
from dynaq.judging.judgement import JUDGEMENT_SCHEMA, Judgement, check_answers, judgement_row
from dynaq.judging.ledger_file import judgements
from dynaq.records import Candidate, Job
from dynaq.runs.folder import RunFolder

AUDIT_ANSWERS = "judgements.parquet"
ANSWERS_SECONDS = 30.0  # the most that an interruption loses of what the judge has answered

Pairs = dict[tuple[str, str], Judgement]


def judge_rows(
    backend: JudgeBackend,
    rows: Iterable[Row],
    jobs: Mapping[str, Job],
    folder: RunFolder,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Pairs:
    """Have all pairs of the rows judged, each pair of a text and a job once, and keep the answers in the folder.

    Args:
        backend: the judge; started when the folder lacks an answer.
        rows: texts and the ids of their jobs.
        jobs: id -> record.
        folder: of the audit. Answers of the same judge that are there are not asked for again.
        progress: called with the pairs judged, and of how many.

    Returns the answers without abstentions. Raises JudgeError when the judge fails; what it answered before is kept.
    """
    wanted: dict[str, tuple[Candidate, dict[str, None]]] = {}
    for text, job_ids in rows:
        wanted.setdefault(text.id, (text, {}))[1].update(dict.fromkeys(job_ids))
    known = _kept(folder, without_memory(backend.fingerprint))  # nobody has a history in an audit
    asked = [
        (text, [jobs[job_id] for job_id in own if (text.id, job_id) not in known]) for text, own in wanted.values()
    ]
    asked = [(text, own) for text, own in asked if own]
    if asked:
        asyncio.run(_ask(LazyJudge(backend.start), asked, known, folder, progress))
    return {
        pair: known[pair] for text, own in wanted.values() for job_id in own if (pair := (text.id, job_id)) in known
    }


def _kept(folder: RunFolder, fingerprint: str) -> Pairs:
    if not folder.exists(AUDIT_ANSWERS):
        return {}
    found = {(one.applicant_id, one.job_id): one for one in judgements(folder.read_table(AUDIT_ANSWERS))}
    if others := {one.judge for one in found.values()} - {fingerprint}:
        raise InputError(
            f"{folder.uri!r} holds an audit of judge {min(others)}, not of {fingerprint}; choose another --out"
        )
    return found


async def _ask(
    judge: LazyJudge,
    asked: Sequence[tuple[Candidate, Sequence[Job]]],
    known: Pairs,
    folder: RunFolder,
    progress: Callable[[int, int], None],
) -> None:
    """Ask about every text; answers are added to `known` and written now and then."""
    total, done, saved = sum(len(own) for _, own in asked), 0, time.monotonic()

    async def one(text: Candidate, own: Sequence[Job]) -> None:
        nonlocal done, saved
        answers = await judge.judge_async(text, own)
        check_answers(answers, text.id, [job.id for job in own])
        known.update({(text.id, answer.job_id): answer for answer in answers if not answer.abstained})
        done += len(own)
        progress(done, total)
        if time.monotonic() - saved > ANSWERS_SECONDS:
            _save(folder, known)
            saved = time.monotonic()

    try:
        async with asyncio.TaskGroup() as tasks:
            for text, own in asked:
                tasks.create_task(one(text, own))
    except* Exception as errors:
        raise errors.exceptions[0] from None
    finally:
        _save(folder, known)


def _save(folder: RunFolder, known: Pairs) -> None:
    rows = [judgement_row(answer) for answer in known.values()]
    folder.write_table(AUDIT_ANSWERS, pa.Table.from_pylist(rows, schema=JUDGEMENT_SCHEMA))
