"""The applicants' feedback: the store's events as answers to learn from, and as what a judge is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.broker import JudgeBackend
from dynaq.agent.config import DynaQConfig
from dynaq.errors import InputError
from dynaq.feedback.answers import KEPT, real_answers
from dynaq.feedback.histories import histories
from dynaq.judging.history import memory_of
from dynaq.runs.folder import CONFIG, RunFolder
from dynaq.stores import open_store
from jobs.steps.prepare import Prepared
from jobs.terminal.console import say

FEEDBACK_FILE = "feedback.parquet"  # in the run folder: the answers learned from


def learn_from_events(
    folder: RunFolder, prepared: Prepared, config: DynaQConfig, until: str | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """The answers of the cohort's own events, and a summary for config.yaml.

    A resumed run keeps the answers that it started with, whatever happened since. `until`: ISO time; only earlier
    events count; None means now. Raises InputError when it is not a time with a zone.
    """
    if folder.exists(CONFIG) and folder.exists(FEEDBACK_FILE):
        found = folder.read_yaml(CONFIG)
        return folder.read_table(FEEDBACK_FILE), found.get("feedback") or {}
    limit = parse_time(until) if until else datetime.now(UTC)
    with open_store(prepared.store_uri, read_only=True) as store:
        events = store.feedback()
    events = events.filter(pc.less(events.column("at"), pa.scalar(limit, events.schema.field("at").type)))
    found = real_answers(events, prepared.cohort, prepared.cache.job_ids, config.label_values)
    summary = {
        "until": limit.isoformat(),
        "events": found.events,
        "answers": found.answers.num_rows,
        "people": len(pc.unique(found.answers.column("applicant_id"))),
        "unknown_jobs": found.unknown_jobs,
        "unknown_applicants": found.unknown_applicants,
        "older": found.older,
    }
    if not folder.exists(CONFIG):
        folder.write_table(FEEDBACK_FILE, found.answers)
    return found.answers, summary


def told(
    backend: JudgeBackend,
    store_uri: str,
    applicants: Sequence[str],
    folder: RunFolder | None = None,
    until: str | None = None,
) -> JudgeBackend:
    """The judge together with what the applicants did before; unchanged if it has no memory.

    folder: of a run, which keeps the time from which it started when it is resumed. until: as in `learn_from_events`.
    """
    size = memory_of(backend.fingerprint)
    if not size:
        return backend
    if folder is not None and folder.exists(CONFIG):
        until = folder.read_yaml(CONFIG).get("told_until") or until
    limit = parse_time(until) if until else datetime.now(UTC)
    with open_store(store_uri, read_only=True) as store:
        known = histories(store.feedback(list(applicants)), applicants, store.ids("job"), size, limit)
    say(f"judge: told what {len(known)} of {len(applicants)} applicants did before {limit:%Y-%m-%d %H:%M} UTC")
    return replace(backend, histories=known, told_until=limit.isoformat())


def describe_feedback(summary: dict[str, Any]) -> None:
    """Print what is learned from, and what is ignored."""
    answers, applicants, events = summary["answers"], summary["people"], summary["events"]
    say(f"learning from {answers} answers of {applicants} applicants, out of {events} events")
    ignored = [
        (summary["unknown_jobs"], "on jobs that are not in the catalogue"),
        (summary["unknown_applicants"], "of applicants outside the cohort"),
    ]
    notes = [f"{count} events {what}" for count, what in ignored if count]
    if summary["older"]:
        notes.append(f"{summary['older']} answers of applicants who have {KEPT} newer ones")
    if notes:
        say(f"  ignored: {', '.join(notes)}")


def parse_time(text: str) -> datetime:
    """An ISO time with a zone, in UTC. Raises InputError on anything else."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is not a time; write e.g. 2026-03-01T12:00:00Z") from None
    if time.tzinfo is None:
        raise InputError(f"time {text!r} has no zone; write e.g. 2026-03-01T12:00:00Z")
    return time.astimezone(UTC)
