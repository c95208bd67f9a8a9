"""What only the MongoDB store has: databases filled by hand, credentials, indexes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pymongo
import pytest
from bson import ObjectId
from bson.binary import Binary, BinaryVectorDtype

from dynaq.errors import DynaqError, InputError
from dynaq.layout import CLASSIC
from dynaq.records import Candidate, Job
from dynaq.stores import mask_uri, open_store
from dynaq.stores.mongo_uri import scrub
from dynaq.tensor_cache import TensorCache
from tests.support.mongod import running_mongod

rng = np.random.default_rng(1)


def numbers() -> list[float]:
    return [float(x) for x in rng.standard_normal(384)]


def fill_by_hand(uri: str, ids: list[Any], people: list[Any]) -> dict[str, list[float]]:
    """The four collections as the schema has them, arrays of numbers, the optional block in every second job."""
    database: Any = pymongo.MongoClient(uri).get_default_database()
    titles = {}
    for i, id_ in enumerate(ids):
        database.jobs_text.insert_one(
            {"_id": id_, "job_title": f"T{i}", "description": "d", "technical_skills": ["a"], "soft_skills": ["b"],
             "experience_requirements": [], "metadata": {}, "posted_by": "hr"}
        )  # fmt: skip
        titles[str(id_)] = numbers()
        vectors: dict[str, Any] = {
            "original_job_id": id_, "job_title_embeddings": titles[str(id_)], "tech_skills_vectors": numbers(),
            "soft_skills_embeddings": numbers(),
        }  # fmt: skip
        if i % 2:
            vectors["experience_requirements_embeddings"] = numbers()
        database.job_embeddings.insert_one(vectors)
    for id_ in people:
        database.candidates_text.insert_one(
            {"_id": id_, "bio": "b", "skills": ["s"], "experience": [{"title": "t", "company": None, "years": 2}, {}]}
        )
        database.candidates_embeddings.insert_one(
            {"original_candidate_id": id_, "hard_skill_embeddings": numbers(), "soft_skills_embeddings": numbers()}
        )
    return titles


def test_a_database_filled_by_hand_loads_as_it_is(mongo_uri: str) -> None:
    ids = [ObjectId(), 17, "seventeen", ObjectId(), 4]
    titles = fill_by_hand(mongo_uri, ids, [1, "p", ObjectId()])
    with open_store(mongo_uri) as store:
        assert store.ids("job") == sorted(str(i) for i in ids)
        assert next(store.records("job", ["17"])).technical_skills == ("a",)
        assert next(store.records("candidate", ["p"])).experience[0].title == "t"
        cache = TensorCache.copy_from_database(store)
    assert cache.layout is CLASSIC
    assert cache.job_ids == tuple(sorted(str(i) for i in ids))
    assert cache.applicants.shape == (3, 768)
    for id_ in ids:
        row = cache.jobs[cache.job_index(str(id_))]
        np.testing.assert_array_equal(row[CLASSIC.action_slice("title")], np.float32(titles[str(id_)]))
        assert row[CLASSIC.action_slice("experience")].any() == bool(ids.index(id_) % 2)


def test_references_may_be_text_where_the_ids_are_not(mongo_uri: str) -> None:
    id_ = ObjectId()
    fill_by_hand(mongo_uri, [id_, 5], ["p"])
    database: Any = pymongo.MongoClient(mongo_uri).get_default_database()
    for document in database.job_embeddings.find():
        reference = str(document["original_job_id"])
        database.job_embeddings.update_one({"_id": document["_id"]}, {"$set": {"original_job_id": reference}})
    with open_store(mongo_uri) as store:
        assert TensorCache.copy_from_database(store).job_ids == tuple(sorted(["5", str(id_)]))


def test_one_unusable_document_costs_itself_only(mongo_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    bad_values: list[Any] = [
        [float("nan")] * 384, [0.5] * 383, "text", [["x"]], Binary(b"\x27\x00abc", 9), Binary(b"zz", 0), None, {"a": 1},
    ]  # fmt: skip
    fill_by_hand(mongo_uri, list(range(len(bad_values) + 2)), ["p"])
    database: Any = pymongo.MongoClient(mongo_uri).get_default_database()
    for id_, value in enumerate(bad_values):
        database.job_embeddings.update_one({"original_job_id": id_}, {"$set": {"tech_skills_vectors": value}})
    database.job_embeddings.insert_one({"original_job_id": "orphan", "job_title_embeddings": numbers()})
    with open_store(mongo_uri) as store, caplog.at_level(logging.WARNING):
        cache = TensorCache.copy_from_database(store)
    assert cache.job_ids == ("8", "9")
    assert "8 jobs left out" in caplog.text


def test_both_forms_of_a_vector_load_alike(mongo_uri: str) -> None:
    values = np.float32(rng.standard_normal(384))
    database: Any = pymongo.MongoClient(mongo_uri).get_default_database()
    forms = [values.tolist(), Binary.from_vector(values.tolist(), BinaryVectorDtype.FLOAT32)]
    for i, form in enumerate(forms):
        database.jobs_text.insert_one({"_id": i, "job_title": "t"})
        database.job_embeddings.insert_one({"original_job_id": i, "job_title_embeddings": form})
    with open_store(mongo_uri) as store:
        rows = [row for batch in store.vectors("job", ["title"]) for row in batch.blocks["title"]]
    np.testing.assert_array_equal(rows, np.stack([values, values]))


def test_documents_of_several_structures_in_one_reply_are_all_read(mongo_uri: str) -> None:
    database: Any = pymongo.MongoClient(mongo_uri).get_default_database()
    expected: dict[str, Any] = {}
    documents = []
    for i, id_ in enumerate(
        [1, 2, 1 << 40, ObjectId(), ObjectId(), "a", "b", "longer", "ünï", "", 3.5, 7, 8, "x" * 300]
    ):
        values = np.float32(rng.standard_normal(384))
        form = Binary.from_vector(values.tolist(), BinaryVectorDtype.FLOAT32)
        document = {"original_job_id": id_, "job_title_embeddings": form}
        if i % 3 == 1:
            document["content_hash"] = f"h{i}"
        if i % 4 == 2:
            document = {"soft_skills_embeddings": form, "content_hash": None, "note": {"nested": [form]}} | document
        if i % 5 == 3:
            document["job_title_embeddings"] = values.tolist()
        documents.append(document)
        expected[str(id_)] = (values, document.get("content_hash"), "soft_skills_embeddings" in document)
    database.jobs_text.insert_one({"_id": 1, "job_title": "t"})
    database.job_embeddings.insert_many([dict(d) for d in documents * 2])
    got = {}
    with open_store(mongo_uri, read_only=True) as store:
        for batch in store.vectors("job", ["title", "soft_skills"], optional=["soft_skills"]):
            for i, id_ in enumerate(batch.ids):
                has_soft = bool(batch.blocks["soft_skills"][i].any())
                got[id_] = (batch.blocks["title"][i], batch.hashes[i], has_soft)
    assert got.keys() == expected.keys()
    for id_, (values, hash_, has_soft) in expected.items():
        np.testing.assert_array_equal(got[id_][0], values)
        assert got[id_][1:] == (hash_, has_soft), id_


def test_arrays_of_numbers_are_read_exactly_whatever_their_types(mongo_uri: str) -> None:
    database: Any = pymongo.MongoClient(mongo_uri).get_default_database()
    arrays = [[float(x) for x in rng.standard_normal(384)] for _ in range(30)]
    arrays += [[1] * 384, [1.5] * 383 + [2], [1 << 40] * 384, [1e-300] * 384]
    bad = [
        [1e300] * 384,
        [0.5] * 383 + [float("inf")],
        [0.5] * 383 + ["x"],
        [True] * 384,
        [0.5] * 385,
        [None] * 384,
        [],
    ]
    database.jobs_text.insert_one({"_id": 0, "job_title": "t"})
    database.job_embeddings.insert_many(
        {"original_job_id": i, "job_title_embeddings": array} for i, array in enumerate(arrays + bad)
    )
    got, problems = {}, {}
    with open_store(mongo_uri, read_only=True) as store:
        for batch in store.vectors("job", ["title"]):
            got.update(zip(batch.ids, batch.blocks["title"], strict=True))
            problems.update(batch.problems)
    assert got.keys() == {str(i) for i in range(len(arrays))}
    assert problems.keys() == {str(i) for i in range(len(arrays), len(arrays) + len(bad))}
    for i, array in enumerate(arrays):
        np.testing.assert_array_equal(got[str(i)], np.float32(array))


def test_what_we_write_keeps_the_type_of_the_ids_and_foreign_fields(mongo_uri: str) -> None:
    id_ = ObjectId()
    fill_by_hand(mongo_uri, [id_, 3], [9])
    with open_store(mongo_uri) as store:
        store.put_records("job", [Job(id=str(id_), title="new"), Job(id="3", title="new"), Job(id="4", title="new")])
        store.put_records("candidate", [Candidate(id="9", bio="new")])
        blocks = {name: np.ones((3, 384), np.float32) for name in CLASSIC.action}
        store.put_vectors("job", [str(id_), "3", "4"], blocks, ["h1", "h2", "h3"])
    database: Any = pymongo.MongoClient(mongo_uri).get_default_database()
    assert {d["_id"] for d in database.jobs_text.find()} == {id_, 3, "4"}
    assert database.jobs_text.find_one({"_id": 3})["posted_by"] == "hr"
    assert [d["_id"] for d in database.candidates_text.find()] == [9]
    assert {d["original_job_id"] for d in database.job_embeddings.find()} == {id_, 3, "4"}
    assert database.job_embeddings.count_documents({}) == 3
    written = database.job_embeddings.find_one({"original_job_id": "4"})["job_title_embeddings"]
    assert written.as_vector().dtype is BinaryVectorDtype.FLOAT32


def test_ids_that_differ_only_in_type_are_an_error(mongo_uri: str) -> None:
    fill_by_hand(mongo_uri, [5, "5"], ["p"])
    with open_store(mongo_uri) as store, pytest.raises(InputError, match="'5'"):
        store.ids("job")


def test_indexes_are_created_once(mongo_uri: str) -> None:
    for _ in range(2):
        open_store(mongo_uri, create=True).close()
    database: Any = pymongo.MongoClient(mongo_uri).get_default_database()
    assert "original_job_id_content_hash" in database.job_embeddings.index_information()
    assert "original_candidate_id_content_hash" in database.candidates_embeddings.index_information()
    assert database.judgements.index_information()["pair_judge"]["unique"]


def test_the_database_is_rl_jobsdb_unless_the_uri_names_one(mongod: str) -> None:
    with open_store(mongod, create=True) as store:
        store.put_records("job", [Job(id="1", title="t")])
    client: Any = pymongo.MongoClient(mongod)
    assert client.rl_jobsdb.jobs_text.count_documents({}) == 1
    client.drop_database("rl_jobsdb")


@pytest.mark.parametrize(
    ("uri", "masked"),
    [
        ("mongodb://ann:s3cret@host:1/db", "mongodb://***@host:1/db"),
        ("mongodb://ann:s3@cr/et?x@host/db?tls=true", "mongodb://***@host/db"),
        ("mongodb+srv://ann:s3cret@host/?password=s3cret", "mongodb+srv://***@host/"),
        ("mongodb://host/db?tlsCertificateKeyFilePassword=s3cret", "mongodb://host/db"),
        ("./data/store", "./data/store"),
    ],
)
def test_credentials_are_masked(uri: str, masked: str) -> None:
    assert mask_uri(uri) == masked


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://ann:s3cret%21pw@127.0.0.1:1/db?serverSelectionTimeoutMS=50",
        "mongodb://ann:s3cret!p@w@127.0.0.1:1/db?serverSelectionTimeoutMS=50",
        "mongodb://ann:s3cret!pw@127.0.0.1:port/db",
        "mongodb://127.0.0.1:1/db?serverSelectionTimeoutMS=50&authMechanismProperties=s3cret!pw",
        "mongodb://127.0.0.1:1/db?serverSelectionTimeoutMS=50&tlsCertificateKeyFilePassword=s3cret!pw",
        "mongodb+srv://ann:s3cret!pw@127.0.0.1/db",
    ],
)
def test_errors_name_the_store_without_credentials(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(InputError) as failure:
        open_store(uri)
    message = str(failure.value)
    assert "127.0.0.1" in message
    assert "\n" not in message
    for secret in ("s3cret", "ann:"):
        assert secret not in message
        assert secret not in caplog.text
    assert failure.value.__cause__ is None


def test_scrub_leaves_harmless_text_alone() -> None:
    assert scrub("no host of ann", "mongodb://host/db") == "no host of ann"
    assert scrub("user ann pw s3cret", "mongodb://ann:s3cret@h/db") == "user *** pw ***"


@pytest.mark.slow
def test_a_server_that_dies_is_one_clear_line(tmp_path: Path) -> None:
    with running_mongod(tmp_path) as uri:
        store = open_store(uri + "/db?serverSelectionTimeoutMS=200", create=True)
    with pytest.raises(DynaqError) as failure:
        store.put_records("job", [Job(id="1", title="t")])
    store.close()
    assert "mongodb://127.0.0.1" in str(failure.value)
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 200
