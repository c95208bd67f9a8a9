"""That replies of one structure are read as tables, and only those; what they hold is test_mongo's matter."""

from __future__ import annotations

from typing import Any

import bson
import numpy as np
import pytest
from bson import ObjectId
from bson.binary import Binary, BinaryVectorDtype

from dynaq.stores.raw_bson import Table, read_reply

VECTOR = np.float32(np.random.default_rng(0).standard_normal(384))
BINARY = Binary.from_vector(VECTOR.tolist(), BinaryVectorDtype.FLOAT32)
ARRAY = [float(x) for x in VECTOR]


def read(*documents: dict[str, Any]) -> list[Any]:
    return list(read_reply(b"".join(map(bson.encode, documents)), ["ref"], ["v"], 384))


@pytest.mark.parametrize("vector", [BINARY, ARRAY])
@pytest.mark.parametrize("id_", ["text", "ünï", "", 7, 1 << 40, ObjectId(), None])
def test_documents_of_one_structure_are_one_table(vector: Any, id_: Any) -> None:
    (table,) = read(*[{"ref": id_, "v": vector}] * 3)
    assert isinstance(table, Table)
    assert table.rows == 3
    assert [str(key) for key in table.keys["ref"]] == [str(id_)] * 3
    np.testing.assert_array_equal(table.vectors["v"], [VECTOR] * 3)


def test_a_field_that_is_absent_everywhere_is_absent_from_the_table() -> None:
    (table,) = read({"ref": "a"})
    assert isinstance(table, Table)
    assert table.vectors == {}


@pytest.mark.parametrize(
    "odd",
    [
        {"ref": "a", "v": ARRAY[:383]},
        {"ref": "a", "v": [*ARRAY[:383], 1 << 40]},
        {"ref": "a", "v": Binary(bytes(BINARY), 128)},
        {"ref": "a", "v": "text"},
        {"ref": ARRAY, "v": ARRAY},
        {"ref": "a", "v": ARRAY, "more": {"x": 1}},
    ],
)
def test_a_document_that_deviates_goes_to_the_driver_and_the_others_do_not(odd: dict[str, Any]) -> None:
    parts = read({"ref": "a", "v": ARRAY}, odd, {"ref": "b", "v": ARRAY})
    (table,) = [part for part in parts if isinstance(part, Table)]
    assert table.keys["ref"] == ["a", "b"]
    (decoded,) = [document for part in parts if not isinstance(part, Table) for document in part]
    assert decoded == odd
