"""What people did with the jobs they were shown, and what they were shown.

An event is a fact about one pair: somebody applied, saved, looked, declined or was hired. An exposure is a list that
was shown, with the probability that the logging policy gave to each job at its rank: without it a job that nobody saw
could not be told from a job that nobody liked (Bottou et al. 2013, counterfactual reasoning and learning systems).

Both are keyed, so that whoever is not sure whether a write arrived can repeat it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import pyarrow as pa

from dynaq.errors import InputError

Event = Literal["apply", "save", "click", "ignore", "hire"]
EVENTS: tuple[Event, ...] = get_args(Event)
WARM_START = "warm-start"  # the policy of applicants who have no agent yet

MAX_TEXT = 512  # characters of an id, a key, a source, a policy
MAX_PREFERENCE = 2000
MAX_SHOWN = 1000  # jobs of one exposure

AT = pa.timestamp("us", tz="UTC")
FEEDBACK_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("applicant_id", pa.string()),
        ("job_id", pa.string()),
        ("event", pa.string()),
        ("at", AT),
        ("source", pa.string()),
    ]
)
EXPOSURE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("applicant_id", pa.string()),
        ("at", AT),
        ("job_ids", pa.list_(pa.string())),
        ("propensities", pa.list_(pa.float64())),
        ("policy", pa.string()),
        ("preference", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class FeedbackEvent:
    """One thing that one person did with one job.

    Args:
        applicant_id, job_id: the pair.
        event: one of EVENTS.
        at: when, with a time zone; kept in UTC to the millisecond, which is what MongoDB keeps.
        source: what observed it, e.g. the page or an import.
        key: idempotency key; an event whose key the store has is not stored again.

    Raises InputError naming the field.
    """

    applicant_id: str
    job_id: str
    event: Event
    at: datetime
    source: str
    key: str

    def __post_init__(self) -> None:
        for name in ("applicant_id", "job_id", "key"):
            _check_text("feedback", name, getattr(self, name))
        _check_text("feedback", "source", self.source, empty=True)
        if self.event not in EVENTS:
            raise InputError(f"feedback: event {self.event!r} is not one of {', '.join(EVENTS)}")
        object.__setattr__(self, "at", _utc("feedback", self.at))


@dataclass(frozen=True, slots=True)
class Exposure:
    """One list of jobs that one person was shown.

    Args:
        applicant_id: who saw it.
        key: idempotency key.
        at: when, as in FeedbackEvent.
        job_ids: in shown order.
        propensities: probability in (0, 1] with which the logging policy shows that job at that rank.
        policy: id of the run whose agent ranked, or WARM_START.
        preference: the free text it was re-ranked by, or None.

    Raises InputError naming the field.
    """

    applicant_id: str
    key: str
    at: datetime
    job_ids: tuple[str, ...]
    propensities: tuple[float, ...]
    policy: str
    preference: str | None = None

    def __post_init__(self) -> None:
        for name in ("applicant_id", "key", "policy"):
            _check_text("exposure", name, getattr(self, name))
        if not 0 < len(self.job_ids) <= MAX_SHOWN:
            raise InputError(f"exposure: {len(self.job_ids)} jobs were shown; 1 to {MAX_SHOWN} can be kept")
        for job_id in self.job_ids:
            _check_text("exposure", "job_ids", job_id)
        if len(self.propensities) != len(self.job_ids):
            raise InputError(f"exposure: {len(self.propensities)} propensities for {len(self.job_ids)} jobs")
        if not all(math.isfinite(p) and 0.0 < p <= 1.0 for p in self.propensities):
            raise InputError("exposure: propensities must lie above 0 and not above 1")
        if self.preference is not None:
            if len(self.preference) > MAX_PREFERENCE:
                raise InputError(f"exposure: preference is longer than {MAX_PREFERENCE} characters")
            _check_unicode("exposure", "preference", self.preference)
        object.__setattr__(self, "at", _utc("exposure", self.at))
        object.__setattr__(self, "job_ids", tuple(self.job_ids))
        object.__setattr__(self, "propensities", tuple(self.propensities))


def event_row(event: FeedbackEvent) -> dict[str, Any]:
    """By the names of FEEDBACK_SCHEMA."""
    return {name: getattr(event, name) for name in FEEDBACK_SCHEMA.names}


def exposure_row(exposure: Exposure) -> dict[str, Any]:
    """By the names of EXPOSURE_SCHEMA."""
    row = {name: getattr(exposure, name) for name in EXPOSURE_SCHEMA.names}
    return row | {"job_ids": list(exposure.job_ids), "propensities": list(exposure.propensities)}


def events(table: pa.Table) -> Iterator[FeedbackEvent]:
    """Rows with the columns of FEEDBACK_SCHEMA as records."""
    return (FeedbackEvent(**row) for row in _rows(table))


def exposures(table: pa.Table) -> Iterator[Exposure]:
    """Rows with the columns of EXPOSURE_SCHEMA as records."""
    return (
        Exposure(**row | {"job_ids": tuple(row["job_ids"]), "propensities": tuple(row["propensities"])})
        for row in _rows(table)
    )


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


def _check_text(what: str, name: str, value: str, *, empty: bool = False) -> None:
    if not isinstance(value, str) or (not value and not empty):
        raise InputError(f"{what}: {name} is empty; it must be text")
    if len(value) > MAX_TEXT:
        raise InputError(f"{what}: {name} has {len(value)} characters; at most {MAX_TEXT} are allowed")
    _check_unicode(what, name, value)


def _check_unicode(what: str, name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{what}: {name} {value[:40]!r} holds half of a surrogate pair, which is no text") from None


def _utc(what: str, at: datetime) -> datetime:
    if at.tzinfo is None:
        raise InputError(f"{what}: at {at.isoformat()} has no time zone; write e.g. 2026-03-01T12:00:00Z")
    try:
        at = at.astimezone(UTC)
    except OverflowError:
        raise InputError(f"{what}: at {at.isoformat()} is no date in UTC") from None
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
