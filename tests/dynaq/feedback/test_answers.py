"""Events of real people as answers: one per pair, whatever they did in whatever order it arrived."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pyarrow as pa
import pytest

from dynaq.feedback.answers import KEPT, REAL, RealAnswers, StandingEvents, real_answers
from dynaq.feedback.events import (
    EVENTS,
    EXPOSURE_SCHEMA,
    FEEDBACK_SCHEMA,
    Event,
    Exposure,
    FeedbackEvent,
    event_row,
    exposure_row,
)
from dynaq.feedback.exposure_log import logged_lists
from dynaq.judging.judgement import LABEL_VALUES
from dynaq.judging.ledger_file import judgements
from tests.support.events import START, event

STANDS: Mapping[tuple[Event, Event], Event | None] = {
    ("hire", "hire"): "hire",
    ("hire", "apply"): "hire",
    ("hire", "save"): "hire",
    ("hire", "click"): "hire",
    ("hire", "ignore"): "hire",
    ("apply", "hire"): "hire",
    ("apply", "apply"): "apply",
    ("apply", "save"): "apply",
    ("apply", "click"): "apply",
    ("apply", "ignore"): "apply",
    ("save", "hire"): "hire",
    ("save", "apply"): "apply",
    ("save", "save"): "save",
    ("save", "click"): "save",
    ("save", "ignore"): "ignore",
    ("ignore", "hire"): "hire",
    ("ignore", "apply"): "apply",
    ("ignore", "save"): "save",
    ("ignore", "click"): "ignore",
    ("ignore", "ignore"): "ignore",
    ("click", "hire"): "hire",
    ("click", "apply"): "apply",
    ("click", "save"): "save",
    ("click", "click"): "click",
    ("click", "ignore"): "ignore",
    ("hire", "undo"): "hire",
    ("apply", "undo"): None,
    ("save", "undo"): None,
    ("ignore", "undo"): None,
    ("click", "undo"): None,
    ("undo", "apply"): "apply",
    ("undo", "undo"): None,
}


def table(events: Sequence[FeedbackEvent]) -> pa.Table:
    return pa.Table.from_pylist([event_row(one) for one in events], schema=FEEDBACK_SCHEMA)


def answers(events: Sequence[FeedbackEvent], jobs: Sequence[str] = ("a", "b")) -> RealAnswers:
    return real_answers(table(events), ["ann", "bob"], jobs, LABEL_VALUES)


@pytest.mark.parametrize(
    ("events", "label"),
    [
        (["hire"], "APPLY"),
        (["apply"], "APPLY"),
        (["save"], "SAVE"),
        (["click"], "CLICK"),
        (["ignore"], "IGNORE"),
        (["click", "save", "apply"], "APPLY"),
        (["apply", "click"], "APPLY"),
        (["apply", "ignore"], "APPLY"),
        (["apply", "hire", "ignore"], "APPLY"),
        (["hire", "apply"], "APPLY"),
        (["save", "ignore"], "IGNORE"),
        (["ignore", "save"], "SAVE"),
        (["ignore", "apply"], "APPLY"),
        (["save", "click"], "SAVE"),
        (["ignore", "click"], "IGNORE"),
        (["click", "click", "click"], "CLICK"),
        (["apply", "undo", "click"], "CLICK"),
        (["ignore", "undo", "save"], "SAVE"),
    ],
)
def test_several_events_on_a_pair_are_one_answer(events: list[str], label: str) -> None:
    logged = [event(what=what, minute=minute) for minute, what in enumerate(events)]
    for arrived in itertools.permutations(logged):
        (answer,) = judgements(answers(arrived).answers)
        assert (answer.label, answer.reward, answer.judge) == (label, LABEL_VALUES[label], REAL)
        assert max(answer.probabilities) == 1.0


def test_events_of_the_same_time_are_taken_by_key() -> None:
    both = [event("1", what="ignore"), event("2")]
    for arrived in (both, both[::-1]):
        assert answers(arrived).answers.column("label").to_pylist() == ["APPLY"]


def test_jobs_that_left_the_catalogue_are_passed_over_and_counted() -> None:
    found = answers([event(), event(job="gone", minute=1), event(job="gone", what="click", minute=2)])
    assert found.answers.column("job_id").to_pylist() == ["a"]
    assert (found.events, found.unknown_jobs, found.unknown_applicants) == (3, 2, 0)
    assert found.until == START


def test_people_outside_of_the_cohort_are_passed_over_and_counted() -> None:
    found = answers([event(), event(applicant="eve", minute=1)])
    assert found.answers.column("applicant_id").to_pylist() == ["ann"]
    assert found.unknown_applicants == 1


def test_of_very_many_answers_the_newest_are_kept() -> None:
    jobs = [f"j{i}" for i in range(KEPT + 3)]
    found = answers([event(job=job, what="click", minute=minute) for minute, job in enumerate(jobs)], jobs)
    assert found.older == 3
    assert found.answers.column("job_id").to_pylist() == jobs[3:]


def test_no_events_are_no_answers() -> None:
    found = answers([])
    assert (found.answers.num_rows, found.until) == (0, None)


@pytest.mark.parametrize(("before", "after"), STANDS)
def test_service_training_and_off_policy_agree_on_what_stands(before: Event, after: Event) -> None:
    """If they disagreed, a list would leave out a job that off-policy evaluation assumes it could have shown."""
    done = [event(what=before), event(what=after, minute=1)]
    stands = STANDS[before, after]
    expected = {} if stands is None else {"a": stands}
    assert answers(done).answers.column("note").to_pylist() == list(expected.values())
    for arrived in (done, done[::-1]):
        live = StandingEvents()
        live.add(arrived)
        assert live.of_applicant("ann") == StandingEvents.of(table(arrived)).of_applicant("ann") == expected
    assert live.of_applicant("bob") == {}
    shown = Exposure("ann", "list", START + timedelta(minutes=2), ("b",), (1.0,), "run-1")
    lists = pa.Table.from_pylist([exposure_row(shown)], schema=EXPOSURE_SCHEMA)
    (hidden,) = logged_lists(lists, table(done), ["ann"], LABEL_VALUES).hidden
    assert hidden == ({"a"} if stands in ("hire", "apply", "ignore") else set())


def test_what_stands_does_not_depend_on_the_order_of_arrival() -> None:
    for kinds in itertools.product(EVENTS, repeat=3):
        done = [event(str(minute), what=kind, minute=minute // 2) for minute, kind in enumerate(kinds)]
        expected = answers(done).answers.column("note").to_pylist()
        for arrived in itertools.permutations(done):
            live = StandingEvents()
            live.add(arrived)
            assert list(live.of_applicant("ann").values()) == expected, (kinds, arrived)
