"""What any process adds to the feedback and the applicants of a MongoDB database, as it is added.

Every such document has `stored_at`, the server's time just before it was written: one clock, whoever writes. A replica
set tells of them by a change stream. A standalone server has none and is polled; so is a replica set after a stream
broke, once, for what came meanwhile. Both read again what is up to OVERLAP old, because a document becomes visible a
little after its `stored_at`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

from pymongo.change_stream import DatabaseChangeStream
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from dynaq.feedback.events import FEEDBACK_SCHEMA, FeedbackEvent
from dynaq.stores.base import COLLECTIONS, Added, Changes

Document = dict[str, Any]

FEEDBACK = "feedback"
FORGOTTEN = "forgotten"  # a note per erasure of an applicant
APPLICANTS = COLLECTIONS["candidate"]
STORED_AT = "stored_at"
POLL_SECONDS = 0.5
OVERLAP = timedelta(seconds=10)  # longest time from reading the server's time until a document is visible


def server_time(database: Database[Document]) -> datetime:
    """The server's clock."""
    now: datetime = _hello(database)["localTime"]
    return now


def _hello(database: Database[Document]) -> Document:
    return database.command("hello", codec_options=database.codec_options)


class MongoChanges(Changes):
    """Events and applicants added from now on. See `Changes` for the interface. Use it from one thread."""

    def __init__(self, database: Database[Document], errors: Callable[[], AbstractContextManager[None]]) -> None:
        self._database, self._errors = database, errors
        self._stream: DatabaseChangeStream[Document] | None = None
        self._poll_until = 0.0  # time.monotonic() before which a standalone server is not polled again
        self._polled: set[tuple[str, Any]] = set()  # what the last poll found
        with errors():
            hello = _hello(database)
        self._told_until: datetime = hello["localTime"]  # nothing from before is missing
        self._has_streams = "setName" in hello or hello.get("msg") == "isdbgrid"

    def next(self) -> Added:
        with self._errors():
            try:
                if self._stream is not None:
                    return self._streamed(self._stream)
                if self._has_streams:
                    self._stream = self._open()
                else:
                    time.sleep(max(0.0, self._poll_until - time.monotonic()))
                    self._poll_until = time.monotonic() + POLL_SECONDS
                return self._poll()
            except PyMongoError:
                self.close()
                raise

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _open(self) -> DatabaseChangeStream[Document] | None:
        match = {
            "operationType": "insert",
            "ns.coll": {"$in": [FEEDBACK, APPLICANTS.embeddings, FORGOTTEN]},
            f"fullDocument.{STORED_AT}": {"$exists": True},
        }
        vectors = [f"fullDocument.{field}" for field in APPLICANTS.blocks.values()]
        try:
            return self._database.watch(
                [{"$match": match}, {"$unset": vectors}], max_await_time_ms=int(1000 * POLL_SECONDS)
            )
        except OperationFailure:  # this user may not watch
            self._has_streams = False
            return None

    def _streamed(self, stream: DatabaseChangeStream[Document]) -> Added:
        began = time.monotonic()
        change = stream.try_next()
        if change is None:
            # All until now was told. The stream does not give the server's time, so that ours must count on.
            self._told_until += timedelta(seconds=time.monotonic() - began)
            return Added()
        document = change["fullDocument"]
        self._told_until = max(self._told_until, document[STORED_AT])
        if change["ns"]["coll"] == FORGOTTEN:
            return Added(erased=True)
        return _added([document]) if change["ns"]["coll"] == FEEDBACK else Added(applicants=[_applicant(document)])

    def _poll(self) -> Added:
        now = server_time(self._database)
        recent = {STORED_AT: {"$gte": self._told_until - OVERLAP}}
        events = list(self._database[FEEDBACK].find(recent))
        applicants = list(self._database[APPLICANTS.embeddings].find(recent, {APPLICANTS.reference: 1}))
        notes = {(FORGOTTEN, d["_id"]) for d in self._database[FORGOTTEN].find(recent, {"_id": 1})}
        told, self._polled = self._polled, {(FEEDBACK, d["_id"]) for d in events} | {("", d["_id"]) for d in applicants}
        self._polled |= notes
        self._told_until = now
        added = _added([d for d in events if (FEEDBACK, d["_id"]) not in told])
        newcomers = [_applicant(d) for d in applicants if ("", d["_id"]) not in told]
        return Added(added.events, newcomers, bool(notes - told))


def _added(documents: list[Document]) -> Added:
    return Added(
        [FeedbackEvent(**{n: d["_id" if n == "key" else n] for n in FEEDBACK_SCHEMA.names}) for d in documents]
    )


def _applicant(document: Document) -> str:
    return str(document[APPLICANTS.reference])
