"""A MongoDB database with the four-collection schema as a store.

A database filled by hand is read unchanged: arrays of numbers or Binary Vectors, ids of any usual type, documents
without the optional blocks. This store writes Binary Vectors (FLOAT32), which load five times faster.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import Any, Self, cast

import pyarrow as pa
from bson.binary import Binary, BinaryVectorDtype
from pymongo import ASCENDING, MongoClient, UpdateOne
from pymongo.errors import BulkWriteError, ConfigurationError, DuplicateKeyError, InvalidURI, PyMongoError
from pymongo.write_concern import WriteConcern

from dynaq.errors import DynaqError, InputError
from dynaq.feedback.events import (
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
from dynaq.judging.judgement import JUDGEMENT_SCHEMA, Judgement
from dynaq.layout import BLOCK_DIM
from dynaq.qrels import Qrels
from dynaq.records import Candidate, Job
from dynaq.stores.base import (
    COLLECTIONS,
    Claimed,
    Collections,
    FloatArray,
    Kind,
    Store,
    VectorBatch,
    check_vectors,
    new_judgements,
)
from dynaq.stores.mongo_changes import APPLICANTS, FEEDBACK, FORGOTTEN, STORED_AT, MongoChanges, server_time
from dynaq.stores.mongo_claims import MongoClaims
from dynaq.stores.mongo_documents import FROM_DOCUMENT, TO_DOCUMENT, id_forms, vector_batch, vector_length
from dynaq.stores.mongo_group import MongoGroup
from dynaq.stores.mongo_indexes import DUPLICATE_KEY, EVENT_COLLECTIONS, create_indexes
from dynaq.stores.mongo_uri import mask_uri, scrub, selection_timeout
from dynaq.stores.mongo_version import MongoVersion
from dynaq.stores.raw_bson import CODEC_OPTIONS, read_reply

DATABASE = "rl_jobsdb"
BATCH = 1024
DURABLE = WriteConcern(w="majority", j=True)
Document = dict[str, Any]


class MongoStore(Store):
    """A store in a MongoDB database. See `Store` for the interface."""

    def __init__(self, uri: str, *, create: bool = False, read_only: bool = False) -> None:
        self._secret_uri = uri
        self._read_only = read_only
        try:
            self._client: MongoClient[Document] = MongoClient(
                uri, appname="dynaq", tz_aware=True, serverSelectionTimeoutMS=selection_timeout(uri)
            )
            name = self._client.get_default_database(DATABASE).name
        except (InvalidURI, ConfigurationError, ValueError, TypeError) as error:
            raise InputError(f"store {self.uri}: not a usable MongoDB URI ({scrub(str(error), uri)})") from None
        self._database = self._client.get_database(name, codec_options=CODEC_OPTIONS)
        self._claims = MongoClaims(self._database)
        self._version = MongoVersion(self._database)
        try:
            present = set(self._database.list_collection_names())
        except PyMongoError as error:
            self._client.close()
            raise InputError(f"store {self.uri} cannot be reached: {self._reason(error)}") from None
        jobs, candidates = COLLECTIONS["job"], COLLECTIONS["candidate"]
        if not create and not {jobs.text, candidates.text, jobs.embeddings} & present:
            self._client.close()
            raise InputError(
                f"store {self.uri}: database {name!r} has none of the collections {jobs.text}, {candidates.text}; "
                "fill it with `dynaq ingest`"
            )
        if not read_only:
            with self._errors():
                create_indexes(self._database)

    @property
    def uri(self) -> str:
        return mask_uri(self._secret_uri)

    def _reason(self, error: Exception) -> str:
        # The driver appends a dump of the topology; only the first sentence helps the user.
        text = str(error).partition(", Timeout:")[0].partition(", full error")[0].splitlines()[0]
        return scrub(text, self._secret_uri)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn driver errors into a one-line DynaqError without credentials."""
        try:
            yield
        except PyMongoError as error:
            raise DynaqError(f"store {self.uri}: {self._reason(error)}") from None

    def _check_writable(self) -> None:
        if self._read_only:
            raise DynaqError(f"store {self.uri} is not open for writing")

    # Text

    def records(self, kind: Kind, ids: Sequence[str] | None = None) -> Iterator[Any]:
        return (FROM_DOCUMENT[kind](document) for document in self._documents(COLLECTIONS[kind], ids))

    def _documents(self, names: Collections, ids: Sequence[str] | None) -> Iterator[Document]:
        keys = self._keys(names) if ids is None else self._existing_keys(names, ids)
        collection = self._database[names.text]
        remaining = iter(sorted(keys))
        while chunk := list(islice(remaining, BATCH)):
            with self._errors():
                found = {str(d["_id"]): d for d in collection.find({"_id": {"$in": [keys[i] for i in chunk]}})}
            yield from (found[id_] for id_ in chunk if id_ in found)

    def ids(self, kind: Kind) -> list[str]:
        return sorted(self._keys(COLLECTIONS[kind]))

    def _keys(self, names: Collections) -> dict[str, Any]:
        """Every id as text -> as stored in the database. Raises InputError when two differ only in type."""
        with self._errors():
            keys = [d["_id"] for d in self._database[names.text].find({}, {"_id": 1}, hint="_id_")]
        named = {str(key): key for key in keys}
        if len(named) != len(keys):
            seen: set[str] = set()
            twice = next(str(key) for key in keys if str(key) in seen or seen.add(str(key)))  # type: ignore[func-returns-value]
            raise InputError(f"store {self.uri}: {names.text} has two ids that both read {twice!r}; rename one")
        return named

    def _existing_keys(self, names: Collections, ids: Sequence[str]) -> dict[str, Any]:
        """Like `_keys` for some ids only, whatever their type in the database."""
        keys: dict[str, Any] = {}
        remaining = iter(ids)
        while chunk := list(islice(remaining, BATCH)):
            forms = [form for id_ in chunk for form in id_forms(id_)]
            with self._errors():
                found = self._database[names.text].find({"_id": {"$in": forms}}, {"_id": 1})
                keys.update((str(d["_id"]), d["_id"]) for d in found)
        return keys

    def put_records(self, kind: Kind, records: Iterable[Job] | Iterable[Candidate]) -> None:
        self._check_writable()
        names = COLLECTIONS[kind]
        remaining = map(TO_DOCUMENT[kind], records)
        while chunk := list(islice(remaining, BATCH)):
            keys = self._existing_keys(names, [d["_id"] for d in chunk])
            updates = []
            for document in chunk:
                id_ = document.pop("_id")
                # $set keeps fields that other programs added.
                updates.append(UpdateOne({"_id": keys.get(id_, id_)}, {"$set": document}, upsert=True))
            with self._errors():
                self._database[names.text].bulk_write(updates, ordered=True)

    def add_applicant(self, applicant: Candidate, blocks: Mapping[str, FloatArray], hash_: str) -> Candidate | None:
        self._check_writable()
        before = next(self.records("candidate", [applicant.id]), None)
        if before is None:
            with self._errors():
                try:
                    self._database[APPLICANTS.text].insert_one(TO_DOCUMENT["candidate"](applicant))
                except DuplicateKeyError:  # another process was faster
                    before = next(self.records("candidate", [applicant.id]), None)
        if before is None or before == applicant:
            rows = {name: vector[None] for name, vector in blocks.items()}
            with self._errors():
                now = server_time(self._database)
            self._put_vectors("candidate", [applicant.id], rows, [hash_], {STORED_AT: now})
        return before

    def delete_records(self, kind: Kind, ids: Sequence[str]) -> None:
        names = COLLECTIONS[kind]
        forms = {"$in": [form for id_ in ids for form in id_forms(id_)]}
        self._delete(names.embeddings, {names.reference: forms})
        self._delete(names.text, {"_id": forms})

    def _delete(self, collection: str, query: Document) -> int:
        self._check_writable()
        with self._errors():
            return self._database.get_collection(collection, write_concern=DURABLE).delete_many(query).deleted_count

    def forget_records(self, applicant_id: str) -> dict[str, int]:
        names, own = COLLECTIONS["candidate"], {"$in": id_forms(applicant_id)}
        fields = {names.embeddings: names.reference, names.text: "_id"}
        fields |= dict.fromkeys(("judgements", "qrels"), "applicant_id")
        counts = {collection: self._delete(collection, {field: own}) for collection, field in fields.items()}
        self._delete("claims", {"_id.applicant_id": applicant_id})  # of a process that was lost while it asked
        return counts

    def note_forgotten(self, note: Mapping[str, str]) -> None:
        with self._errors():
            now = server_time(self._database)
        self._insert_new(FORGOTTEN, [dict(note) | {STORED_AT: now}], DURABLE)

    def forgotten(self) -> list[dict[str, str]]:
        with self._errors():
            return list(self._database[FORGOTTEN].find({}, {"_id": 0, STORED_AT: 0}).sort("_id", ASCENDING))

    # Vectors

    def put_vectors(
        self, kind: Kind, ids: Sequence[str], blocks: Mapping[str, FloatArray], hashes: Sequence[str] | None = None
    ) -> None:
        self._put_vectors(kind, ids, blocks, hashes, {})

    def _put_vectors(
        self,
        kind: Kind,
        ids: Sequence[str],
        blocks: Mapping[str, FloatArray],
        hashes: Sequence[str] | None,
        more: Document,
    ) -> None:
        """As `put_vectors`. more: further fields of each document."""
        self._check_writable()
        check_vectors(kind, ids, blocks, hashes, self.dimension())
        names = COLLECTIONS[kind]
        for start in range(0, len(ids), BATCH):
            chunk = ids[start : start + BATCH]
            keys = self._existing_keys(names, chunk)
            forms = [form for id_ in chunk for form in id_forms(id_)]
            with self._errors():
                found = self._database[names.embeddings].find({names.reference: {"$in": forms}}, {names.reference: 1})
                present = {str(d[names.reference]): d["_id"] for d in found}
            absent = {field: "" for name, field in names.blocks.items() if name not in blocks}
            writes = []
            for row, id_ in enumerate(chunk, start=start):
                document: Document = {
                    names.blocks[name]: Binary.from_vector(block[row].astype("<f4"), BinaryVectorDtype.FLOAT32)
                    for name, block in blocks.items()
                }
                document["content_hash"] = hashes[row] if hashes is not None else None
                document[names.reference] = keys.get(id_, id_)
                document |= more
                update = {"$set": document} | ({"$unset": absent} if absent else {})
                # The reference is also the _id, so that repeated or concurrent inserts cannot create duplicates.
                writes.append(UpdateOne({"_id": present.get(id_, keys.get(id_, id_))}, update, upsert=True))
            with self._errors():
                self._database[names.embeddings].bulk_write(writes, ordered=False)

    def vectors(
        self, kind: Kind, blocks: Sequence[str], *, ids: Sequence[str] | None = None, optional: Sequence[str] = ()
    ) -> Iterator[VectorBatch]:
        names = COLLECTIONS[kind]
        fields = {name: names.blocks[name] for name in blocks}
        projection = {"_id": 0, names.reference: 1, "content_hash": 1, **dict.fromkeys(fields.values(), 1)}
        if ids is None:
            queries: Iterable[Document] = [{}]
        else:
            slices = (ids[i : i + BATCH] for i in range(0, len(ids), BATCH))
            queries = ({names.reference: {"$in": [f for id_ in part for f in id_forms(id_)]}} for part in slices)
        keys = [names.reference, "content_hash"]
        dimension = self.dimension()
        for query in queries:
            with self._errors():
                replies = iter(self._database[names.embeddings].find_raw_batches(query, projection, batch_size=BATCH))
            while True:
                with self._errors():
                    reply = next(replies, None)
                if reply is None:
                    break
                for part in read_reply(cast(bytes, reply), keys, list(fields.values()), dimension):
                    yield vector_batch(part, names, fields, dimension, optional)

    def dimension(self) -> int:
        recorded = self.meta().get("dimension")
        return int(recorded) if recorded is not None else self._dimension_of_vectors()

    def _dimension_of_vectors(self) -> int:
        """The length that most have of the first few: a database filled by hand may hold broken ones."""
        lengths: Counter[int] = Counter()
        for names in COLLECTIONS.values():
            field = next(iter(names.blocks.values()))
            query = {field: {"$ne": None}}
            with self._errors():
                found = list(self._database[names.embeddings].find(query, {"_id": 0, field: 1}, limit=32))
            lengths.update(length for d in found if (length := vector_length(d[field])))
        return lengths.most_common(1)[0][0] if lengths else BLOCK_DIM

    def clear_vectors(self) -> None:
        self._check_writable()
        for names in COLLECTIONS.values():
            # Fields that a database has beside ours are left alone. An empty hash fits no text.
            update = {"$unset": dict.fromkeys(names.blocks.values(), ""), "$set": {"content_hash": ""}}
            with self._errors():
                self._database[names.embeddings].update_many({}, update)

    def hashes(self, kind: Kind) -> dict[str, str | None]:
        names = COLLECTIONS[kind]
        projection = {"_id": 0, names.reference: 1, "content_hash": 1}
        with self._errors():
            found = self._database[names.embeddings].find({}, projection)
            return {str(d.get(names.reference)): d.get("content_hash") for d in found}

    def catalogue_version(self) -> str | None:
        with self._errors():
            return self._version.settled()

    # Ledger, relevance, meta

    def judgements(self, judge: str | None = None, applicants: Sequence[str] | None = None) -> pa.Table:
        query: Document = {}
        if judge is not None:
            query["judge"] = judge
        if applicants is not None:
            query["applicant_id"] = {"$in": list(applicants)}
        with self._errors():
            rows = list(self._database["judgements"].find(query, {"_id": 0}))
        return pa.Table.from_pylist(rows, schema=JUDGEMENT_SCHEMA)

    def add_judgements(self, judgements: Sequence[Judgement]) -> None:
        self._check_writable()
        rows = new_judgements(judgements, set())
        if not rows:
            return
        self._insert_new("judgements", rows)

    def claim(self, applicant_id: str, job_ids: Sequence[str], judge: str) -> Claimed:
        self._check_writable()
        with self._errors():
            return self._claims.claim(applicant_id, job_ids, judge)

    def release(self, applicant_id: str, job_ids: Sequence[str], judge: str) -> None:
        with self._errors():
            self._claims.release(applicant_id, job_ids, judge)

    def _insert_new(self, collection: str, rows: list[Document], concern: WriteConcern | None = None) -> int:
        """Insert the rows whose unique key is new. Returns their number."""
        try:
            self._database.get_collection(collection, write_concern=concern).insert_many(rows, ordered=False)
        except BulkWriteError as error:
            details = error.details or {}
            codes = [e["code"] for e in details.get("writeErrors", ())]
            if details.get("writeConcernErrors") or any(code != DUPLICATE_KEY for code in codes):
                raise DynaqError(f"store {self.uri}: {collection} were not written ({self._reason(error)})") from None
            return int(details["nInserted"])
        except PyMongoError as error:
            raise DynaqError(f"store {self.uri}: {self._reason(error)}") from None
        return len(rows)

    # Feedback

    def add_feedback(self, events: Sequence[FeedbackEvent]) -> int:
        self._check_writable()
        if not events:
            return 0
        with self._errors():
            now = server_time(self._database)
        return self._insert_keyed(FEEDBACK, [event_row(event) | {STORED_AT: now} for event in events])

    def feedback(self, applicants: Sequence[str] | None = None) -> pa.Table:
        return self._keyed(FEEDBACK, FEEDBACK_SCHEMA, applicants)

    def changes(self) -> MongoChanges:
        return MongoChanges(self._database, self._errors)

    def group(self, name: str, member: str, lease_seconds: float) -> MongoGroup:
        return MongoGroup(self._database, self._errors, name, member, lease_seconds)

    def add_exposures(self, exposures: Sequence[Exposure]) -> None:
        self._check_writable()
        self._insert_keyed("exposures", [exposure_row(exposure) for exposure in exposures])

    def exposures(self, applicants: Sequence[str] | None = None) -> pa.Table:
        return self._keyed("exposures", EXPOSURE_SCHEMA, applicants)

    def add_decisions(self, decisions: Sequence[Decision]) -> None:
        self._check_writable()
        self._insert_keyed("decisions", [decision_row(decision) for decision in decisions])

    def decisions(self, applicants: Sequence[str] | None = None) -> pa.Table:
        return self._keyed("decisions", DECISION_SCHEMA, applicants)

    def forget_events(self, applicant_id: str) -> dict[str, int]:
        return {name: self._delete(name, {"applicant_id": applicant_id}) for name in EVENT_COLLECTIONS}

    def expire_events(self, before: datetime) -> int:
        return sum(self._delete(name, {"at": {"$lt": before}}) for name in ("feedback", "exposures"))

    def _insert_keyed(self, collection: str, rows: list[Document]) -> int:
        """Insert rows with their `key` as `_id`, which makes it unique. Returns how many were new."""
        for row in rows:
            row["_id"] = row.pop("key")
        return self._insert_new(collection, rows, DURABLE) if rows else 0

    def _keyed(self, collection: str, schema: pa.Schema, applicants: Sequence[str] | None) -> pa.Table:
        query: Document = {} if applicants is None else {"applicant_id": {"$in": list(applicants)}}
        with self._errors():
            found = self._database[collection].find(query).sort([("at", ASCENDING), ("_id", ASCENDING)])
            rows = [{**document, "key": document.pop("_id")} for document in found.allow_disk_use(True)]
        return pa.Table.from_pylist(rows, schema=schema)

    def qrels(self) -> Qrels | None:
        grades: dict[str, dict[str, float]] = {}
        with self._errors():
            for d in self._database["qrels"].find({}, {"_id": 0}).sort("_id", ASCENDING):
                grades.setdefault(d["applicant_id"], {})[d["job_id"]] = d["grade"]
        return Qrels(grades) if grades else None

    def put_qrels(self, qrels: Qrels) -> None:
        self._check_writable()
        rows = qrels.to_table().to_pylist()
        with self._errors():
            self._database["qrels"].delete_many({})
            if rows:
                self._database["qrels"].insert_many(rows)

    def meta(self) -> dict[str, Any]:
        with self._errors():
            return dict(self._database["meta"].find_one({"_id": "store"}, {"_id": 0}) or {})

    def put_meta(self, **values: Any) -> None:
        self._check_writable()
        with self._errors():
            self._database["meta"].update_one({"_id": "store"}, {"$set": values}, upsert=True)

    def close(self) -> None:
        with contextlib.suppress(PyMongoError):  # claims that stay are taken over
            self._claims.close()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
