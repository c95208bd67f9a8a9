"""Converts raw fields from a file into a Job or a Candidate, or says why it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from dynaq.ingest.columns import FIELDS
from dynaq.ingest.file_formats import parse_json, plain
from dynaq.ingest.limits import MAX_RECORD_BYTES
from dynaq.layout import BLOCK_DIM, CANDIDATE_BLOCKS, JOB_BLOCKS
from dynaq.records import Candidate, Job
from dynaq.stores import FloatArray

JOB_FIELDS = FIELDS["jobs"]
CANDIDATE_FIELDS = FIELDS["candidates"]
JSON_FIELDS = frozenset(
    {"technical_skills", "soft_skills", "experience_requirements", "metadata", "hard_skills", "skills", "experience"}
)

# Bytes that are invalid UTF-8, or half of a surrogate pair written as an escape.
UNICODE = "broken UTF-8 or broken Unicode in its text"


class Rejected(Exception):
    """Why a record cannot be used."""


@dataclass(frozen=True)
class Parsed:
    """A usable record.

    Args:
        record: the job or candidate.
        vectors: block name -> float32 `[dimension]`, for vectors in the file under the collections' field names.
        ignored: fields that have no place in the record.
        document: whether it was read from a document rather than a table.
    """

    record: Job | Candidate
    vectors: dict[str, FloatArray]
    ignored: frozenset[str] = frozenset()
    document: bool = False


def parse_job(raw: Mapping[str, Any], dimension: int = BLOCK_DIM) -> Parsed:
    """Unknown fields become metadata; vectors must have `dimension` numbers. Raises Rejected."""
    fields, vectors, rest = _fields(raw, JOB_FIELDS, JOB_BLOCKS, dimension)
    metadata = fields.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise Rejected("metadata is not an object")
    try:
        fields["metadata"] = plain(rest | metadata)
    except ValueError as error:
        raise Rejected(str(error)) from None
    job = _validated(Job, fields)
    if not job.title.strip():
        raise Rejected("title is empty")
    return Parsed(job, vectors)


def parse_candidate(raw: Mapping[str, Any], dimension: int = BLOCK_DIM) -> Parsed:
    """`skills` is another name for `hard_skills`; vectors must have `dimension` numbers. Raises Rejected."""
    fields, vectors, rest = _fields(raw, CANDIDATE_FIELDS, CANDIDATE_BLOCKS, dimension)
    skills = fields.pop("skills", None)
    if "hard_skills" not in fields and skills is not None:
        fields["hard_skills"] = skills
    if isinstance(fields.get("experience"), list):
        try:
            fields["experience"] = plain(fields["experience"])
        except ValueError as error:
            raise Rejected(str(error).replace("metadata", "experience")) from None
    candidate = _validated(Candidate, fields)
    texts = [candidate.bio, *candidate.hard_skills, *candidate.soft_skills, *(p.title for p in candidate.experience)]
    if not any(text.strip() for text in texts):
        raise Rejected("bio, skills and experience are all empty")
    return Parsed(candidate, vectors, frozenset(rest))


def _fields(
    raw: Mapping[str, Any], names: tuple[str, ...], blocks: Mapping[str, str], dimension: int
) -> tuple[dict[str, Any], dict[str, FloatArray], dict[str, Any]]:
    """(known fields, vectors, the rest) of a raw record; null counts as absent."""
    given = {str(name): value for name, value in raw.items() if value is not None}
    fields = {name: given.pop(name) for name in names if name in given}
    if "id" not in fields:
        raise Rejected("id is missing")
    fields["id"] = _id(fields["id"])
    for name in JSON_FIELDS & fields.keys():
        fields[name] = _maybe_json(fields[name])
    vectors = {block: _vector(field, given.pop(field), dimension) for block, field in blocks.items() if field in given}
    return fields, vectors, given


def _id(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise Rejected(f"id is a {type(value).__name__}, not text or an integer")
    text = str(value)
    if not text.strip():
        raise Rejected("id is empty")
    return text


def _maybe_json(value: Any) -> Any:
    """Parse a cell: CSV and spreadsheets hold lists and objects as JSON, or lists as `;`-separated text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return parse_json(value)
        except ValueError:
            return value
    return value


def _vector(field: str, value: Any, dimension: int) -> FloatArray:
    value = _maybe_json(value)
    try:
        vector = np.asarray(value, np.float64)
    except (ValueError, TypeError):
        raise Rejected(f"{field} is no list of numbers") from None
    if vector.shape != (dimension,):
        raise Rejected(f"{field} has shape {vector.shape}, not ({dimension},)")
    with np.errstate(over="ignore"):
        rounded = vector.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise Rejected(f"{field} holds NaN or infinity")
    return rounded


def _validated(model: Any, fields: dict[str, Any]) -> Any:
    try:
        record = model.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "string_unicode":
            raise Rejected(UNICODE) from None
        place = ".".join(str(part) for part in first["loc"])
        raise Rejected(f"{place}: {first['msg']}") from None
    except RecursionError:
        raise Rejected("nested too deeply") from None
    try:
        size = len(record.model_dump_json().encode())
    except ValueError:
        raise Rejected(UNICODE) from None
    if size > MAX_RECORD_BYTES:
        raise Rejected(f"longer than {MAX_RECORD_BYTES >> 20} MiB")
    return record
