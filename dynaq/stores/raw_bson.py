"""Reads vectors directly from the bytes of a MongoDB reply.

Documents that one program wrote have one structure: the same fields in the same order with values of the same lengths,
Binary Vectors or arrays of as many doubles. Such a reply is a table already, and is read as one, without making an
object per document, field and number. Whatever deviates is left to the driver's decoder.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import bson
import numpy as np
import numpy.typing as npt
from bson.codec_options import CodecOptions

from dynaq.stores.base import FloatArray

Bytes = npt.NDArray[np.uint8]
STRING, ARRAY, BINARY, OBJECT_ID, NULL, INT32, INT64 = 0x02, 0x04, 0x05, 0x07, 0x0A, 0x10, 0x12
VECTORS = (ARRAY, BINARY)
DOUBLE = 0x01
FIXED = {OBJECT_ID: 12, NULL: 0, INT32: 4, INT64: 8}
CODEC_OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict[str, Any], tz_aware=True, unicode_decode_error_handler="replace"
)


@dataclass(frozen=True)
class Form:
    """The bytes of a vector of some dimension.

    Args:
        head: of a Binary Vector: length, subtype vector, FLOAT32, no padding.
        binary: bytes of its numbers.
        groups: BSON stores an array as a document with keys "0", "1", …, so elements whose keys have equally many
            digits are equally long: per number of digits (offset, count, bytes per element).
        array: bytes of an array.
        keys: per group, the expected type and key bytes of its elements, `[count, bytes]`.
    """

    head: bytes
    binary: int
    groups: tuple[tuple[int, int, int], ...]
    array: int
    keys: tuple[Bytes, ...]


@lru_cache(8)
def vector_form(dimension: int) -> Form:
    """The form of vectors with that many numbers."""
    groups: list[tuple[int, int, int]] = []
    keys: list[Bytes] = []
    offset, first, digits = 4, 0, 1
    while first < dimension:
        end = min(10**digits, dimension)
        heads = [bytes([DOUBLE]) + str(i).encode() + b"\0" for i in range(first, end)]
        keys.append(np.frombuffer(b"".join(heads), np.uint8).reshape(len(heads), -1))
        groups.append((offset, end - first, len(heads[0]) + 8))
        offset += groups[-1][1] * groups[-1][2]
        first, digits = end, digits + 1
    head = struct.pack("<i", 2 + 4 * dimension) + b"\x09\x27\x00"
    return Form(head, 4 * dimension, tuple(groups), offset + 1, tuple(keys))


@dataclass(frozen=True)
class Table:
    """`rows` documents of one structure: their key fields as values and vector fields as `[rows, dim]`, if present."""

    rows: int
    keys: dict[str, list[Any]]
    vectors: dict[str, FloatArray]


def read_reply(
    reply: bytes, keys: Sequence[str], vectors: Sequence[str], dimension: int
) -> Iterator[Table | list[dict[str, Any]]]:
    """A reply as tables where its documents have their vectors in our form, as decoded documents elsewhere.

    Args:
        reply: concatenated BSON documents.
        keys: fields with text, integers, ObjectIds or null.
        vectors: fields with Binary Vectors.
        dimension: numbers per vector.
    """
    form = vector_form(dimension)
    starts = defaultdict(list)
    position = 0
    while position < len(reply):
        (length,) = struct.unpack_from("<i", reply, position)
        starts[length].append(position)
        position += length
    for length, places in starts.items():
        documents = [reply[start : start + length] for start in places] if len(starts) > 1 else None
        rows = np.frombuffer(reply if documents is None else b"".join(documents), np.uint8).reshape(-1, length)
        spans = _spans(rows[0].tobytes(), keys, vectors, form)
        if spans is None:
            yield bson.decode_all(rows.tobytes(), CODEC_OPTIONS)
            continue
        alike = _alike(rows, spans, form)
        if not alike.all():
            yield bson.decode_all(rows[~alike].tobytes(), CODEC_OPTIONS)
            rows = rows[alike]
        yield Table(
            len(rows),
            {name: _values(rows, *spans[name]) for name in keys if name in spans},
            {name: _floats(rows, *spans[name], form) for name in vectors if name in spans},
        )


Spans = dict[str, tuple[int, int, int]]


def _spans(document: bytes, keys: Sequence[str], vectors: Sequence[str], form: Form) -> Spans | None:
    """Field -> (type, start, end) of its value's bytes; None when the document is not of our form."""
    wanted = {*keys, *vectors}
    spans: Spans = {}
    position = 4
    while document[position] != 0:
        kind = document[position]
        end_of_name = document.index(0, position + 1)
        name = document[position + 1 : end_of_name].decode(errors="replace")
        start = end_of_name + 1
        if kind == STRING:
            (length,) = struct.unpack_from("<i", document, start)
            span = (kind, start + 4, start + 3 + length)
            position = start + 4 + length
        elif kind == BINARY:
            if document[start : start + len(form.head)] != form.head:
                return None
            span = (kind, start + len(form.head), start + len(form.head) + form.binary)
            position = span[2]
        elif kind == ARRAY:
            if document[start : start + 4] != struct.pack("<i", form.array):
                return None
            span = (kind, start, start + form.array)
            position = span[2]
        elif kind in FIXED:
            span = (kind, start, start + FIXED[kind])
            position = span[2]
        else:
            return None
        spans[name] = span
    as_expected = all((span[0] in VECTORS) == (name in vectors) for name, span in spans.items() if name in wanted)
    return spans if as_expected else None


