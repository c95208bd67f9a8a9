"""Input files with everything wrong that files have; what is right beside it is always kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynaq.errors import InputError
from dynaq.ingest import IngestReport, ingest_files
from dynaq.layout import CANDIDATE_BLOCKS, EXTENDED, JOB_BLOCKS
from dynaq.stores import Store, open_store
from dynaq.tensor_cache import TensorCache
from tests.support.embedders import HashEmbedder

GOOD = [{"id": "first", "title": "Nurse"}, {"id": "last", "title": "Gärtner"}]


@pytest.fixture
def store(store_uri: str) -> Iterator[Store]:
    with open_store(store_uri, create=True) as opened:
        yield opened


@pytest.fixture
def folder_store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "folder-store", create=True) as opened:
        yield opened


def ingest(store: Store, **options: Any) -> IngestReport:
    return ingest_files(store, encoder=HashEmbedder(), **options)


def rejections(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path.parent / "rejected.jsonl").read_text().splitlines()]


def write_jsonl(path: Path, *lines: Any) -> Path:
    texts = [line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode() for line in lines]
    path.write_bytes(b"\n".join(texts) + b"\n")
    return path


JOB: dict[str, Any] = {
    "id": "1", "title": "看護師", "description": "Größe; ok", "technical_skills": ["Python", "C"],
    "soft_skills": ["calm"], "experience_requirements": ["2 years"], "metadata": {"city": "Köln"},
}  # fmt: skip


def write_same_job(path: Path) -> Path:
    if path.suffix == ".jsonl":
        return write_jsonl(path, JOB)
    if path.suffix == ".csv":
        path.write_text(
            "\ufeffid,title,description,technical_skills,soft_skills,experience_requirements,metadata\n"
            '1,看護師,Größe; ok,Python;C,"[""calm""]",2 years,"{""city"": ""Köln""}"\n'
        )
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([JOB]), path)
    else:
        book = openpyxl.Workbook()
        sheet = book.active
        sheet.append(list(JOB))
        sheet.append([1, "看護師", "Größe; ok", "Python; C", "calm", '["2 years"]', '{"city": "Köln"}'])
        book.save(path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".xlsx"])
def test_every_format_brings_the_same_job(folder_store: Store, tmp_path: Path, suffix: str) -> None:
    report = ingest(folder_store, jobs=[write_same_job(tmp_path / f"jobs{suffix}")])
    assert (report.jobs.accepted, report.jobs.rejected, report.jobs.embedded) == (1, 0, 1)
    (job,) = folder_store.records("job")
    assert job.model_dump() == {
        **JOB, "technical_skills": ("Python", "C"), "soft_skills": ("calm",), "experience_requirements": ("2 years",),
    }  # fmt: skip
    assert not (tmp_path / "rejected.jsonl").exists()


def test_candidates_by_either_name_of_their_skills(store: Store, tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "c.jsonl",
        {"id": 1, "bio": "b", "skills": "x; y", "experience": [{"title": "T", "company": "C", "from": 2001}]},
        {"id": "2", "hard_skills": ["z"], "soft_skills": ["s"], "experience": "Cook;Waiter"},
    )
    report = ingest(store, candidates=[path])
    assert (report.candidates.accepted, report.candidates.embedded) == (2, 2)
    first, second = store.records("candidate")
    assert first.hard_skills == ("x", "y")
    assert first.experience[0].model_dump() == {"title": "T", "company": "C", "from": 2001}
    assert second.hard_skills == ("z",)
    assert [p.title for p in second.experience] == ["Cook", "Waiter"]


def nested(depth: int) -> bytes:
    return b'{"id": "deep", "title": "t", "metadata": {"x": ' + b"[" * depth + b"]" * depth + b"}}"


BAD_JOBS: dict[str, tuple[Any, str]] = {
    "title of the wrong type": ({"id": "x", "title": 5}, "title"),
    "list of the wrong type": ({"id": "x", "title": "t", "technical_skills": [1]}, "technical_skills"),
    "object for a list": ({"id": "x", "title": "t", "soft_skills": {"a": 1}}, "soft_skills"),
    "metadata that is text": ({"id": "x", "title": "t", "metadata": "m"}, "metadata"),
    "no id": ({"title": "t"}, "id is missing"),
    "null id": ({"id": None, "title": "t"}, "id is missing"),
    "empty id": ({"id": " ", "title": "t"}, "id is empty"),
    "id that is a list": ({"id": ["x"], "title": "t"}, "id is a list"),
    "id that is true": ({"id": True, "title": "t"}, "id is a bool"),
    "no title": ({"id": "x", "description": "d"}, "title"),
    "empty title": ({"id": "x", "title": " \t"}, "title is empty"),
    "duplicate id": ({"id": "first", "title": "again"}, "there already, in .* line 1"),
    "broken UTF-8": (b'{"id": "x", "title": "\xc3\x28"}', "broken UTF-8"),
    "half a surrogate pair": (b'{"id": "x", "title": "\\ud83d"}', "Unicode"),
    "no JSON": (b'{"id": "x", "title": ', "not JSON"),
    "JSON that is no object": (b'["x"]', "not a JSON object"),
    "half a surrogate pair in metadata": (b'{"id": "x", "title": "t", "metadata": {"k": "\\udc00"}}', "Unicode"),
    "half a surrogate pair in the id": (b'{"id": "\\udc00", "title": "t"}', "Unicode"),
    "NaN in metadata": (b'{"id": "x", "title": "t", "metadata": {"n": NaN}}', "NaN"),
    "nesting beyond the parser": (nested(200_000), "nested too deeply"),
    "nesting beyond the stores": (nested(200), "deeper than 32"),
    "an integer beyond 64 bits": ({"id": "x", "title": "t", "metadata": {"n": 1 << 70}}, "64 bits"),
    "a key with NUL": ({"id": "x", "title": "t", "metadata": {"a\0b": 1}}, "NUL"),
    "20 MB of text": ({"id": "x", "title": "t", "description": "x" * (20 << 20)}, "15 MiB"),
    "vector with NaN": ({"id": "x", "title": "t", "tech_skills_vectors": ["NaN"] * 384}, "NaN"),
    "vector too short": ({"id": "x", "title": "t", "tech_skills_vectors": [0.1] * 383}, r"\(383,\)"),
    "vector of text": ({"id": "x", "title": "t", "tech_skills_vectors": ["a"] * 384}, "no list of numbers"),
    "vector nested": ({"id": "x", "title": "t", "tech_skills_vectors": [[0.1] * 384]}, "shape"),
}


@pytest.mark.parametrize("case", BAD_JOBS)
def test_a_bad_job_is_rejected_with_its_line_and_its_neighbours_are_kept(
    folder_store: Store, tmp_path: Path, case: str
) -> None:
    line, reason = BAD_JOBS[case]
    path = write_jsonl(tmp_path / "jobs.jsonl", GOOD[0], line, b"", GOOD[1])
    report = ingest(folder_store, jobs=[path])
    assert (report.jobs.accepted, report.jobs.rejected) == (2, 1)
    assert [(j.id, j.title) for j in folder_store.records("job")] == [("first", "Nurse"), ("last", "Gärtner")]
    (rejected,) = rejections(path)
    assert (rejected["file"], rejected["line"]) == ("jobs.jsonl", 2)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(rejected["reason"])
    assert report.rejected_files == (tmp_path / "rejected.jsonl",)
    assert report.rejections[0].line == 2


@pytest.mark.slow
def test_everything_that_is_accepted_fits_both_stores(store: Store, tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "jobs.jsonl",
        {"id": "big", "title": "t", "description": "ж" * (5 << 20)},
        {"id": "$odd", "title": "t", "metadata": {"a.b": {"$c": [1, 2.5, None]}, "": ""}, "salary": 3, "place": "Rom"},
        nested(20),
        {"id": "int", "title": "t", "metadata": {"n": (1 << 63) - 1}},
        {"id": "ünï 🙂", "title": "t\0u"},
    )
    report = ingest(store, jobs=[path])
    assert report.jobs.rejected == 0, rejections(path)
    jobs = {j.id: j for j in store.records("job")}
    assert len(jobs["big"].description) == 5 << 20
    assert jobs["$odd"].metadata == {"a.b": {"$c": [1, 2.5, None]}, "": "", "salary": 3, "place": "Rom"}
    assert jobs["int"].metadata["n"] == (1 << 63) - 1
    assert jobs["ünï 🙂"].title == "t\0u"
    assert len(store.hashes("job")) == 5


BAD_CANDIDATES: dict[str, tuple[Any, str]] = {
    "nothing to say": ({"id": "x", "bio": " ", "skills": []}, "all empty"),
    "experience without a title": ({"id": "x", "experience": [{"company": "c"}]}, "experience.0.title"),
    "experience that is a number": ({"id": "x", "experience": 7}, "experience"),
    "skills that are numbers": ({"id": "x", "skills": [1, 2]}, "hard_skills"),
    "vector too long": ({"id": "x", "bio": "b", "hard_skill_embeddings": [0.0] * 385}, r"\(385,\)"),
    "infinite vector": ({"id": "x", "bio": "b", "hard_skill_embeddings": [1e300] * 384}, "infinity"),
}


@pytest.mark.parametrize("case", BAD_CANDIDATES)
def test_a_bad_candidate_is_rejected_and_its_neighbours_are_kept(
    folder_store: Store, tmp_path: Path, case: str
) -> None:
    line, reason = BAD_CANDIDATES[case]
    path = write_jsonl(tmp_path / "c.jsonl", {"id": "a", "bio": "b"}, line, {"id": "b", "bio": "b"})
    report = ingest(folder_store, candidates=[path])
    assert (report.candidates.accepted, report.candidates.rejected) == (2, 1)
    assert folder_store.ids("candidate") == ["a", "b"]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(rejections(path)[0]["reason"])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'x,"open quote', "not CSV"),
        (b'x,"a"b', "not CSV"),
        (b"x,too,many", "3 fields where the header names 2"),
        (b"x", "1 fields where the header names 2"),
        (b"x,\xff\xfe", "broken UTF-8"),
        (b",no id", "id is missing"),
        (b"x,", "title"),
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
def test_a_bad_csv_row_costs_itself_only(
    folder_store: Store, tmp_path: Path, bad: bytes, reason: str, quoted: bool
) -> None:
    path = tmp_path / "jobs.csv"
    first = b'1,"two\nlines"' if quoted else b"1,one"
    path.write_bytes(b"\n".join([b"id,title", first, bad, b"2,two", b"", b'3,"three"' if quoted else b"3,three"]))
    report = ingest(folder_store, jobs=[path])
    assert folder_store.ids("job") == ["1", "2", "3"]
    (rejected,) = rejections(path)
    assert rejected["line"] == (4 if quoted else 3)
    assert reason in rejected["reason"]
    assert report.jobs.rejected == 1


def test_broken_text_in_parquet_costs_one_row(folder_store: Store, tmp_path: Path) -> None:
    ids = pa.array(["a", "b", "c"])
    titles = pa.array([b"one", b"\xff", b"three"]).view(pa.string())
    pq.write_table(pa.table({"id": ids, "title": titles}), tmp_path / "jobs.parquet")
    report = ingest(folder_store, jobs=[tmp_path / "jobs.parquet"])
    assert folder_store.ids("job") == ["a", "c"]
    assert report.rejections[0].line == 2


def test_numbers_dates_and_blank_rows_of_a_spreadsheet(folder_store: Store, tmp_path: Path) -> None:
    import datetime as dt

    book = openpyxl.Workbook()
    sheet = book.active
    for row in (["id", "title", "posted", None], [7.0, 2024, dt.date(2024, 5, 1), "stray"], [], ["8", None, None]):
        sheet.append(row)
    book.save(tmp_path / "jobs.xlsx")
    report = ingest(folder_store, jobs=[tmp_path / "jobs.xlsx"])
    (job,) = folder_store.records("job")
    assert (job.id, job.title) == ("7", "2024")
    assert job.metadata["posted"].startswith("2024-05-01")
    assert report.rejections[0].line == 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("jobs.txt", b"x", "extension"),
        ("jobs.parquet", b"PAR1", "no Parquet file"),
        ("jobs.xlsx", b"PK\x03\x04", "no .xlsx workbook"),
        ("jobs.csv", b"", "no header"),
        ("jobs.csv", b"id,id\n1,2\n", "'id' is there twice"),
        ("jobs.jsonl", '{"id": "1"}'.encode("utf-16"), "UTF-16"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_an_input_error(
    folder_store: Store, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        ingest(folder_store, jobs=[tmp_path / name])


def test_a_file_that_is_not_there_is_an_input_error_before_anything_is_written(
    folder_store: Store, tmp_path: Path
) -> None:
    good = write_jsonl(tmp_path / "jobs.jsonl", *GOOD)
    with pytest.raises(InputError, match=r"nowhere\.csv does not exist"):
        ingest(folder_store, jobs=[good, tmp_path / "nowhere.csv"])
    assert folder_store.ids("job") == []


def test_the_same_id_in_two_files_is_a_duplicate(folder_store: Store, tmp_path: Path) -> None:
    one, two = (write_jsonl(tmp_path / f"{i}.jsonl", {"id": 5, "title": f"in {i}"}) for i in (1, 2))
    report = ingest(folder_store, jobs=[one, two])
    assert (report.jobs.accepted, report.jobs.rejected) == (1, 1)
    assert next(folder_store.records("job")).title == "in 1"


def test_a_dry_run_counts_and_writes_nothing(store: Store, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "jobs.jsonl", *GOOD, {"id": "bad"})
    for target in (store, None):
        report = ingest_files(target, jobs=[path], dry_run=True)
        assert (report.jobs.accepted, report.jobs.rejected) == (2, 1)
        assert report.rejections[0].reason.startswith("title")
    assert store.ids("job") == []
    assert store.meta() == {}
    assert [p.name for p in tmp_path.glob("*.jsonl")] == ["jobs.jsonl"]


def test_rejected_records_can_be_the_next_input(folder_store: Store, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rejected.jsonl", *GOOD, {"id": "bad"})
    assert ingest(folder_store, jobs=[path]).jobs.accepted == 2
    assert [r["id"] for r in rejections(path)] == ["bad"]


def test_progress_is_told_for_reading_and_embedding(folder_store: Store, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "jobs.jsonl", *({"id": i, "title": f"t{i}"} for i in range(3000)))
    told: list[tuple[str, int, int | None]] = []
    ingest(folder_store, jobs=[path], progress=lambda *step: told.append(step))
    assert ("reading jobs", 1024, None) in told
    assert told[-1] == ("embedding jobs", 3000, 3000)


def test_vectors_that_a_file_brings_are_used_instead_of_embedding(store: Store, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    job = {"id": "j", "title": "t"} | {JOB_BLOCKS[b]: rng.standard_normal(384).tolist() for b in EXTENDED.action}
    person = {"id": "p", "bio": "b"} | {CANDIDATE_BLOCKS[b]: [0.5] * 384 for b in EXTENDED.state}
    encoder = HashEmbedder()
    report = ingest_files(
        store, encoder=encoder, jobs=[write_jsonl(tmp_path / "j.jsonl", job)],
        candidates=[write_jsonl(tmp_path / "p.jsonl", person)],
    )  # fmt: skip
    assert encoder.texts == []
    assert (report.jobs.embedded, report.jobs.unchanged) == (0, 1)
    cache = TensorCache.copy_from_database(store)
    np.testing.assert_array_equal(cache.jobs[0, EXTENDED.action_slice("title")], np.float32(job[JOB_BLOCKS["title"]]))
    assert (cache.applicants == 0.5).all()


def test_fields_of_a_candidate_that_have_no_place_are_named(
    folder_store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ingest(folder_store, candidates=[write_jsonl(tmp_path / "c.jsonl", {"id": 1, "bio": "b", "age": 3})])
    assert "ignored: age" in caplog.text
