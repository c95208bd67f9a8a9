"""Stores keep the catalogue, the cohort, their vectors and the ledger behind one interface."""

from __future__ import annotations

from pathlib import Path

from dynaq.errors import InputError
from dynaq.stores.base import (
    COLLECTIONS,
    Added,
    Agreement,
    Changes,
    Claimed,
    Collections,
    FeedbackStore,
    FloatArray,
    Kind,
    ReplicaGroup,
    RunSource,
    Store,
    VectorBatch,
)
from dynaq.stores.folder import FolderStore
from dynaq.stores.folder_events import FolderEvents
from dynaq.stores.mongo import MongoStore
from dynaq.stores.mongo_uri import is_mongo, mask_uri

__all__ = [
    "COLLECTIONS",
    "Added",
    "Agreement",
    "Changes",
    "Claimed",
    "Collections",
    "FeedbackStore",
    "FloatArray",
    "FolderStore",
    "Kind",
    "ReplicaGroup",
    "RunSource",
    "Store",
    "VectorBatch",
    "absolute",
    "is_mongo",
    "mask_uri",
    "open_feedback",
    "open_store",
]


def open_store(uri: str | Path, *, create: bool = False, read_only: bool = False) -> Store:
    """Open a store.

    Args:
        uri: `mongodb://…`, `mongodb+srv://…` (database `rl_jobsdb` unless the URI names one) or a folder.
        create: create the store if it does not exist.
        read_only: never write. A folder has one writer at a time and any number of read-only users.

    Raises InputError when it does not exist (and `create` is false), cannot be reached, or has another writer.
    """
    text = str(uri)
    if not text:
        raise InputError("store URI is empty; give a folder or mongodb://host/database")
    if is_mongo(text):
        return MongoStore(text, create=create, read_only=read_only)
    if "://" in text:
        scheme = text.split("://", 1)[0]
        raise InputError(f"store scheme {scheme!r} is not known; use a folder, mongodb:// or mongodb+srv://")
    return FolderStore(Path(text).expanduser(), create=create, read_only=read_only)


def absolute(uri: str) -> str:
    """A folder as an absolute path, for processes that work in another directory; other URIs are returned unchanged."""
    return uri if "://" in uri else str(Path(uri).expanduser().resolve())


def open_feedback(uri: str | Path) -> FeedbackStore:
    """Open a store to write only feedback and exposures, while other processes may write the rest.

    Raises InputError when the store does not exist, or another process writes feedback to the folder.
    """
    store = open_store(uri, read_only=True)
    if not isinstance(store, FolderStore):
        store.close()
        return open_store(uri)
    return FolderEvents(Path(store.uri))
