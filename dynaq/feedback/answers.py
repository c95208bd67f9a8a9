"""What people's own events say about each pair, as rewards that outrank a judge's.

    hire, apply → APPLY      save → SAVE      click → CLICK      ignore ("not for me") → IGNORE

Several events on one pair become one answer, in the order in which they happened: an application or a hire is never
taken back; of save and ignore the later counts; a click counts where there is nothing else (`standing`). So save, then
ignore is IGNORE; ignore, then apply is APPLY; save, then click is SAVE. Events of the same time are taken in the order
of their keys, so that the answer does not depend on the order in which they arrived.

Only what somebody did is an answer. A job that was shown and not acted on is no evidence against it: it may not have
been looked at, and what is not looked at depends on its rank more than on its fit (Joachims et al. 2005). It stays an
exposure, which off-policy evaluation counts as a list position that earned nothing. A job that was never shown is not
even that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from dynaq.feedback.events import Event
from dynaq.judging.judgement import LABELS, Label
from dynaq.stores.base import JUDGEMENT_SCHEMA

EVENT_LABELS: Mapping[Event, Label] = {
    "hire": "APPLY",
    "apply": "APPLY",
    "save": "SAVE",
    "click": "CLICK",
    "ignore": "IGNORE",
}
HIDES: tuple[Event, ...] = ("apply", "hire", "ignore")  # what stands for a job that is not shown again
REAL = "feedback"  # stands where a judge's fingerprint does
KEPT = 200  # newest answers of one person: conditioning on more costs time and memory and moves little


@dataclass(frozen=True)
class RealAnswers:
    """Answers that real people gave.

    Args:
        answers: one row per pair, by time, with the columns of JUDGEMENT_SCHEMA; `judge` is REAL and `note` the event.
        events: how many were read.
        unknown_jobs, unknown_applicants: how many of them were passed over, for jobs that the catalogue lacks (the
            posting has gone) and for applicants that are not asked for.
        older: answers left out since their applicant has KEPT newer ones.
        until: time of the newest event that counted, None without any.
    """

    answers: pa.Table
    events: int
    unknown_jobs: int
    unknown_applicants: int
    older: int
    until: datetime | None


def standing(before: Event | None, event: Event) -> Event:
    """The event that counts for a pair once `event` has followed what counted `before`."""
    if before == "hire" or (before == "apply" and event != "hire"):
        return before
    return before if event == "click" and before is not None else event


def settle(events: pa.Table) -> dict[tuple[str, str], tuple[Event, datetime]]:
    """(applicant, job) → the event that counts, and its time. events: with the columns of FEEDBACK_SCHEMA."""
    ordered = events.sort_by([("at", "ascending"), ("key", "ascending")])
    columns = (ordered.column(name).to_pylist() for name in ("applicant_id", "job_id", "event", "at"))
    settled: dict[tuple[str, str], tuple[Event, datetime]] = {}
    for applicant_id, job_id, event, at in zip(*columns, strict=True):
        before = settled.get((applicant_id, job_id))
        counts = standing(before[0] if before else None, event)
        if before is None or counts != before[0]:
            settled[applicant_id, job_id] = counts, at
    return settled


def real_answers(
    events: pa.Table, applicants: Collection[str], jobs: Collection[str], values: Mapping[Label, float]
) -> RealAnswers:
    """The answers that agents of `applicants` over the catalogue `jobs` can learn from.

    events: with the columns of FEEDBACK_SCHEMA, in any order. values: reward of each label.
    """
    ours = pc.is_in(events.column("applicant_id"), pa.array(list(applicants), pa.string()))
    theirs = events.filter(ours)
    known = theirs.filter(pc.is_in(theirs.column("job_id"), pa.array(list(jobs), pa.string())))
    by_applicant: dict[str, list[tuple[datetime, str, Event]]] = {}
    for (applicant_id, job_id), (event, at) in settle(known).items():
        by_applicant.setdefault(applicant_id, []).append((at, job_id, event))
    rows = []
    older = 0
    for applicant_id, answers in by_applicant.items():
        answers.sort()
        older += max(0, len(answers) - KEPT)
        rows += [_row(applicant_id, job_id, event, at, values) for at, job_id, event in answers[-KEPT:]]
    return RealAnswers(
        pa.Table.from_pylist(rows, schema=JUDGEMENT_SCHEMA),
        events=events.num_rows,
        unknown_jobs=theirs.num_rows - known.num_rows,
        unknown_applicants=events.num_rows - theirs.num_rows,
        older=older,
        until=pc.max(known.column("at")).as_py(),
    )


def _row(
    applicant_id: str, job_id: str, event: Event, at: datetime, values: Mapping[Label, float]
) -> dict[str, object]:
    label = EVENT_LABELS[event]
    probabilities = {f"p_{name.lower()}": float(name == label) for name in LABELS}
    return probabilities | {
        "applicant_id": applicant_id,
        "job_id": job_id,
        "label": label,
        "reward": values[label],
        "label_mass": 1.0,
        "judge": REAL,
        "created_at": at,
        "note": event,
    }
