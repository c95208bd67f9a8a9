"""Applicants that the snapshot of the store does not have yet: created here, or just now by another replica."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from dynaq.errors import DynaqError
from dynaq.layout import Layout
from dynaq.records import Candidate
from dynaq.stores import Store
from recommend_service.catalogue import ApplicantVectors, Catalogue, applicant_vectors
from recommend_service.problems import Problem

Applicant = tuple[ApplicantVectors, Candidate]
LookUp = Callable[[Callable[[], Any]], Awaitable[Any]]


class Newcomers:
    """Newcomers in memory, and in a store that replicas share.

    look_up: asks the shared store in a thread; None for a store that only this process writes.
    """

    def __init__(self, store: Store, look_up: LookUp | None) -> None:
        self._store, self._look_up = store, look_up
        self._kept: dict[str, Applicant] = {}

    def add(self, applicant: Applicant) -> None:
        """Keep a newcomer until a snapshot has them."""
        self._kept[applicant[0].id] = applicant

    def drop(self, applicant_id: str) -> Applicant | None:
        """Drop one; returns what was kept."""
        return self._kept.pop(applicant_id, None)

    @property
    def ids(self) -> list[str]:
        """Ids of those in memory."""
        return list(self._kept)

    def after(self, after: str, catalogue: Catalogue) -> list[str]:
        """Ids of newcomers after `after` that the catalogue lacks."""
        return [one for one in self._kept if one > after and one not in catalogue]

    def forget(self, catalogue: Catalogue) -> None:
        """Drop those that the catalogue has now."""
        for one in [one for one in self._kept if one in catalogue]:
            del self._kept[one]

    def known(self, applicant_id: str, catalogue: Catalogue) -> Applicant | None:
        """An applicant of the catalogue, or a newcomer in memory."""
        vectors = catalogue.vectors_of(applicant_id)
        if vectors is not None:
            return vectors, catalogue.profile(applicant_id)
        return self._kept.get(applicant_id)

    async def find(self, applicant_id: str, catalogue: Catalogue) -> Applicant:
        """As `known`, or as the shared store has them now. Raises Problem for an unknown applicant."""
        found = self.known(applicant_id, catalogue) or await self.look(applicant_id, catalogue.layout)
        if found is None:
            raise Problem(404, "unknown-applicant", f"applicant {applicant_id!r} is not in the store or has no vectors")
        return found

    async def look(self, applicant_id: str, layout: Layout) -> Applicant | None:
        """An applicant as the shared store, if it is one, has them now. Raises Problem if it cannot be reached."""
        if self._look_up is None:
            return None
        try:
            found: Applicant | None = await self._look_up(lambda: self._stored(applicant_id, layout))
        except DynaqError as error:
            raise Problem(503, "store-unavailable", f"no applicant can be looked up: {error}", 5) from error
        if found is not None:
            self.add(found)
        return found

    def _stored(self, applicant_id: str, layout: Layout) -> Applicant | None:
        record = next(self._store.records("candidate", [applicant_id]), None)
        for batch in self._store.vectors("candidate", layout.state, ids=[applicant_id]):
            if record is not None and batch.ids == [applicant_id]:
                blocks = {name: rows[0] for name, rows in batch.blocks.items()}
                return applicant_vectors(applicant_id, blocks, layout), record
        return None
