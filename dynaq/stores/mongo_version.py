"""Tells whether a MongoDB database's jobs and applicants were written to, without reading them.

WiredTiger counts the writes to each collection (`$collStats`), whoever makes them: ours, and those of people who fill
the database by hand. A count says no more than that something was written, and begins again when the server does, so
its process and the collection's file belong to the version.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pymongo import ReadPreference
from pymongo.database import Database
from pymongo.errors import OperationFailure

from dynaq.stores.base import COLLECTIONS

Document = dict[str, Any]

# A write in a transaction is counted when it is made and seen when it is committed, at most
# `transactionLifetimeLimitSeconds` later. Before that a reader of a new version might miss what made it new.
SETTLED_SECONDS = 60.0
WRITES = ("insert", "update", "modify", "remove", "truncate")  # how the counters of writes begin, in all versions
NO_COLLECTION = 26  # MongoDB's code


class MongoVersion:
    """See `Store.catalogue_version`. clock: seconds."""

    def __init__(self, database: Database[Document], clock: Callable[[], float] = time.monotonic) -> None:
        # A secondary would show its own counts, beside the process of the primary.
        self._database, self._clock = database.with_options(read_preference=ReadPreference.PRIMARY), clock
        self._seen: tuple[str | None, float] = None, 0.0

    def settled(self) -> str | None:
        """The version, once it has been the same for SETTLED_SECONDS; else None. Raises PyMongoError."""
        version = self._now()
        if version != self._seen[0]:
            self._seen = version, self._clock()
        return version if self._clock() - self._seen[1] >= SETTLED_SECONDS else None

    def _now(self) -> str | None:
        hello = self._database.command("hello")
        if "topologyVersion" not in hello or hello.get("msg") == "isdbgrid":  # one shard's new start would not show
            return None
        tables = [table for names in COLLECTIONS.values() for table in (names.text, names.embeddings)]
        try:
            writes = [self._writes(table) for table in tables]
        except (OperationFailure, KeyError):  # a view, a user without the right, another storage engine
            return None
        return f"{hello['topologyVersion']['processId']} {' '.join(writes)}"

    def _writes(self, table: str) -> str:
        try:
            found = next(iter(self._database[table].aggregate([{"$collStats": {"storageStats": {}}}])))
        except OperationFailure as error:
            if error.code == NO_COLLECTION:
                return "none"
            raise
        engine = found["storageStats"]["wiredTiger"]
        counts = [str(count) for name, count in engine["cursor"].items() if name.startswith(WRITES)]
        if not counts:
            raise KeyError(WRITES)
        return ":".join((found["host"], engine["uri"], *counts))
