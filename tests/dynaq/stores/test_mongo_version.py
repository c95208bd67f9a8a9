"""Any write to jobs and applicants makes another version, whoever writes; nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pymongo
import pytest

from dynaq.errors import DynaqError
from dynaq.stores import Store, mongo_version, open_store
from dynaq.stores.mongo_version import SETTLED_SECONDS, MongoVersion
from tests.support.events import event
from tests.support.mongod import running_mongod

pytestmark = pytest.mark.slow


def database_of(uri: str) -> Any:
    return pymongo.MongoClient(uri).get_default_database()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo_version, "SETTLED_SECONDS", 0.0)


def version_of(store: Store) -> str:
    version = store.catalogue_version()
    assert version is not None
    return version


def test_what_people_write_by_hand_is_seen(shared_uri: str, at_once: None) -> None:
    database = database_of(shared_uri)
    database.jobs_text.insert_one({"_id": 1, "job_title": "T"})
    with open_store(shared_uri, read_only=True) as store:
        seen = [version_of(store)]
        for collection in (database.job_embeddings, database.candidates_text, database.candidates_embeddings):
            collection.insert_one({"_id": 1})
            seen.append(version_of(store))
        for collection in (database.jobs_text, database.job_embeddings):
            collection.update_one({"_id": 1}, {"$set": {"description": "d"}})
            seen.append(version_of(store))
            collection.replace_one({"_id": 1}, {"job_title": "other"})
            seen.append(version_of(store))
            collection.delete_one({"_id": 1})
            seen.append(version_of(store))
        assert len(set(seen)) == len(seen)


def test_a_collection_made_anew_is_another_one(shared_uri: str, at_once: None) -> None:
    database = database_of(shared_uri)
    seen = []
    for _ in range(2):
        database.jobs_text.insert_one({"_id": 1, "job_title": "T"})
        with open_store(shared_uri, read_only=True) as store:
            seen.append(version_of(store))
        database.jobs_text.drop()
    assert len(set(seen)) == 2


def test_reading_and_other_writes_make_no_version(shared_uri: str, at_once: None) -> None:
    database = database_of(shared_uri)
    database.jobs_text.insert_one({"_id": 1, "job_title": "T"})
    with open_store(shared_uri, create=True) as store:
        before = version_of(store)
        assert store.ids("job") == ["1"]
        assert [job.title for job in store.records("job")] == ["T"]
        store.add_feedback([event("1")])
        store.put_meta(note="nothing of the catalogue")
        assert version_of(store) == before


def test_a_version_counts_once_no_transaction_can_add_to_it(replica_set: str, mongo_uri: str) -> None:
    now = 0.0
    client: Any = pymongo.MongoClient(replica_set)
    database = client[mongo_uri.rpartition("/")[2]]
    database.jobs_text.insert_one({"_id": 1})
    versions = MongoVersion(database, clock=lambda: now)
    assert versions.settled() is None
    now = SETTLED_SECONDS
    first = versions.settled()
    assert first is not None
    with client.start_session() as session, session.start_transaction():
        database.jobs_text.insert_one({"_id": 2}, session=session)
        assert versions.settled() is None  # counted, and not to be seen yet
    now += SETTLED_SECONDS - 1
    assert versions.settled() is None
    now += 1
    assert versions.settled() not in (None, first)


def test_a_view_has_no_version(mongo_uri: str, at_once: None) -> None:
    database = database_of(mongo_uri)
    database.all_jobs.insert_one({"_id": 1, "job_title": "T"})
    database.command("create", "jobs_text", viewOn="all_jobs", pipeline=[])
    with open_store(mongo_uri, read_only=True) as store:
        assert store.catalogue_version() is None


def test_a_restarted_server_has_another_version_and_a_dead_one_an_error(tmp_path: Path, at_once: None) -> None:
    seen = []
    for _ in range(2):
        with running_mongod(tmp_path) as server:
            uri = f"{server}/market"
            database_of(uri).jobs_text.replace_one({"_id": 1}, {"job_title": "T"}, upsert=True)
            with open_store(uri, read_only=True) as store:
                seen.append(version_of(store))
    assert len(set(seen)) == 2
    with running_mongod(tmp_path) as server:
        store = open_store(f"{server}/market?serverSelectionTimeoutMS=500", read_only=True)
    with pytest.raises(DynaqError, match="store mongodb://"):
        store.catalogue_version()
    store.close()
