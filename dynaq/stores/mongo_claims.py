"""Claims on pairs that are about to be judged, so that of all processes that need a pair one pays for it.

    claims     a document per claim; its `_id` is the pair and the judge, so that one process at most holds it
    claimants  a document per process that holds claims, with the server's time at which it was last there

A process writes what it was told into the ledger before it releases a claim, and reads the ledger after it made one: a
pair is either claimed, or in the ledger, or nobody's. The claims of a process of which nothing was heard for
CLAIM_SECONDS are taken over. Its pairs are then asked again, since nobody knows whether the judge was asked.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from pymongo import ASCENDING
from pymongo.database import Database
from pymongo.errors import BulkWriteError, PyMongoError
from pymongo.write_concern import WriteConcern

from dynaq.judging.judgement import JUDGEMENT_SCHEMA
from dynaq.stores.base import Claimed
from dynaq.stores.mongo_indexes import DUPLICATE_KEY, FORGOTTEN_SECONDS

logger = logging.getLogger(__name__)
Document = dict[str, Any]

CLAIM_SECONDS = 20.0


class MongoClaims:
    """The claims of this process. The methods raise PyMongoError."""

    def __init__(self, database: Database[Document]) -> None:
        quick = WriteConcern(w=1)  # a claim that a failover loses is one pair paid twice
        self._ledger = database["judgements"]
        self._claims = database.get_collection("claims", write_concern=quick)
        self._claimants = database.get_collection("claimants", write_concern=quick)
        self._owner = uuid.uuid4().hex
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def claim(self, applicant_id: str, job_ids: Sequence[str], judge: str) -> Claimed:
        """As `Store.claim`."""
        mine = self._claim(applicant_id, job_ids, judge)
        pairs = {"applicant_id": applicant_id, "job_id": {"$in": list(job_ids)}, "judge": judge}
        found = list(self._ledger.find(pairs, {"_id": 0}))  # after the claim: see above
        judged = {row["job_id"] for row in found}
        if known := [job_id for job_id in mine if job_id in judged]:
            self.release(applicant_id, known, judge)
        rows = pa.Table.from_pylist(found, schema=JUDGEMENT_SCHEMA)
        return Claimed([job_id for job_id in mine if job_id not in judged], rows)

    def _claim(self, applicant_id: str, job_ids: Sequence[str], judge: str) -> list[str]:
        """Claim pairs, whether the ledger has them or not; returns the jobs of those that are this process's now."""
        if self._thread is None:
            self._begin()
        ids = {job_id: _id(applicant_id, job_id, judge) for job_id in job_ids}
        now = datetime.now(UTC)
        taken: list[str] = []
        try:
            rows = [{"_id": id_, "owner": self._owner, "at": now} for id_ in ids.values()]
            self._claims.insert_many(rows, ordered=False)
        except BulkWriteError as error:
            failed = (error.details or {}).get("writeErrors", [])
            if any(one["code"] != DUPLICATE_KEY for one in failed):
                raise
            taken = [job_ids[one["index"]] for one in failed]
        others = self._not_ours({job_id: ids[job_id] for job_id in taken}) if taken else set()
        return [job_id for job_id in job_ids if job_id not in others]

    def release(self, applicant_id: str, job_ids: Sequence[str], judge: str) -> None:
        """Give up claims."""
        ids = [_id(applicant_id, job_id, judge) for job_id in job_ids]
        self._claims.delete_many({"_id": {"$in": ids}, "owner": self._owner})

    def close(self) -> None:
        """Give up all claims."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._claims.delete_many({"owner": self._owner})
            self._claimants.delete_one({"_id": self._owner})

    def _not_ours(self, ids: dict[str, Document]) -> set[str]:
        """The jobs of claimed pairs that stay another's. Those of processes that are gone are taken over."""
        owners = {one["_id"]["job_id"]: one["owner"] for one in self._claims.find({"_id": {"$in": list(ids.values())}})}
        lease = {"$subtract": ["$$NOW", int(1000 * CLAIM_SECONDS)]}
        names = list(set(owners.values()) | {self._owner})
        alive = self._claimants.find({"_id": {"$in": names}, "$expr": {"$gte": ["$seen_at", lease]}}, {"_id": 1})
        there = {one["_id"] for one in alive}
        others = set(ids) - set(owners)  # released a moment ago, and so probably in the ledger: looked at again later
        for job_id, owner in owners.items():
            if owner == self._owner:
                continue
            mine = {"$set": {"owner": self._owner}, "$inc": {"taken_over": 1}}
            if owner in there or not self._claims.update_one({"_id": ids[job_id], "owner": owner}, mine).modified_count:
                others.add(job_id)
        return others

    def _begin(self) -> None:
        for collection, field in ((self._claims, "at"), (self._claimants, "seen_at")):
            collection.create_index([(field, ASCENDING)], name="forgotten", expireAfterSeconds=FORGOTTEN_SECONDS)
        self._say()  # before the first claim, which would otherwise seem to be that of a process that is gone
        self._thread = threading.Thread(target=self._keep_saying, name="claims", daemon=True)
        self._thread.start()

    def _keep_saying(self) -> None:
        while not self._ended.wait(CLAIM_SECONDS / 5):
            try:
                self._say()
            except PyMongoError as error:
                logger.warning("claims were not renewed: %s", type(error).__name__)

    def _say(self) -> None:
        """That this process is there."""
        self._claimants.update_one({"_id": self._owner}, [{"$set": {"seen_at": "$$NOW"}}], upsert=True)


def _id(applicant_id: str, job_id: str, judge: str) -> Document:
    return {"applicant_id": applicant_id, "job_id": job_id, "judge": judge}
