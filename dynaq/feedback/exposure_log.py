"""From what people were shown and did to a log for off-policy evaluation.

An event belongs to the newest list that showed the pair before it; events without such a list (found elsewhere, or
imported) are answers to learn from, but say nothing about lists. A list earns the event that it led to and that stands
for the pair (`dynaq.feedback.answers.standing`); a job that was shown and not acted on earned 0. What stood already
when the list was shown is not credited again: a job that was saved earlier and is shown again, looked at again or saved
again earns nothing, since a list would else be praised for showing what an earlier one had found.

Lists that a preference ordered anew are left out: what a candidate would have made of the preference is not known.
Jobs that a person had applied to or declined by then are out of every ranking, as the service leaves them out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynaq.feedback.answers import EVENT_LABELS, HIDES, standing
from dynaq.feedback.events import Event, Exposure, exposures
from dynaq.feedback.exposure_policy import POOL
from dynaq.feedback.off_policy import Numbers, SlateLog
from dynaq.judging.judgement import Label

NEWEST = 20_000  # lists that are evaluated on; more make the interval no different

Ranked = Callable[[str], Sequence[str] | None]  # applicant → all jobs, best first; None without an agent


@dataclass(frozen=True)
class LoggedLists:
    """Lists that were shown, and what came of them.

    Args:
        exposures: as they were logged, by time.
        hidden: of each, the jobs that its applicant had settled by then.
        rewards: of each, by rank.
        with_preference, of_others, before: how many were left out: ordered by a preference, of applicants that are not
            asked for, from before the time.
        unshown_events: events that no list led to.
    """

    exposures: Sequence[Exposure]
    hidden: Sequence[frozenset[str]]
    rewards: Sequence[Sequence[float]]
    with_preference: int
    of_others: int
    before: int
    unshown_events: int

    def __len__(self) -> int:
        return len(self.exposures)

    def slates(self) -> tuple[SlateLog, dict[str, int]]:
        """The log in numbers, and job id → its number."""
        numbers: dict[str, int] = {}
        people: dict[str, int] = {}
        width = max((len(one.job_ids) for one in self.exposures), default=1)
        shown = np.full((len(self), width), -1, np.int64)
        propensities, rewards = np.ones((len(self), width)), np.zeros((len(self), width))
        for row, (one, earned) in enumerate(zip(self.exposures, self.rewards, strict=True)):
            k = len(one.job_ids)
            shown[row, :k] = [numbers.setdefault(job_id, len(numbers)) for job_id in one.job_ids]
            propensities[row, :k], rewards[row, :k] = one.propensities, earned
        person = [people.setdefault(one.applicant_id, len(people)) for one in self.exposures]
        return SlateLog(np.array(person, np.int64), shown, propensities, rewards), numbers

    def rankings(self, ranked: Ranked, numbers: dict[str, int]) -> Numbers:
        """What a policy would have drawn each list from, `[n, POOL]`; -1 throughout where it has no agent.

        numbers: of `slates`; jobs that no list showed get new ones.
        """
        deepest = POOL + max((len(hidden) for hidden in self.hidden), default=0)
        known: dict[str, list[str]] = {}
        result = np.full((len(self), POOL), -1, np.int64)
        for row, (one, hidden) in enumerate(zip(self.exposures, self.hidden, strict=True)):
            if one.applicant_id not in known:
                known[one.applicant_id] = list((ranked(one.applicant_id) or ())[:deepest])
            best = [job_id for job_id in known[one.applicant_id] if job_id not in hidden][:POOL]
            result[row, : len(best)] = [numbers.setdefault(job_id, len(numbers)) for job_id in best]
        return result


def logged_lists(
    shown: pa.Table,
    events: pa.Table,
    applicants: Collection[str],
    values: Mapping[Label, float],
    after: datetime | None = None,
) -> LoggedLists:
    """What the store's exposures and events say about lists.

    Args:
        shown: with the columns of EXPOSURE_SCHEMA.
        events: with those of FEEDBACK_SCHEMA.
        applicants: whose lists count.
        values: reward of each label.
        after: lists up to this time are left out; a candidate may have learned from what came of them.

    The newest NEWEST lists are taken.
    """
    ours = shown.filter(pc.is_in(shown.column("applicant_id"), pa.array(list(applicants), pa.string())))
    plain = ours.filter(pc.is_null(ours.column("preference")))
    recent = plain
    if after is not None:
        recent = plain.filter(pc.greater(plain.column("at"), pa.scalar(after, plain.schema.field("at").type)))
    newest = recent.sort_by([("at", "ascending"), ("key", "ascending")])[-NEWEST:]
    kept = list(exposures(newest))
    hidden, rewards, unshown = _outcomes(kept, events, values)
    return LoggedLists(
        kept,
        hidden,
        rewards,
        with_preference=ours.num_rows - plain.num_rows,
        of_others=shown.num_rows - ours.num_rows,
        before=plain.num_rows - recent.num_rows,
        unshown_events=unshown,
    )


def _outcomes(
    shown: Sequence[Exposure], events: pa.Table, values: Mapping[Label, float]
) -> tuple[list[frozenset[str]], list[list[float]], int]:
    """What was settled before each list, what each earned, and the number of events that no list led to."""
    lists: dict[str, list[int]] = {}
    for row, one in enumerate(shown):
        lists.setdefault(one.applicant_id, []).append(row)
    earlier: list[list[Event | None]] = [[] for _ in shown]  # by rank, what stood when the list was shown
    led_to: list[list[Event | None]] = [[None] * len(one.job_ids) for one in shown]
    hidden: list[frozenset[str]] = [frozenset()] * len(shown)
    done: dict[str, dict[str, Event]] = {}
    reached = dict.fromkeys(lists, 0)  # lists of each applicant that the events have come past
    unshown = 0
    places = {(row, job_id): rank for row, one in enumerate(shown) for rank, job_id in enumerate(one.job_ids)}
    times = {applicant_id: [shown[row].at for row in rows] for applicant_id, rows in lists.items()}

    def come_past(applicant_id: str, count: int) -> None:
        settled = done.get(applicant_id, {})
        for row in lists[applicant_id][reached[applicant_id] : count]:
            earlier[row] = [settled.get(job_id) for job_id in shown[row].job_ids]
            hidden[row] = frozenset(job_id for job_id, event in settled.items() if event in HIDES)
        reached[applicant_id] = max(count, reached[applicant_id])

    for applicant_id, job_id, event, at in _by_time(events):
        if applicant_id not in lists:
            continue
        seen = bisect_right(times[applicant_id], at)
        come_past(applicant_id, seen)
        own = done.setdefault(applicant_id, {})
        own[job_id] = standing(own.get(job_id), event)
        led = next(((row, job_id) for row in reversed(lists[applicant_id][:seen]) if (row, job_id) in places), None)
        if led is None:
            unshown += 1
            continue
        row, rank = led[0], places[led]
        led_to[row][rank] = None if own[job_id] == earlier[row][rank] else own[job_id]
    for applicant_id, rows in lists.items():
        come_past(applicant_id, len(rows))
    rewards = [[0.0 if event is None else values[EVENT_LABELS[event]] for event in row] for row in led_to]
    return hidden, rewards, unshown


def _by_time(events: pa.Table) -> Iterator[tuple[str, str, Event, datetime]]:
    ordered = events.sort_by([("at", "ascending"), ("key", "ascending")])
    columns = (ordered.column(name).to_pylist() for name in ("applicant_id", "job_id", "event", "at"))
    return zip(*columns, strict=True)
