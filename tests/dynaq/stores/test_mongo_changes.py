"""What one process adds, another is told: by a change stream of a replica set, by polling a standalone server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pymongo
import pytest

from dynaq.layout import CANDIDATE_BLOCKS
from dynaq.records import Candidate
from dynaq.rights.record import note_erasure
from dynaq.stores import Added, Store, open_store
from dynaq.stores.mongo_changes import MongoChanges
from tests.support.events import event

pytestmark = pytest.mark.slow

BLOCKS = {block: np.ones(384, np.float32) for block in CANDIDATE_BLOCKS}


@pytest.fixture
def store(shared_uri: str) -> Iterator[Store]:
    with open_store(shared_uri, create=True) as store:
        yield store


def told(changes: MongoChanges, events: int, applicants: int = 0, seconds: float = 120.0) -> Added:
    """What came until there was that much of it."""
    added, deadline = Added([], []), time.monotonic() + seconds
    while len(added.events) < events or len(added.applicants) < applicants:
        assert time.monotonic() < deadline, f"only {added} came"
        more = changes.next()
        added = Added([*added.events, *more.events], [*added.applicants, *more.applicants])
    return added


def changes_of(store: Store) -> MongoChanges:
    changes = store.changes()
    assert isinstance(changes, MongoChanges)
    return changes


def test_events_and_applicants_that_another_process_adds_are_told(store: Store, shared_uri: str) -> None:
    store.add_feedback([event("before")])
    changes = changes_of(store)
    changes.next()
    with open_store(shared_uri, create=True) as other:
        other.add_feedback([event("1"), event("2", job="b", what="ignore")])
        other.add_feedback([event("1")])  # nothing new
        other.add_applicant(Candidate(id="new", bio="b"), BLOCKS, "hash")
        other.put_records("candidate", [Candidate(id="ingested", bio="b")])  # snapshots are for these
    added = told(changes, 2, 1)
    assert [one for one in added.events if one.key != "before"] == [event("1"), event("2", job="b", what="ignore")]
    assert added.applicants == ["new"]
    changes.close()


def test_what_came_while_nobody_listened_is_told_later(store: Store) -> None:
    changes = changes_of(store)
    store.add_feedback([event("first")])  # before the first call
    assert told(changes, 1).events == [event("first")]
    changes.close()  # as after an error
    store.add_feedback([event("meanwhile")])
    keys: list[str] = []
    while "meanwhile" not in keys:  # others may be told twice
        keys += [one.key for one in told(changes, 1).events]
    changes.close()


def test_that_somebody_was_erased_is_told_once_without_their_name(store: Store) -> None:
    note_erasure(store, "ann")
    changes = changes_of(store)
    changes.next()
    note_erasure(store, "bob")
    deadline = time.monotonic() + 120
    while not changes.next().erased:
        assert time.monotonic() < deadline
    assert not changes.next().erased
    changes.close()
    assert [set(note) for note in store.forgotten()] == [{"hash", "salt", "at"}] * 2


def test_a_replica_set_tells_at_once_and_a_standalone_server_is_asked(store: Store, shared_uri: str) -> None:
    changes = changes_of(store)
    changes.next()
    with pymongo.MongoClient[Any](shared_uri) as client:
        assert (changes._stream is not None) == ("setName" in client.admin.command("hello"))
    changes.close()


def test_an_applicant_is_created_once_and_only_the_same_one_again(store: Store, shared_uri: str) -> None:
    ann = Candidate(id="ann", bio="Cook", hard_skills=("Soup",))
    assert store.add_applicant(ann, BLOCKS, "h") is None
    with open_store(shared_uri) as other:
        assert other.add_applicant(ann, BLOCKS, "h") == ann
        assert other.add_applicant(Candidate(id="ann", bio="Smith"), {b: 2 * v for b, v in BLOCKS.items()}, "i") == ann
        assert list(other.records("candidate")) == [ann]
        assert other.hashes("candidate") == {"ann": "h"}