def _alike(rows: Bytes, spans: Spans, form: Form) -> npt.NDArray[np.bool_]:
    """Mask of the rows whose bytes between the values (types, names, lengths) are those of the first."""
    structure = np.ones(rows.shape[1], bool)
    for _, start, end in spans.values():
        structure[start:end] = False
    places = np.flatnonzero(structure)
    alike: npt.NDArray[np.bool_] = (rows[:, places] == rows[0, places]).all(axis=1)
    for kind, start, _ in spans.values():
        if kind == ARRAY:
            alike &= (rows[:, start : start + 4] == rows[0, start : start + 4]).all(axis=1)
            for elements, keys in zip(_elements(rows, start, form), form.keys, strict=True):
                alike &= (elements[:, :, :-8] == keys).all(axis=(1, 2))
    return alike


def _elements(rows: Bytes, start: int, form: Form) -> list[Bytes]:
    """The elements of an array of doubles, `[n, count, bytes]` for each number of digits of the key."""
    views = []
    for offset, count, width in form.groups:
        begin = start + offset
        views.append(rows[:, begin : begin + count * width].reshape(len(rows), count, width))
    return views


def _values(rows: Bytes, kind: int, start: int, end: int) -> list[Any]:
    width = end - start
    if kind == NULL:
        return [None] * len(rows)
    data = rows[:, start:end].tobytes()
    if kind in (INT32, INT64):
        numbers: list[Any] = np.frombuffer(data, "<i4" if kind == INT32 else "<i8").tolist()
        return numbers
    cells = [data[i : i + width] for i in range(0, len(data), width)] if width else [b""] * len(rows)
    if kind == OBJECT_ID:
        return [cell.hex() for cell in cells]
    return [cell.decode("utf-8", "replace") for cell in cells]


def _floats(rows: Bytes, kind: int, start: int, end: int, form: Form) -> FloatArray:
    if kind == BINARY:
        return np.ascontiguousarray(rows[:, start:end]).view("<f4")
    numbers = [np.ascontiguousarray(part[:, :, -8:]).view("<f8")[:, :, 0] for part in _elements(rows, start, form)]
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, which the caller finds
        floats: FloatArray = np.concatenate(numbers, axis=1).astype(np.float32)
    return floats
