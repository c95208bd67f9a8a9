"""People's rights in the service: erasure, export, retention; and what operators decide.

Erasing takes a store's records, and the runs that serve or served; memory is the service's own to clear.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from dynaq.errors import DynaqError
from dynaq.feedback.answers import StandingEvents
from dynaq.feedback.events import Decision, decision_row
from dynaq.rights.export import NothingHeld, export_person
from dynaq.rights.forgetting import forget_in_folder
from dynaq.rights.record import erased_at, holds_applicant, note_erasure
from dynaq.runs.folder import RunFolder
from dynaq.stores import FeedbackStore, Store, open_store
from recommend_service.config import RecommendConfig
from recommend_service.oversight import Decisions
from recommend_service.problems import Problem
from recommend_service.promotions import ServingFolder
from recommend_service.recorder import Overloaded, Recorder
from recommend_service.schemas import DecisionIn, Erasure

T = TypeVar("T")

REMAINING = (
    "other run folders and pre-trained networks (dynaq forget --runs), input files, backups, what other programs keep"
)


class Erased:
    """Applicants who were erased while the catalogue in memory may still have them; it keeps hashes, not ids."""

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._hashes: set[bytes] = set()

    def __contains__(self, applicant_id: str) -> bool:
        return bool(self._hashes) and self._hash(applicant_id) in self._hashes

    def add(self, applicant_id: str) -> None:
        """Treat as unknown from now on."""
        self._hashes.add(self._hash(applicant_id))

    def discard(self, applicant_id: str) -> None:
        """Treat as known again, because a profile with this id was created, or the erasure failed."""
        self._hashes.discard(self._hash(applicant_id))

    def _hash(self, applicant_id: str) -> bytes:
        return hashlib.blake2b(applicant_id.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).digest()


LOOKS = 5


class Read(Protocol):
    """Calls in the thread that reads the store."""

    def __call__(self, call: Callable[[], T]) -> Awaitable[T]: ...


class Rights:
    """What the service does for people's rights, besides clearing its memory.

    Args:
        config: of the service.
        store: open for reading.
        recorder: writes the store's events.
        decisions: those in the store.
        read: calls in the thread that reads the store.
        shared: whether other replicas use the store, too.
    """

    def __init__(
        self,
        config: RecommendConfig,
        store: Store,
        recorder: Recorder,
        decisions: Decisions,
        read: Read,
        *,
        shared: bool,
    ) -> None:
        self._config, self._store, self._recorder, self._read, self._shared = config, store, recorder, read, shared
        self.decisions = decisions
        self.erased = Erased()
        self._left: dict[str, int] = {}  # applicants that left the catalogue -> looks until that is taken as it is

    async def erase(self, applicant_id: str) -> Erasure:
        """Erase an applicant from the store and the runs that serve or served. Raises Problem."""
        if not await self._read(lambda: holds_applicant(self._store, applicant_id)):
            raise Problem(404, "unknown-applicant", f"nothing is held about applicant {applicant_id!r}")
        self.erased.add(applicant_id)  # first, so that no request under way writes them back
        try:
            runs = await asyncio.to_thread(erase_from_runs, self._config, applicant_id)
            rows = await self._recorder.run(lambda events: events.forget_events(applicant_id))
            rows |= await self._read(lambda: erase_records(self._config, applicant_id))
        except DynaqError as error:
            self.erased.discard(applicant_id)
            raise Problem(503, "store-busy", f"not all was erased; repeat the call: {error}", retry_after=5) from error
        return Erasure(rows=rows, runs=runs, remaining=REMAINING)

    async def erased_elsewhere(self, left: Sequence[str]) -> list[str]:
        """Which of the applicants that left the catalogue were erased. What was written of them since is deleted.

        An erasure is noted last, so those who left are looked up a few times.
        """
        self._left |= dict.fromkeys(left, LOOKS)
        if not self._left:
            return []
        notes, there = await self._read(lambda: (self._store.forgotten(), set(self._store.ids("candidate"))))
        asked = [one for one in self._left if one not in there]
        gone = await asyncio.to_thread(lambda: [one for one in asked if erased_at(notes, one)])
        for one in gone:
            await self._recorder.run(lambda events, one=one: events.forget_events(one))  # type: ignore[misc]
        self._left = {one: looks - 1 for one, looks in self._left.items() if one in asked and looks > 1}
        for one in gone:
            self._left.pop(one, None)
        return gone

    async def export(self, applicant_id: str) -> dict[str, Any]:
        """Everything that is held about an applicant. Raises Problem."""
        folders = await asyncio.to_thread(served_folders, self._config)
        try:
            return await self._read(lambda: export_person(self._store, applicant_id, folders))
        except NothingHeld as error:
            raise Problem(404, "unknown-applicant", str(error)) from error
        except DynaqError as error:
            raise Problem(503, "store-unavailable", str(error), retry_after=5) from error

    async def log(self, applicant_id: str) -> list[dict[str, Any]]:
        """Operators' decisions for an applicant, oldest first."""
        return await self._recorder.run(lambda events: events.decisions([applicant_id]).to_pylist())

    async def decide(self, applicant_id: str, given: DecisionIn) -> dict[str, Any]:
        """Log an operator's decision; lists follow it when this returns. Raises Problem, Overloaded."""
        at, key = datetime.now(UTC), uuid.uuid4().hex
        decision = Decision(applicant_id, given.job_id, given.action, at, given.operator, given.reason, key)
        try:
            await self._recorder.run(lambda events: events.add_decisions([decision]))
        except Overloaded:
            raise
        except DynaqError as error:
            raise Problem(503, "store-unavailable", f"nothing was decided: {error}", retry_after=5) from error
        self.decisions.add([decision])
        return decision_row(decision)

    async def expire(self) -> StandingEvents | None:
        """Delete feedback and exposures older than `keep_days`. Returns what stands then; None if nothing went."""
        assert self._config.keep_days is not None
        before = datetime.now(UTC) - timedelta(days=self._config.keep_days)

        # Events that arrive later are added when they are acknowledged, which is after this returns.
        def expire(events: FeedbackStore) -> StandingEvents | None:
            gone = events.expire_events(before) or self._shared  # another replica may have been first
            return StandingEvents.of(events.feedback()) if gone else None

        return await self._recorder.run(expire)


def served_folders(config: RecommendConfig) -> list[str]:
    """The folders of the runs that serve now, or served before and may be rolled back to, as far as they exist."""
    if config.run is not None:
        return [config.run]
    assert config.serving is not None
    place = ServingFolder(config.serving)
    current = place.current()
    uris = [promotion.run for promotion in (*place.history(), *([current] if current else []))]
    return [uri for uri in dict.fromkeys(uris) if RunFolder.at(uri).exists()]


def erase_from_runs(config: RecommendConfig, applicant_id: str) -> list[str]:
    """Erase an applicant from the runs that serve or served. Returns the folders that held them. Raises DynaqError."""
    erased: list[str] = []
    for uri in served_folders(config):
        erased += forget_in_folder(uri, applicant_id).runs
    return erased


def erase_records(config: RecommendConfig, applicant_id: str) -> dict[str, int]:
    """Erase an applicant's records and note the erasure, which is complete with it. Raises DynaqError."""
    with open_store(config.store) as store:  # a folder store has one writer at a time
        rows = store.forget_records(applicant_id)
        note_erasure(store, applicant_id)
    return rows
