"""Erasure from a store, and the record that it happened: a salted hash and a date, nothing else.

The hash is scrypt (RFC 7914) under one salt per store, so that an operator who is asked about an id can find it, and
trying all ids costs ten milliseconds each. Who holds the record and knows the id learns the date: it is
pseudonymous, not anonymous.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from dynaq.stores import FeedbackStore, Store

SCRYPT = {"n": 1 << 12, "r": 8, "p": 1, "dklen": 16}


def forget_in_store(store: Store, applicant_id: str, events: FeedbackStore | None = None) -> dict[str, int]:
    """Erase an applicant from a store and record it. Returns how many rows of each table. Can be repeated.

    events: who writes the store's events, if not the store itself.
    """
    counts = dict((events or store).forget_events(applicant_id))
    counts |= store.forget_records(applicant_id)
    note_erasure(store, applicant_id)
    return counts


def holds_applicant(store: Store, applicant_id: str) -> bool:
    """Whether a store holds anything of an applicant."""
    own, qrels = [applicant_id], store.qrels()
    return bool(
        next(iter(store.records("candidate", own)), None) is not None
        or applicant_id in store.hashes("candidate")
        or (qrels and qrels.grades(applicant_id))
        or any(table.num_rows for table in (store.judgements(applicants=own), store.feedback(own)))
        or any(table.num_rows for table in (store.exposures(own), store.decisions(own)))
    )


def note_erasure(store: Store, applicant_id: str) -> None:
    """Record an erasure. A repeated one is recorded again, with its own date."""
    notes = store.forgotten()
    salt = notes[0]["salt"] if notes else os.urandom(16).hex()
    at = datetime.now(UTC).isoformat(timespec="seconds")
    store.note_forgotten({"hash": _hash(applicant_id, salt), "salt": salt, "at": at})


def erased_at(notes: Sequence[Mapping[str, str]], applicant_id: str) -> str | None:
    """When an applicant was erased last, by a store's record; None if never."""
    if not notes:
        return None
    hashed = _hash(applicant_id, notes[0]["salt"])
    return next((note["at"] for note in reversed(notes) if note["hash"] == hashed), None)


def _hash(applicant_id: str, salt: str) -> str:
    text = applicant_id.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(text, salt=bytes.fromhex(salt), **SCRYPT).hex()
