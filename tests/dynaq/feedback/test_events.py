"""What an event and an exposure may be."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dynaq.errors import InputError
from dynaq.feedback.events import MAX_TEXT, Exposure, FeedbackEvent

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVENT = {"applicant_id": "a", "job_id": "j", "event": "apply", "at": NOW, "source": "page", "key": "k"}
SHOWN = {
    "applicant_id": "a",
    "key": "k",
    "at": NOW,
    "job_ids": ("1", "2"),
    "propensities": (1.0, 0.5),
    "policy": "run",
}


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("applicant_id", "", "applicant_id is empty"),
        ("job_id", None, "job_id is empty"),
        ("key", "k" * (MAX_TEXT + 1), "key has 513 characters"),
        ("source", "\ud800", "source.*surrogate"),
        ("event", "APPLY", "'APPLY' is not one of apply"),
        ("at", datetime(2026, 3, 1), "no time zone"),
        ("at", datetime.fromisoformat("0001-01-01T00:00:00+14:00"), "no date in UTC"),
    ],
)
def test_an_event_that_is_none_names_its_field(field: str, value: object, reason: str) -> None:
    FeedbackEvent(**EVENT)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=reason):
        FeedbackEvent(**EVENT | {field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("job_ids", (), "0 jobs were shown"),
        ("job_ids", ("1", ""), "job_ids is empty"),
        ("propensities", (1.0,), "1 propensities for 2 jobs"),
        ("propensities", (1.0, 0.0), "above 0"),
        ("propensities", (1.0, float("nan")), "above 0"),
        ("propensities", (1.0, 1.1), "not above 1"),
        ("policy", "", "policy is empty"),
        ("preference", "x" * 2001, "longer than 2000"),
    ],
)
def test_an_exposure_that_is_none_names_its_field(field: str, value: object, reason: str) -> None:
    Exposure(**SHOWN)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=reason):
        Exposure(**SHOWN | {field: value})  # type: ignore[arg-type]
