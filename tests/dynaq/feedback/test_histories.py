"""What a judge with memory is told: the events that stand, newest first, bounded, and none from after a time."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa

from dynaq.feedback.events import FEEDBACK_SCHEMA, FeedbackEvent, event_row
from dynaq.feedback.histories import histories
from dynaq.judging.history import History
from tests.support.events import START, event

NOW = START + timedelta(days=40)


def found(*done: FeedbackEvent, size: int = 5) -> dict[str, History]:
    table = pa.Table.from_pylist([event_row(one) for one in done], schema=FEEDBACK_SCHEMA)
    return histories(table, ["ann", "bob"], ["a", "b", "c", "d"], size, NOW)


def short(history: History) -> list[tuple[str, str, str]]:
    return [(one.event, one.job_id, one.ago) for one in history]


def test_the_newest_come_first_in_coarse_times() -> None:
    told = found(
        event(job="a", what="apply", at=START),
        event(job="b", what="save", at=NOW - timedelta(days=20)),
        event(job="c", what="ignore", at=NOW - timedelta(days=3)),
        event(job="d", what="click", at=NOW - timedelta(hours=2)),
    )
    assert list(told) == ["ann"]
    assert short(told["ann"]) == [
        ("click", "d", "today"),
        ("ignore", "c", "this week"),
        ("save", "b", "this month"),
        ("apply", "a", "earlier"),
    ]


def test_a_history_is_bounded() -> None:
    done = [event(job=job, minute=minute) for minute, job in enumerate("abcd")]
    assert [one.job_id for one in found(*done, size=2)["ann"]] == ["d", "c"]


def test_the_event_that_stands_is_told_and_what_was_taken_back_is_not() -> None:
    told = found(
        event(job="a", what="save", minute=0),
        event(job="a", what="apply", minute=1),
        event(job="a", what="click", minute=2),
        event(job="b", what="ignore", minute=3),
        event(job="b", what="undo", minute=4),
    )
    assert short(told["ann"]) == [("apply", "a", "earlier")]


def test_what_comes_later_and_what_nobody_knows_is_not_told() -> None:
    assert found(event(job="a", at=NOW), event(job="zzz"), event(applicant="eve", job="a")) == {}


def test_the_order_of_arrival_does_not_matter() -> None:
    done = [event(job=job, minute=1) for job in "abcd"]
    assert found(*done) == found(*reversed(done))
