"""Which list an event belongs to, what a list earned, and what could have been on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from dynaq.feedback.events import (
    EXPOSURE_SCHEMA,
    FEEDBACK_SCHEMA,
    REMEMBERED,
    Event,
    Exposure,
    FeedbackEvent,
    event_row,
    exposure_row,
)
from dynaq.feedback.exposure_log import LoggedLists, logged_lists
from dynaq.judging.judgement import LABEL_VALUES

START = datetime(2025, 3, 1, 12, tzinfo=UTC)


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def shown(minute: int, *jobs: str, applicant: str = "ann", preference: str | None = None) -> Exposure:
    return Exposure(applicant, f"{applicant}-{minute}", at(minute), jobs, (0.5,) * len(jobs), "run-1", preference)


def did(minute: int, event: Event, job: str, applicant: str = "ann") -> FeedbackEvent:
    return FeedbackEvent(applicant, job, event, at(minute), "test", f"{applicant}-{job}-{event}-{minute}")


def logged(lists: Sequence[Exposure], events: Sequence[FeedbackEvent], after: int | None = None) -> LoggedLists:
    return logged_lists(
        pa.Table.from_pylist([exposure_row(one) for one in lists], schema=EXPOSURE_SCHEMA),
        pa.Table.from_pylist([event_row(one) for one in events], schema=FEEDBACK_SCHEMA),
        ["ann", "bob"],
        LABEL_VALUES,
        None if after is None else at(after),
    )


def test_an_event_belongs_to_the_newest_list_that_showed_the_job_before_it() -> None:
    lists = [shown(0, "a", "b"), shown(10, "b", "c"), shown(20, "c", "a")]
    found = logged(lists, [did(12, "apply", "a"), did(15, "save", "b"), did(25, "ignore", "c")])
    assert found.rewards == [[1.0, 0.0], [0.5, 0.0], [-0.1, 0.0]]
    assert found.unshown_events == 0


def test_of_several_events_in_one_list_the_one_that_stands_counts() -> None:
    events = [did(1, "click", "a"), did(2, "save", "a"), did(3, "click", "a"), did(4, "ignore", "b")]
    assert logged([shown(0, "a", "b")], events).rewards == [[0.5, -0.1]]


def test_an_earlier_save_is_credited_once_to_the_list_that_led_to_it() -> None:
    lists = [shown(0, "a", "b"), shown(10, "b", "a"), shown(20, "a"), shown(30, "a"), shown(40, "a")]
    again = [did(15, "click", "a"), did(25, "save", "a"), did(35, "ignore", "a")]
    found = logged(lists, [did(1, "save", "a"), *again])
    assert found.rewards == [[0.5, 0.0], [0.0, 0.0], [0.0], [-0.1], [0.0]]


def test_what_follows_an_earlier_save_is_credited_to_the_list_that_led_to_it() -> None:
    lists = [shown(0, "a", "b"), shown(10, "b", "a")]
    found = logged(lists, [did(1, "save", "a"), did(2, "click", "b"), did(15, "apply", "a"), did(16, "save", "b")])
    assert found.rewards == [[0.5, 0.0], [0.5, 1.0]]


def test_a_save_from_elsewhere_is_credited_to_no_list() -> None:
    found = logged([shown(10, "a"), shown(20, "a")], [did(5, "save", "a"), did(11, "click", "a")])
    assert (found.rewards, found.unshown_events) == ([[0.0], [0.0]], 1)


def test_what_was_taken_back_was_earned_by_no_list_and_hides_nothing() -> None:
    lists = [shown(0, "a"), shown(10, "a"), shown(20, "b")]
    found = logged(lists, [did(1, "save", "a"), did(11, "ignore", "a"), did(15, "undo", "a")])
    assert found.rewards == [[0.0], [0.0], [0.0]]
    assert found.hidden == [frozenset()] * 3


def test_a_change_of_mind_within_a_list_that_ends_where_it_began_earns_nothing() -> None:
    lists = [shown(0, "a"), shown(10, "a")]
    found = logged(lists, [did(1, "save", "a"), did(11, "ignore", "a"), did(12, "save", "a")])
    assert found.rewards == [[0.5], [0.0]]


def test_events_without_a_list_earn_nothing_and_are_counted() -> None:
    found = logged([shown(10, "a")], [did(5, "click", "a"), did(11, "apply", "z")])
    assert found.rewards == [[0.0]]
    assert found.unshown_events == 2


def test_what_was_settled_before_a_list_could_not_have_been_on_it() -> None:
    lists = [shown(0, "a", "b"), shown(10, "b", "c"), shown(20, "c")]
    events = [did(1, "ignore", "a"), did(2, "save", "b"), did(10, "apply", "c"), did(30, "apply", "b")]
    found = logged(lists, events)
    assert found.hidden == [frozenset(), frozenset("a"), frozenset("ac")]
    log, numbers = found.slates()
    rankings = found.rankings(lambda applicant: ["c", "a", "b", "d"], numbers)
    assert [[number for number in row if number >= 0] for row in rankings.tolist()] == [
        [numbers[job] for job in "cabd"],
        [numbers[job] for job in "cbd"],
        [numbers[job] for job in "bd"],
    ]
    assert log.shown.tolist() == [[0, 1], [1, 2], [2, -1]]


def test_left_out_are_lists_by_preference_of_others_and_from_before() -> None:
    lists = [
        shown(0, "a"),
        shown(5, "a"),
        shown(6, "a", preference="remote"),
        shown(7, "a", applicant="eve"),
        shown(8, "b", applicant="bob"),
    ]
    found = logged(lists, [did(9, "apply", "b", applicant="bob")], after=5)
    assert (found.with_preference, found.of_others, found.before) == (1, 1, 2)
    assert [one.applicant_id for one in found.exposures] == ["bob"]
    assert found.rewards == [[1.0]]


def test_what_a_list_led_to_that_is_left_out_is_credited_to_no_list_before_it() -> None:
    by_history = replace(shown(10, "a", "b"), policy=REMEMBERED)
    found = logged([shown(0, "a", "b"), by_history], [did(5, "click", "b"), did(11, "apply", "a")])
    assert (len(found), found.with_preference, found.rewards) == (1, 1, [[0.0, 0.0]])
    assert found.unshown_events == 0


def test_someone_without_an_agent_has_no_ranking_and_no_lists_are_no_log() -> None:
    found = logged([shown(0, "a")], [])
    _, numbers = found.slates()
    assert (found.rankings(lambda applicant: None, numbers) == -1).all()
    log, _ = logged([], []).slates()
    assert len(log) == 0
    assert log.shown.dtype == np.int64
