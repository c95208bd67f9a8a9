"""The indexes of a MongoDB store, made when it is opened for writing."""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING
from pymongo.database import Database

from dynaq.stores.base import COLLECTIONS
from dynaq.stores.mongo_changes import APPLICANTS, FEEDBACK, STORED_AT

DUPLICATE_KEY = 11000  # MongoDB's code of the error that a unique index makes
EVENT_COLLECTIONS = (FEEDBACK, "exposures", "decisions")
FORGOTTEN_SECONDS = 86_400  # after which MongoDB deletes what processes that are gone left of their dealings


def create_indexes(database: Database[dict[str, Any]]) -> None:
    """Create those that are not there yet. Raises PyMongoError."""
    for names in COLLECTIONS.values():
        # Including the hash lets the index alone answer which records changed.
        database[names.embeddings].create_index(
            [(names.reference, ASCENDING), ("content_hash", ASCENDING)], name=f"{names.reference}_content_hash"
        )
    keys = [("applicant_id", ASCENDING), ("job_id", ASCENDING)]
    database["judgements"].create_index([*keys, ("judge", ASCENDING)], unique=True, name="pair_judge")
    database["judgements"].create_index([("judge", ASCENDING)], name="judge")
    database["qrels"].create_index(keys, unique=True, name="pair")
    for collection in EVENT_COLLECTIONS:
        database[collection].create_index([("applicant_id", ASCENDING)], name="applicant")
    for collection in (FEEDBACK, APPLICANTS.embeddings):
        database[collection].create_index([(STORED_AT, ASCENDING)], name=STORED_AT, sparse=True)
