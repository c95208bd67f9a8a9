"""What applicants' own events say about each pair: which event stands, what hides a job, which reward is learned.

Only this module decides it: training (`real_answers`), the service's lists (`StandingEvents`, HIDES) and off-policy
evaluation (`dynaq.feedback.exposure_log`) all follow `standing`. An applicant's own event outranks a judgement.

    hire, apply → APPLY      save → SAVE      click → CLICK      ignore ("not for me") → IGNORE

Several events on one pair become one answer, in the order in which they happened. A hire stands whatever follows it; an
application stands unless a hire follows; the later of save and ignore counts; a click counts only if there is no other
event. So save, then ignore is IGNORE; ignore, then apply is APPLY; save, then click is SAVE. An undo takes back what
was said before it, except a hire. Events with equal times are ordered by their keys, so that the answer does not depend
on the order of arrival.

Only an action is an answer. Not acting on a shown job is no evidence against it: the applicant may not have looked at
it, and whether they look depends more on its rank than on its fit (Joachims et al. 2005). It remains an exposure, which
off-policy evaluation counts as a list position that earned nothing.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from dynaq.feedback.events import Event, FeedbackEvent
from dynaq.judging.judgement import JUDGEMENT_SCHEMA, LABELS, Label

EVENT_LABELS: Mapping[Event, Label] = {
    "hire": "APPLY",
    "apply": "APPLY",
    "save": "SAVE",
    "click": "CLICK",
    "ignore": "IGNORE",
}
HIDES: tuple[Event, ...] = ("apply", "hire", "ignore")  # a job for which one of these stands is not shown again
REAL = "feedback"  # takes the place of a judge's fingerprint
KEPT = 200  # newest answers per applicant: conditioning on more costs time and memory and changes little


@dataclass(frozen=True)
class RealAnswers:
    """Answers that applicants gave themselves.

    Args:
        answers: one row per pair, by time, with the columns of JUDGEMENT_SCHEMA; `judge` is REAL and `note` the event.
        events: number of events read.
        unknown_jobs, unknown_applicants: number of events skipped because the catalogue lacks the job (the posting was
            withdrawn) or because the applicant was not requested.
        older: answers left out because their applicant has KEPT newer ones.
        until: time of the newest event used, None if there is none.
    """

    answers: pa.Table
    events: int
    unknown_jobs: int
    unknown_applicants: int
    older: int
    until: datetime | None


def standing(before: Event | None, event: Event) -> Event | None:
    """The event that stands for a pair when `event` follows the one that stood `before`; None after an undo."""
    if before == "hire" or (before == "apply" and event not in ("hire", "undo")):
        return before
    if event == "undo":
        return None
    return before if event == "click" and before is not None else event


def _standing_since(before: tuple[Event, datetime] | None, event: Event, at: datetime) -> tuple[Event, datetime] | None:
    """As `standing`, with the time at which the event that stands began to."""
    counts = standing(before[0] if before else None, event)
    if counts is None:
        return None
    return before if before is not None and counts == before[0] else (counts, at)


class _Dated(NamedTuple):
    """An event on some pair; events are ordered by (at, key)."""

    event: Event
    at: datetime
    key: str


class StandingEvents:
    """The standing event of each pair, kept in memory as events arrive: about 400 bytes per event.

    Events may be added in any order and more than once; they are ranked by when they happened.
    """

    def __init__(self) -> None:
        self._events: dict[str, dict[str, list[_Dated]]] = {}  # applicant -> job -> by time

    @classmethod
    def of(cls, feedback: pa.Table) -> StandingEvents:
        """Build from a store's events. feedback: with the columns of FEEDBACK_SCHEMA, in any order."""
        standing_events = cls()
        for batch in feedback.select(["applicant_id", "job_id", "event", "at", "key"]).to_batches():
            for applicant_id, job_id, *dated in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                standing_events._add(applicant_id, job_id, _Dated(*dated))
        return standing_events

    def add(self, events: Iterable[FeedbackEvent]) -> None:
        """Add further events."""
        for one in events:
            self._add(one.applicant_id, one.job_id, _Dated(one.event, one.at, one.key))

    def of_applicant(self, applicant_id: str) -> dict[str, Event]:
        """Job -> the applicant's standing event for it; empty for an applicant without events."""
        return {job_id: event for job_id, (event, _) in self.dated(applicant_id).items()}

    def dated(self, applicant_id: str) -> dict[str, tuple[Event, datetime]]:
        """Job -> the applicant's standing event for it, and its time."""
        found: dict[str, tuple[Event, datetime]] = {}
        for job_id, said in self._events.get(applicant_id, {}).items():
            stands: tuple[Event, datetime] | None = None
            for one in said:
                stands = _standing_since(stands, one.event, one.at)
            if stands is not None:
                found[job_id] = stands
        return found

    def forget(self, applicant_id: str) -> None:
        """Drop an applicant's events."""
        self._events.pop(applicant_id, None)

    def _add(self, applicant_id: str, job_id: str, new: _Dated) -> None:
        said = self._events.setdefault(applicant_id, {}).setdefault(job_id, [])
        if new not in said:
            insort(said, new, key=lambda dated: (dated.at, dated.key))


def settle(events: pa.Table) -> dict[tuple[str, str], tuple[Event, datetime]]:
    """(applicant, job) → the standing event and its time. events: with the columns of FEEDBACK_SCHEMA."""
    ordered = events.sort_by([("at", "ascending"), ("key", "ascending")])
    columns = (ordered.column(name).to_pylist() for name in ("applicant_id", "job_id", "event", "at"))
    settled: dict[tuple[str, str], tuple[Event, datetime]] = {}
    for applicant_id, job_id, event, at in zip(*columns, strict=True):
        stands = _standing_since(settled.get((applicant_id, job_id)), event, at)
        if stands is None:
            settled.pop((applicant_id, job_id), None)
        else:
            settled[applicant_id, job_id] = stands
    return settled


def real_answers(
    events: pa.Table, applicants: Collection[str], jobs: Collection[str], values: Mapping[Label, float]
) -> RealAnswers:
    """The answers from which the agents of `applicants` over the catalogue `jobs` can learn.

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
