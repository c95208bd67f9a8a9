"""What the replicas of a service agree on, in the database of its store: rate limits, and the run that all serve.

    rate_limits        a token bucket per document, filled and emptied by one atomic update
    serving_replicas   a document per replica: the run that it could serve, and when it was last there
    serving_runs       a document per group: the run that all serve, and how many replicas have ever joined

All times are the server's, so that clocks of replicas do not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from pymongo import ASCENDING, ReturnDocument
from pymongo.database import Database

from dynaq.stores.base import Agreement, ReplicaGroup, RunSource
from dynaq.stores.mongo_indexes import FORGOTTEN_SECONDS

Document = dict[str, Any]


class MongoGroup(ReplicaGroup):
    """One replica's part in a group. See `ReplicaGroup` for the interface. Threads may share it."""

    def __init__(
        self,
        database: Database[Document],
        errors: Callable[[], AbstractContextManager[None]],
        name: str,
        member: str,
        lease_seconds: float,
    ) -> None:
        self._errors, self._name, self._member, self._lease = errors, name, member, lease_seconds
        self._limits, self._members = database["rate_limits"], database["serving_replicas"]
        self._runs = database["serving_runs"]
        with errors():
            for collection, field in ((self._limits, "at"), (self._members, "seen_at")):
                collection.create_index([(field, ASCENDING)], name="forgotten", expireAfterSeconds=FORGOTTEN_SECONDS)

    def take(self, bucket: str, tokens: float, rate: float, burst: float) -> float:
        since = {"$subtract": ["$$NOW", {"$ifNull": ["$at", "$$NOW"]}]}  # milliseconds
        level = {"$add": [{"$ifNull": ["$level", burst]}, {"$multiply": [rate / 1000, since]}]}
        update: list[dict[str, Any]] = [
            {"$set": {"level": {"$min": [burst, level]}, "at": "$$NOW"}},
            {"$set": {"granted": {"$gte": ["$level", tokens]}}},
            {"$set": {"level": {"$cond": ["$granted", {"$subtract": ["$level", tokens]}, "$level"]}}},
        ]
        with self._errors():
            found = self._limits.find_one_and_update(
                {"_id": f"{self._name}\n{bucket}"}, update, upsert=True, return_document=ReturnDocument.AFTER
            )
        assert found is not None  # upserted
        return 0.0 if found["granted"] else float((tokens - found["level"]) / rate)

    def join(self) -> RunSource | None:
        with self._errors():
            self._report(None, None)  # before `joined` is counted: see `agree`
            found = self._runs.find_one_and_update(
                {"_id": self._name}, {"$inc": {"joined": 1}}, upsert=True, return_document=ReturnDocument.AFTER
            )
        return _source(found)

    def agree(self, ready: RunSource | None, problem: str | None) -> Agreement:
        with self._errors():
            self._report(ready, problem)
            group = self._runs.find_one({"_id": self._name})
            lease = {"$subtract": ["$$NOW", int(1000 * self._lease)]}
            here = list(self._members.find({"group": self._name, "$expr": {"$gte": ["$seen_at", lease]}}))
            serving = _source(group)
            if ready not in (None, serving) and all(_source(one, "ready") == ready for one in here):
                # Not if a replica has joined since `group` was read: `here` may lack it.
                unchanged = {"_id": self._name, "joined": group["joined"] if group else 0}
                self._runs.update_one(unchanged, {"$set": {"run": list(ready or ())}})
                serving = _source(self._runs.find_one({"_id": self._name}))
        others = [one for one in here if one["_id"] != self._member]
        return Agreement(serving, len(others), [one["problem"] for one in others if one.get("problem")])

    def leave(self) -> None:
        with self._errors():
            self._members.delete_one({"_id": self._member})

    def _report(self, ready: RunSource | None, problem: str | None) -> None:
        said = {"group": self._name, "ready": None if ready is None else list(ready), "problem": problem}
        update = [{"$set": {name: {"$literal": value} for name, value in said.items()} | {"seen_at": "$$NOW"}}]
        self._members.update_one({"_id": self._member}, update, upsert=True)


def _source(document: Document | None, field: str = "run") -> RunSource | None:
    found = (document or {}).get(field)
    return None if found is None else RunSource(*found)
