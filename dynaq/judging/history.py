"""What an applicant did before, as a judge with memory is told it, and the ledger's key of what that judge then says.

A history is what the applicant did with other jobs, newest first, each job once. Two histories are the same if they
name the same jobs with the same events and the same coarse times in the same order. Times are coarse (`AGO`), so that
an event changes its applicant's history three times and not every day; each change makes new pairs of that applicant's,
which the ledger lacks. Titles do not count, since the ledger goes by ids everywhere.

A judge with memory says so in its fingerprint, after that of the same judge without:

    likelihood-2c34b5a8798d                                      without memory
    likelihood-2c34b5a8798d+memory5-0f3a91bc                     reads the last five events
    likelihood-2c34b5a8798d+memory5-0f3a91bc/6d1f0c2a9e5b7734    the ledger's key of what it said, told this history

Told nothing, it is asked what the judge without memory is asked, and its answer has that judge's key.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from dynaq.errors import InputError
from dynaq.records import Candidate, Job

Did = Literal["hire", "apply", "save", "click", "ignore"]
Ago = Literal["today", "this week", "this month", "earlier"]
AGO: tuple[Ago, ...] = get_args(Ago)
AGO_DAYS = (1.0, 7.0, 30.0)  # below which an event is of today, this week, this month
MAX_HISTORY = 20  # events
MAX_TITLE = 300  # characters of a title that travel with a history; a prompt shows fewer
_REMEMBERS = re.compile(r"(?P<base>.+)\+memory(?P<events>\d+)-[0-9a-f]{8}")
_TOLD = re.compile(rf"(?P<judge>{_REMEMBERS.pattern})/[0-9a-f]{{16}}")


class PastEvent(BaseModel):
    """One thing that an applicant did.

    Args:
        event: what, as in `dynaq.feedback.events`.
        job_id: with which job.
        ago: when.
        title: the job's; empty where whoever asks the judge reads it from the store.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: Did
    job_id: str = Field(min_length=1, max_length=512)
    ago: Ago
    title: str = Field(default="", max_length=MAX_TITLE)


History = tuple[PastEvent, ...]


class CandidateWithHistory(Candidate):
    """An applicant as a judge with memory reads them. The titles of the history are filled in."""

    history: History


def history_of(applicant: Candidate) -> History:
    """What comes with the applicant; empty for most."""
    return applicant.history if isinstance(applicant, CandidateWithHistory) else ()


def with_history(applicant: Candidate, history: History, jobs: Mapping[str, Job]) -> Candidate:
    """The applicant together with what they did; the applicant itself if that is nothing.

    jobs: by id, for titles that the history lacks.
    """
    if not history:
        return applicant
    told = tuple(
        one if one.title else one.model_copy(update={"title": jobs[one.job_id].title[:MAX_TITLE]}) for one in history
    )
    fields = {name: getattr(applicant, name) for name in Candidate.model_fields}
    return CandidateWithHistory(**fields, history=told)


def how_long_ago(days: float) -> Ago:
    """In coarse words."""
    return next((word for word, most in zip(AGO, AGO_DAYS, strict=False) if days < most), AGO[-1])


def remembering(fingerprint: str, events: int, **parts: Any) -> str:
    """The fingerprint of a judge that reads the last `events` events; parts: what else tells two such judges apart."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{fingerprint}+memory{events}-{digest[:8]}"


def memory_of(fingerprint: str) -> int:
    """How many events a judge reads, by its fingerprint; 0 for one without memory."""
    found = _REMEMBERS.fullmatch(fingerprint)
    return int(found["events"]) if found else 0


def without_memory(fingerprint: str) -> str:
    """The fingerprint of the same judge without memory."""
    found = _REMEMBERS.fullmatch(fingerprint)
    return found["base"] if found else fingerprint


def judge_of(key: str) -> str:
    """The fingerprint of the judge that gave an answer, by the answer's key in the ledger."""
    found = _TOLD.fullmatch(key)
    return found["judge"] if found else key


def ledger_key(fingerprint: str, history: History) -> str:
    """What stands in the ledger's column `judge` for an answer of this judge, told this history.

    Raises InputError for a history that the judge does not read, or that names a job twice.
    """
    if not history:
        return without_memory(fingerprint)
    most = memory_of(fingerprint)
    if not most:
        raise InputError(
            f"judge {fingerprint} has no memory; set memory in its configuration, or leave the history out"
        )
    if len(history) > most:
        raise InputError(f"a history of {len(history)} events; judge {fingerprint} reads {most}, the newest first")
    ids = [one.job_id for one in history]
    if len(set(ids)) < len(ids):
        twice = next(job_id for job_id in ids if ids.count(job_id) > 1)
        raise InputError(f"job {twice!r} is twice in the history; name its latest event only")
    text = json.dumps([[one.event, one.job_id, one.ago] for one in history], separators=(",", ":"))
    return f"{fingerprint}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def newest_answers(ledger: pa.Table, fingerprint: str) -> pa.Table:
    """Of each pair the newest answer of a judge, whatever it was told. ledger: with the columns of JUDGEMENT_SCHEMA."""
    keys = ledger.column("judge")
    own = ledger.filter(
        pc.or_(pc.equal(keys, without_memory(fingerprint)), pc.starts_with(keys, pattern=f"{fingerprint}/"))
    ).sort_by([("created_at", "ascending"), ("judge", "ascending")])
    pairs = zip(own.column("applicant_id").to_pylist(), own.column("job_id").to_pylist(), strict=True)
    last = {pair: row for row, pair in enumerate(pairs)}
    return own.take(pa.array(sorted(last.values()), pa.int64()))
