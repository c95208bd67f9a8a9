"""Feedback and exposures of a folder store, in a subfolder of their own.

They have their own lock: the service that records clicks writes for months, while other processes ingest catalogues and
add judgements.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from dynaq.feedback.events import (
    AT,
    DECISION_SCHEMA,
    EXPOSURE_SCHEMA,
    FEEDBACK_SCHEMA,
    Decision,
    Exposure,
    FeedbackEvent,
    decision_row,
    event_row,
    exposure_row,
)
from dynaq.stores.event_log import KEY, EventLog
from dynaq.stores.segments import STORE_FILE, SegmentFolder

FOLDER = "events"


class FolderEvents:
    """The `FeedbackStore` of a folder. Raises InputError when another process is writing events to it."""

    def __init__(self, store: Path, *, read_only: bool = False) -> None:
        self._segments = SegmentFolder(store / FOLDER, create=True, read_only=read_only)
        self._feedback = EventLog(self._segments, "feedback", FEEDBACK_SCHEMA)
        self._exposures = EventLog(self._segments, "exposures", EXPOSURE_SCHEMA)
        self._decisions = EventLog(self._segments, "decisions", DECISION_SCHEMA)
        self._known: set[bytes] | None = None  # digests of the events' keys: 80 MB for a million

    @staticmethod
    def there(store: Path) -> bool:
        """Whether the store has ever had feedback or exposures."""
        return (store / FOLDER / STORE_FILE).exists()

    def add_feedback(self, events: Sequence[FeedbackEvent]) -> int:
        """Keep events and return how many were new."""
        self._segments.check_writable()
        if self._known is None:
            self._known = {_digest(key) for key in self._feedback.all_keys()}
        new: dict[bytes, FeedbackEvent] = {}
        for event in events:
            digest = _digest(event.key)
            if digest not in self._known:
                new.setdefault(digest, event)
        self._feedback.append([event_row(event) for event in new.values()])
        self._known.update(new)
        return len(new)

    def feedback(self, applicants: Sequence[str] | None = None) -> pa.Table:
        """Events, oldest first, with the columns of `FEEDBACK_SCHEMA`."""
        return select(self._feedback.table(), applicants)

    def add_exposures(self, exposures: Sequence[Exposure]) -> None:
        """Keep what applicants were shown; the first of a key wins."""
        # Repeated keys are dropped when the table is read: there are too many exposures to keep every key in memory.
        self._exposures.append([exposure_row(exposure) for exposure in exposures])

    def exposures(self, applicants: Sequence[str] | None = None) -> pa.Table:
        """Exposures, oldest first, with the columns of `EXPOSURE_SCHEMA`."""
        return select(self._exposures.table(), applicants)

    def add_decisions(self, decisions: Sequence[Decision]) -> None:
        """Keep what operators decided; the first of a key wins."""
        self._decisions.append([decision_row(decision) for decision in decisions])

    def decisions(self, applicants: Sequence[str] | None = None) -> pa.Table:
        """Decisions, oldest first, with the columns of `DECISION_SCHEMA`."""
        return select(self._decisions.table(), applicants)

    def forget_events(self, applicant_id: str) -> dict[str, int]:
        """Delete an applicant's events, exposures and decisions. Returns how many rows of each."""
        self._known = None  # it holds digests of the deleted keys
        return {
            name: log.delete("applicant_id", lambda values: pc.equal(values, applicant_id))
            for name, log in self._logs().items()
        }

    def expire_events(self, before: datetime) -> int:
        """Delete events and exposures older than a time. Returns how many rows."""
        self._known = None
        edge = pa.scalar(before, AT)
        return sum(log.delete("at", lambda values: pc.less(values, edge)) for log in (self._feedback, self._exposures))

    def _logs(self) -> dict[str, EventLog]:
        return {"feedback": self._feedback, "exposures": self._exposures, "decisions": self._decisions}

    def changes(self) -> None:
        """None: nobody else writes feedback to the folder."""

    def group(self, name: str, member: str, lease_seconds: float) -> None:
        """None: a folder allows one replica."""

    def close(self) -> None:
        """Turn the logs into segments and release the lock. Idempotent."""
        try:
            if not self._segments.closed:
                for log in self._logs().values():
                    log.settle()
        finally:
            self._segments.close(dict.fromkeys(self._logs(), (KEY,)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def select(table: pa.Table, applicants: Sequence[str] | None) -> pa.Table:
    """Rows of these applicants (None: of all), oldest first, ties by key."""
    if applicants is not None:
        table = table.filter(pc.is_in(table["applicant_id"], pa.array(list(applicants), pa.string())))
    return table.sort_by([("at", "ascending"), (KEY, "ascending")])


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()
