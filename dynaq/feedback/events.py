"""What applicants were shown, and what they did with it.

An event is a fact about one pair: the applicant applied, saved, looked, declined, was hired, or took back what they had
said. An exposure is a list that was shown, with the probability that the logging policy gave to each job at its rank.
Without exposures, a job that was never seen could not be told from a job that was not liked (Bottou et al. 2013,
counterfactual reasoning and learning systems).

Both carry an idempotency key, so that a caller who is unsure whether a write arrived can repeat it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import pyarrow as pa

from dynaq.errors import InputError

Event = Literal["apply", "save", "click", "ignore", "hire", "undo"]
EVENTS: tuple[Event, ...] = get_args(Event)
WARM_START = "warm-start"  # the policy of applicants who have no agent yet
OVERSEEN = "overseen"  # the policy of lists that an operator's decision changed, which say nothing about a ranking
REMEMBERED = "remembered"  # the policy of lists in which the applicant's own history counts, which say nothing either

MAX_TEXT = 512  # characters of an id, a key, a source or a policy
MAX_PREFERENCE = 2000  # characters
MAX_SHOWN = 1000  # jobs per exposure

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

Action = Literal["block", "pin", "clear"]
ACTIONS: tuple[Action, ...] = get_args(Action)
DECISION_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("applicant_id", pa.string()),
        ("job_id", pa.string()),
        ("action", pa.string()),
        ("at", AT),
        ("operator", pa.string()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class FeedbackEvent:
    """One action of one applicant on one job.

    Args:
        applicant_id, job_id: the pair.
        event: one of EVENTS.
        at: when, with a time zone; kept in UTC to the millisecond, MongoDB's resolution.
        source: what observed it, e.g. the page or an import.
        key: idempotency key; an event whose key is already in the store is not stored again.

    Raises InputError naming the invalid field.
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
    """One list of jobs that one applicant was shown.

    Args:
        applicant_id: the applicant.
        key: idempotency key.
        at: when, as in FeedbackEvent.
        job_ids: in the order shown.
        propensities: probability in (0, 1] with which the logging policy shows each job at its rank.
        policy: id of the run whose agent ranked the jobs, WARM_START, OVERSEEN or REMEMBERED.
        preference: the free text by which the list was re-ranked, or None.

    Raises InputError naming the invalid field.
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


@dataclass(frozen=True, slots=True)
class Decision:
    """What an operator decided about one job for one applicant. Decisions are only added, so that they are their log.

    Args:
        applicant_id, job_id: the pair.
        action: block (never list the job), pin (list it first) or clear (undo both); the latest of a pair counts.
        at, key: as in FeedbackEvent.
        operator: who decided.
        reason: why.

    Raises InputError naming the invalid field.
    """

    applicant_id: str
    job_id: str
    action: Action
    at: datetime
    operator: str
    reason: str
    key: str

    def __post_init__(self) -> None:
        for name in ("applicant_id", "job_id", "operator", "key"):
            _check_text("decision", name, getattr(self, name))
        _check_text("decision", "reason", self.reason, empty=True)
        if self.action not in ACTIONS:
            raise InputError(f"decision: action {self.action!r} is not one of {', '.join(ACTIONS)}")
        object.__setattr__(self, "at", _utc("decision", self.at))


def event_row(event: FeedbackEvent) -> dict[str, Any]:
    """The event as a row with the columns of FEEDBACK_SCHEMA."""
    return {name: getattr(event, name) for name in FEEDBACK_SCHEMA.names}


def exposure_row(exposure: Exposure) -> dict[str, Any]:
    """The exposure as a row with the columns of EXPOSURE_SCHEMA."""
    row = {name: getattr(exposure, name) for name in EXPOSURE_SCHEMA.names}
    return row | {"job_ids": list(exposure.job_ids), "propensities": list(exposure.propensities)}


def decision_row(decision: Decision) -> dict[str, Any]:
    """The decision as a row with the columns of DECISION_SCHEMA."""
    return {name: getattr(decision, name) for name in DECISION_SCHEMA.names}


def events(table: pa.Table) -> Iterator[FeedbackEvent]:
    """Records of a table with the columns of FEEDBACK_SCHEMA."""
    return (FeedbackEvent(**row) for row in _rows(table))


def decisions(table: pa.Table) -> Iterator[Decision]:
    """Records of a table with the columns of DECISION_SCHEMA."""
    return (Decision(**row) for row in _rows(table))


def exposures(table: pa.Table) -> Iterator[Exposure]:
    """Records of a table with the columns of EXPOSURE_SCHEMA."""
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
