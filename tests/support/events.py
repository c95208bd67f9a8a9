"""Feedback events to log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dynaq.feedback.events import FeedbackEvent

START = datetime(2025, 3, 1, 12, 0, 5, 678_000, tzinfo=UTC)  # stores keep milliseconds


def event(
    key: str = "",
    applicant: str = "ann",
    job: str = "a",
    what: str = "apply",
    minute: int = 0,
    *,
    at: datetime | None = None,
    source: str = "page",
) -> FeedbackEvent:
    """What an applicant did with a job, `minute` after START unless `at` is given; the key is unique by default."""
    key = key or f"{applicant}-{job}-{what}-{minute}"
    return FeedbackEvent(applicant, job, what, at or START + timedelta(minutes=minute), source, key)
