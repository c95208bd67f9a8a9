"""Turns exposures and feedback events into a log for off-policy evaluation.

An event is credited to the newest list that showed the pair before it. Events without such a list (the job was found
elsewhere, or the event imported) are answers to learn from, but say nothing about lists. A list earns the reward of the
event that it led to and that stands for the pair (`dynaq.feedback.answers.standing`); a job without an event, or with
one that was taken back, earns 0.
An event that stood when the list was shown is not credited again: saving or opening a job that is already saved earns
nothing, because otherwise a list would be rewarded for repeating what an earlier one had found.

Lists re-ranked by a preference, changed by an operator's decision, or in which the applicant's history counted, are
left out, because it is unknown what the new policy would have made of them; what they led to is credited to no list
before them. Jobs to which the applicant had applied, or that they had declined, when a list was shown are removed from
the new policy's ranking as well, as the service does.
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
from dynaq.feedback.events import OVERSEEN, REMEMBERED, Event, Exposure, exposures
from dynaq.feedback.exposure_policy import POOL
from dynaq.feedback.off_policy import Numbers, SlateLog
from dynaq.judging.judgement import Label

NEWEST = 20_000  # number of lists to look at; more would not narrow the interval noticeably
OF_RANKING = "plain"  # column: whether a list is the ranking's own

Ranked = Callable[[str], Sequence[str] | None]  # applicant → all jobs, best first; None if there is no agent


@dataclass(frozen=True)
class LoggedLists:
    """Lists that were shown, and what they earned.

    Args:
        exposures: the lists as logged, by time.
        hidden: for each list, the jobs that its applicant had applied to, been hired for or declined by then.
        rewards: for each list, the reward at each rank.
        with_preference, of_others, before: number of lists left out because a preference, an operator or the
            applicant's history changed them, because their applicant was not requested, or because they were shown too
            early.
        unshown_events: number of events that no list led to.
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
        """The log with jobs and applicants numbered from 0, and job id → its number."""
        numbers: dict[str, int] = {}
        applicants: dict[str, int] = {}
        width = max((len(one.job_ids) for one in self.exposures), default=1)
        shown = np.full((len(self), width), -1, np.int64)
        propensities, rewards = np.ones((len(self), width)), np.zeros((len(self), width))
        for row, (one, earned) in enumerate(zip(self.exposures, self.rewards, strict=True)):
            k = len(one.job_ids)
            shown[row, :k] = [numbers.setdefault(job_id, len(numbers)) for job_id in one.job_ids]
            propensities[row, :k], rewards[row, :k] = one.propensities, earned
        of_list = [applicants.setdefault(one.applicant_id, len(applicants)) for one in self.exposures]
        return SlateLog(np.array(of_list, np.int64), shown, propensities, rewards), numbers

    def rankings(self, ranked: Ranked, numbers: dict[str, int]) -> Numbers:
        """The ranking from which a policy would have drawn each list, `[n, POOL]`; -1 throughout without an agent.

        numbers: those of `slates`; jobs that no list showed are added.
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
    """The newest NEWEST lists of a store's exposures, with what they earned.

    Args:
        shown: with the columns of EXPOSURE_SCHEMA.
        events: with the columns of FEEDBACK_SCHEMA.
        applicants: applicants whose lists are used.
        values: reward of each label.
        after: lists shown up to this time are left out, because the new policy may have learned from their events.
    """
    ours = shown.filter(pc.is_in(shown.column("applicant_id"), pa.array(list(applicants), pa.string())))
    changed = pc.is_in(ours.column("policy"), pa.array([OVERSEEN, REMEMBERED]))
    of_ranking = pc.and_(pc.is_null(ours.column("preference")), pc.invert(changed))
    total = ours.num_rows
    ours, plain = ours.append_column(OF_RANKING, of_ranking), ours.filter(of_ranking)
    recent = plain
    if after is not None:
        since = pa.scalar(after, plain.schema.field("at").type)
        recent = plain.filter(pc.greater(plain.column("at"), since))
        ours = ours.filter(pc.greater(ours.column("at"), since))
    newest = ours.sort_by([("at", "ascending"), ("key", "ascending")])[-NEWEST:]
    every = list(exposures(newest.drop_columns([OF_RANKING])))
    kept = np.flatnonzero(newest.column(OF_RANKING).to_numpy()).tolist()
    hidden, rewards, unshown = _outcomes(every, events, values)
    return LoggedLists(
        [every[row] for row in kept],
        [hidden[row] for row in kept],
        [rewards[row] for row in kept],
        with_preference=total - plain.num_rows,
        of_others=shown.num_rows - total,
        before=plain.num_rows - recent.num_rows,
        unshown_events=unshown,
    )


def _outcomes(
    shown: Sequence[Exposure], events: pa.Table, values: Mapping[Label, float]
) -> tuple[list[frozenset[str]], list[list[float]], int]:
    """The jobs hidden from each list, its reward at each rank, and the number of events that no list led to."""
    lists: dict[str, list[int]] = {}
    for row, one in enumerate(shown):
        lists.setdefault(one.applicant_id, []).append(row)
    earlier: list[list[Event | None]] = [[] for _ in shown]  # by rank, the standing event when the list was shown
    led_to: list[list[Event | None]] = [[None] * len(one.job_ids) for one in shown]
    hidden: list[frozenset[str]] = [frozenset()] * len(shown)
    done: dict[str, dict[str, Event | None]] = {}
    reached = dict.fromkeys(lists, 0)  # applicant → number of their lists shown before the event being processed
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
        if own[job_id] is None:  # taken back, so no list earned anything with it
            for row in lists[applicant_id][:seen]:
                if (row, job_id) in places:
                    led_to[row][places[row, job_id]] = None
            continue
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
