"""Converts MongoDB documents to records and back, and decodes both forms in which a document holds a vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from bson import ObjectId
from bson.binary import VECTOR_SUBTYPE, Binary
from pydantic import ValidationError

from dynaq.errors import InputError
from dynaq.records import Candidate, Job
from dynaq.stores.base import Collections, FloatArray, Kind, VectorBatch, usable_rows
from dynaq.stores.raw_bson import Table

FLOAT32_HEADER = b"\x27\x00"  # BSON vector: element type FLOAT32, no padding
_subtype = attrgetter("subtype")


def job_to_document(job: Job) -> dict[str, Any]:
    """A document of `jobs_text`."""
    return {
        "_id": job.id,
        "job_title": job.title,
        "description": job.description,
        "technical_skills": list(job.technical_skills),
        "soft_skills": list(job.soft_skills),
        "experience_requirements": list(job.experience_requirements),
        "metadata": job.metadata,
    }


def job_from_document(document: dict[str, Any]) -> Job:
    """The job in a document of `jobs_text`. Raises InputError naming the document when it is invalid."""
    try:
        return Job.model_validate(
            {
                "id": str(document["_id"]),
                "title": document.get("job_title"),
                "description": document.get("description") or "",
                "technical_skills": document.get("technical_skills"),
                "soft_skills": document.get("soft_skills"),
                "experience_requirements": document.get("experience_requirements"),
                "metadata": document.get("metadata") or {},
            }
        )
    except ValidationError as error:
        raise _unusable("jobs_text", document, error) from None


def candidate_to_document(candidate: Candidate) -> dict[str, Any]:
    """A document of `candidates_text`."""
    return {
        "_id": candidate.id,
        "bio": candidate.bio,
        "skills": list(candidate.hard_skills),
        "soft_skills": list(candidate.soft_skills),
        "experience": [position.model_dump() for position in candidate.experience],
    }


def candidate_from_document(document: dict[str, Any]) -> Candidate:
    """The candidate in a document of `candidates_text`. Raises InputError naming the document when it is invalid."""
    try:
        return Candidate.model_validate(
            {
                "id": str(document["_id"]),
                "bio": document.get("bio") or "",
                "hard_skills": document.get("skills"),
                "soft_skills": document.get("soft_skills"),
                "experience": [_position(item) for item in document.get("experience") or ()],
            }
        )
    except ValidationError as error:
        raise _unusable("candidates_text", document, error) from None


def _position(item: Any) -> Any:
    """A past position in any form found in practice: a bare title, or fields of which some are null."""
    if not isinstance(item, dict):
        return item
    return {"title": ""} | {name: value for name, value in item.items() if value is not None}


def _unusable(collection: str, document: dict[str, Any], error: ValidationError) -> InputError:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return InputError(f"{collection} document {document['_id']!r}: {field}: {first['msg']}; correct or remove it")


TO_DOCUMENT: Mapping[Kind, Callable[[Any], dict[str, Any]]] = {
    "job": job_to_document,
    "candidate": candidate_to_document,
}
FROM_DOCUMENT: Mapping[Kind, Callable[[dict[str, Any]], Job | Candidate]] = {
    "job": job_from_document,
    "candidate": candidate_from_document,
}


def decode_vectors(
    values: Sequence[Any], ids: Sequence[str], field: str, dimension: int, optional: bool, problems: dict[str, str]
) -> FloatArray:
    """A column of documents as float32 `[len(values), dimension]`.

    Args:
        values: Binary Vectors, arrays of numbers, or None.
        ids: whose they are.
        field: for messages.
        dimension: numbers per vector.
        optional: None is zeros instead of a problem.
        problems: id -> reason, added to where a value is no vector of that many numbers.
    """
    length = len(FLOAT32_HEADER) + 4 * dimension
    if set(map(type, values)) == {Binary} and set(map(len, values)) == {length}:
        rows = np.frombuffer(b"".join(values), np.uint8).reshape(-1, length)
        header = np.frombuffer(FLOAT32_HEADER, np.uint8)
        if (rows[:, : len(header)] == header).all() and set(map(_subtype, values)) == {VECTOR_SUBTYPE}:
            return np.ascontiguousarray(rows[:, len(header) :]).view("<f4")
    out = np.zeros((len(values), dimension), np.float32)
    for row, value in enumerate(values):
        if value is None:
            if not optional:
                problems.setdefault(ids[row], f"no {field}")
            continue
        try:
            vector = _decode_one(value)
        except (ValueError, TypeError, OverflowError):
            problems.setdefault(ids[row], f"{field} is neither an array of numbers nor a Binary Vector of them")
            continue
        if vector.shape != (dimension,):
            problems.setdefault(ids[row], f"{field} has shape {vector.shape}, not ({dimension},)")
            continue
        out[row] = vector
    return out


def vector_length(value: Any) -> int | None:
    """How many numbers a stored vector has; None when it is not a vector."""
    try:
        vector = _decode_one(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return len(vector) if vector.ndim == 1 else None


def _decode_one(value: Any) -> FloatArray:
    if isinstance(value, Binary):
        if value.subtype != VECTOR_SUBTYPE:
            raise ValueError
        return np.asarray(value.as_vector().data, np.float32)
    if not isinstance(value, list):
        raise TypeError
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "fiu":
        raise TypeError
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def vector_batch(
    part: Table | list[dict[str, Any]],
    names: Collections,
    fields: Mapping[str, str],
    dimension: int,
    optional: Sequence[str],
) -> VectorBatch:
    """Vectors of one part of a reply, which is a table or a list of documents."""
    problems: dict[str, str] = {}
    if isinstance(part, Table):
        nothing = [None] * part.rows
        ids = [str(value) for value in part.keys.get(names.reference, nothing)]
        arrays = {
            name: part.vectors[field]
            if field in part.vectors
            else decode_vectors(nothing, ids, field, dimension, name in optional, problems)
            for name, field in fields.items()
        }
        return usable_rows(ids, arrays, part.keys.get("content_hash", nothing), problems)
    ids = [str(d.get(names.reference)) for d in part]
    arrays = {
        name: decode_vectors([d.get(field) for d in part], ids, field, dimension, name in optional, problems)
        for name, field in fields.items()
    }
    return usable_rows(ids, arrays, [d.get("content_hash") for d in part], problems)


def id_forms(id_: str) -> list[Any]:
    """Everything that an id may be in the database: the text itself, or the integer or ObjectId that it spells."""
    forms: list[Any] = [id_]
    if id_.lstrip("-").isdecimal() and id_.isascii() and str(int(id_)) == id_ and abs(int(id_)) < 1 << 63:
        forms.append(int(id_))
    if len(id_) == 24 and ObjectId.is_valid(id_):
        forms.append(ObjectId(id_))
    return forms
