"""dynaq ingest: several files after one option, what was rejected is said, a store that can be trained on comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from pymongo import MongoClient

from dynaq.ingest import IngestReport, InputOptions, ingest_files
from dynaq.records import Candidate
from dynaq.stores import open_store
from jobs.cli import run
from tests.support.embedders import HashEmbedder
from tests.support.occupations import RUSSIAN
from tests.support.openai_server import openai_server
from tests.support.postings import hh_vacancies, kaggle_postings


@pytest.mark.slow
def test_several_files_go_into_one_store_and_the_rejected_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"id": "1", "title": "Nurse", "technical_skills": "triage;care"}) + "\n"
    )
    (tmp_path / "b.csv").write_text("id,title\n2,Cook\n3,\n")
    (tmp_path / "people.jsonl").write_text(json.dumps({"id": "p", "bio": "I cook.", "skills": ["cooking"]}) + "\n")
    files = ["--jobs", f"{tmp_path}/a.jsonl", f"{tmp_path}/b.csv", "--candidates", f"{tmp_path}/people.jsonl"]
    assert run(["ingest", "--store", f"{tmp_path}/store", *files]) == 0
    said = capsys.readouterr().out
    assert "jobs: 2 accepted, 1 rejected" in said
    assert "candidates: 1 accepted, 0 rejected" in said
    with open_store(f"{tmp_path}/store", read_only=True) as store:
        assert (store.ids("job"), len(store.hashes("job")), len(store.hashes("candidate"))) == (["1", "2"], 2, 1)


def test_nothing_is_made_when_nothing_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("foo,bar\n" + "1,Cook\n" * 4000)
    assert run(["ingest", "--store", f"{tmp_path}/store", "--jobs", f"{tmp_path}/a.csv"]) == 2
    said = capsys.readouterr()
    assert "jobs: 0 accepted, 4000 rejected" in said.out
    assert said.out.count("Field required") == 1
    assert "columns found: foo, bar; no column was taken for title" in said.err
    assert "--map title=COLUMN" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv"]


def test_a_file_that_breaks_later_leaves_no_empty_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("id,title\n1,Cook\n")
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    files = [f"{tmp_path}/b.parquet", f"{tmp_path}/a.csv"]
    assert run(["ingest", "--store", f"{tmp_path}/store", "--jobs", *files]) == 2
    assert not (tmp_path / "store").exists()


def test_a_dry_run_sums_up_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("id,Job Title,skills\n1,Cook,\n" + "2,,\n" * 30 + '3,Nurse,"care, pills"\n')
    assert run(["ingest", "--store", f"{tmp_path}/store", "--jobs", f"{tmp_path}/a.csv", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "title ← Job Title, technical_skills ← skills" in said
    assert "jobs: 2 accepted, 30 rejected, 1 mended" in said
    assert "rejected: 30 × title: Field required (first: a.csv line 3)" in said
    assert "columns found: id, Job Title, skills; read as title ← Job Title; if others are meant, name them" in said
    assert len(said.splitlines()) <= 6
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("header", ["foo,bar", "id,title"])
def test_a_dry_run_in_which_nothing_can_be_used_says_what_to_type_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], header: str
) -> None:
    (tmp_path / "a.csv").write_text(f"{header},technical_skills,x\n" + "1,,a;b,Cook\n" * 3)
    assert run(["ingest", "--store", f"{tmp_path}/s", "--jobs", f"{tmp_path}/a.csv", "--dry-run"]) == 2
    said = capsys.readouterr()
    assert f"columns found: {header.replace(',', ', ')}, technical_skills, x" in said.out
    assert said.out.count("--map title=COLUMN") == 1
    assert "none of 3 jobs can be used; nothing was written" in said.err


def test_candidates_without_texts_say_which_columns_were_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("id,about,essay\n1,I cook.,x\n" + "2,,I bake.\n3,,I weld.\n")
    assert run(["ingest", "--store", f"{tmp_path}/s", "--candidates", f"{tmp_path}/a.csv", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "candidates: 1 accepted, 2 rejected" in said
    assert "columns found: id, about, essay; read as bio ← about; if others are meant" in said
    assert "--map bio=COLUMN,hard_skills=COLUMN" in said


def test_a_few_empty_cells_in_the_right_column_call_for_no_advice(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,Job Title\n" + "".join(f"{n},Cook\n" for n in range(9)) + "x,\n")
    report = ingest_files(None, jobs=[tmp_path / "a.csv"], dry_run=True)
    assert (report.jobs.rejected, report.advice) == (1, ())


@pytest.mark.slow
def test_a_mapping_is_remembered_for_the_next_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"k,what,who\n{name},{name} work,x\n")
    store = ["ingest", "--store", f"{tmp_path}/store", "--jobs"]
    assert run([*store, f"{tmp_path}/a.csv", "--map", "title=what,id=k"]) == 0
    assert run([*store, f"{tmp_path}/b.csv"]) == 0
    with open_store(f"{tmp_path}/store", read_only=True) as opened:
        assert [(job.id, job.title) for job in opened.records("job")] == [("a", "a work"), ("b", "b work")]
        assert opened.meta()["columns"] == {"jobs": {"title": ["what"], "id": ["k"]}}
    capsys.readouterr()
    assert run([*store, f"{tmp_path}/b.csv", "--map", "title=wat"]) == 2
    assert "did you mean 'what'" in capsys.readouterr().err


def test_a_mapping_that_could_be_of_both_kinds_wants_a_prefix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("id,title\n1,Cook\n")
    both = ["--jobs", f"{tmp_path}/a.csv", "--candidates", f"{tmp_path}/a.csv"]
    for option, said in (
        ("id=id", "write jobs.id or candidates.id"),
        ("salary=id", "the fields of a job are"),
        ("title=", "no column is named"),
    ):
        assert run(["ingest", "--store", f"{tmp_path}/s", *both, "--map", option]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_duplicates_are_counted_linked_and_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle_postings(tmp_path / "a.csv", rows=60)
    command = ["ingest", "--jobs", f"{tmp_path}/a.csv", "--store"]
    assert run([*command, f"{tmp_path}/kept"]) == 0
    assert "6 jobs say the same as an earlier one; they were kept, linked" in capsys.readouterr().out
    with open_store(f"{tmp_path}/kept", read_only=True) as opened:
        linked = {
            job.id: job.metadata["duplicate_of"] for job in opened.records("job") if "duplicate_of" in job.metadata
        }
        titles = {job.id: job.title for job in opened.records("job")}
    assert len(linked) == 6
    assert all(titles[copy] == titles[first] for copy, first in linked.items())
    assert run([*command, f"{tmp_path}/dropped", "--duplicates", "drop", "--dry-run"]) == 0
    assert "54 accepted, 0 rejected, 54 mended, 6 dropped as duplicates" in capsys.readouterr().out


def test_postings_that_are_nearly_the_same_are_near_duplicates(tmp_path: Path) -> None:
    text = " ".join(f"sentence {n} says what the work number {n * n} is about" for n in range(40))
    other = " ".join(f"another {n} tells how to do {n * 7} things" for n in range(40))
    rows = [("1", text), ("2", text.replace("number 9 ", "number nine ")), ("3", other)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"id": i, "title": "t", "description": d}) for i, d in rows))
    report = ingest_files(None, jobs=[tmp_path / "a.jsonl"], dry_run=True)
    assert (report.jobs.exact, report.jobs.near, report.jobs.accepted) == (0, 1, 3)


def test_duplicates_of_what_the_store_has_are_linked_and_reading_a_file_again_adds_none(tmp_path: Path) -> None:
    def read(*rows: tuple[str, str], how: Literal["keep", "drop"] = "keep") -> IngestReport:
        lines = (json.dumps({"id": i, "title": "t", "description": text}) for i, text in rows)
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
        return ingest_files(
            store, jobs=[tmp_path / "a.jsonl"], encoder=HashEmbedder(), options=InputOptions(duplicates=how)
        )

    text = " ".join(f"sentence {n} says what the work number {n * n} is about" for n in range(40))
    near = text.replace("number 9 ", "number nine ")
    with open_store(tmp_path / "store", create=True) as store:
        assert read(("m", text)).jobs.exact == 0
        report = read(("b", near), ("a", text))
        assert (report.jobs.exact, report.jobs.near) == (1, 1)
        assert {job.id: job.metadata for job in store.records("job")} == {
            "m": {}, "a": {"duplicate_of": "m"}, "b": {"duplicate_of": "m"},
        }  # fmt: skip
        again = read(("b", near), ("a", text), ("m", text))
        assert (again.jobs.exact, again.jobs.near, again.jobs.embedded) == (1, 1, 0)
        dropped = read(("c", text), how="drop")  # all of them, which is no error
        assert (dropped.jobs.accepted, dropped.jobs.dropped) == (0, 1)
        assert store.ids("job") == ["a", "b", "m"]


def test_candidates_that_say_the_same_are_named(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("id,bio\n1,I cook.\n2,I bake.\n3,I  COOK.\n")
    report = ingest_files(None, candidates=[tmp_path / "c.csv"], dry_run=True)
    assert (report.candidates.exact, report.alike) == (1, (("3", "1"),))


@pytest.mark.slow
def test_an_export_of_53_columns_in_russian_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hh_vacancies(tmp_path / "hh.xlsx", rows=12)
    assert run(["ingest", "--store", f"{tmp_path}/store", "--jobs", f"{tmp_path}/hh.xlsx", "--limit", "8"]) == 0
    assert "jobs: 8 accepted, 0 rejected, 8 mended" in capsys.readouterr().out
    with open_store(f"{tmp_path}/store", read_only=True) as opened:
        jobs = list(opened.records("job"))
    known = {skill for occupation in RUSSIAN for skill in occupation.skills}
    assert all(len(job.technical_skills) == 4 and set(job.technical_skills) <= known for job in jobs)
    assert all(job.experience_requirements == ("От 1 года до 3 лет",) for job in jobs)
    assert all("<" not in job.description and "Обязанности" in job.description for job in jobs)


@pytest.mark.slow
def test_a_database_filled_by_hand_is_embedded_without_files(mongo_uri: str) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(mongo_uri)
    database = client.get_default_database()
    database["jobs_text"].insert_one({"job_title": "Cook", "description": "soups", "technical_skills": ["baking"]})
    database["candidates_text"].insert_one({"bio": "I bake", "skills": ["baking"], "experience": [{"title": "Baker"}]})
    client.close()
    assert run(["ingest", "--store", mongo_uri]) == 0
    with open_store(mongo_uri, read_only=True) as opened:
        assert (len(opened.hashes("job")), len(opened.hashes("candidate"))) == (1, 1)


@pytest.fixture
def resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DYNAQ_ENDPOINT_KEY", "sk-secret-key")
    folder = tmp_path / "people"
    folder.mkdir()
    (folder / "resume-1.txt").write_text("Summary\nBaker in hotels.\nSkills\nbread, cakes, menus\n")
    return folder


@pytest.mark.slow
def test_an_endpoint_that_refuses_the_key_is_wrong_usage_and_the_store_stays(
    tmp_path: Path, resumes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ingest", "--candidates", str(resumes), "--store"]
    told = (401, {}, {"error": {"message": "Incorrect API key provided: sk-secret-key"}})
    with open_store(tmp_path / "there", create=True) as store:
        store.put_records("candidate", [Candidate(id="before", bio="I was here.")])
    with openai_server("vllm", interrupt=lambda n: told) as server:
        for name in ("new", "there"):
            assert run([*command, f"{tmp_path}/{name}", "--resume-endpoint", f"{server.url}#small"]) == 2
            said = capsys.readouterr()
            assert "answered 401: Incorrect API key provided: ***; nothing was written" in said.err
            assert len(said.err.strip().splitlines()) == 1
            assert "sk-secret" not in said.out + said.err
    assert not (tmp_path / "new").exists()
    assert [path.name for path in resumes.iterdir()] == ["resume-1.txt"]
    with open_store(tmp_path / "there", read_only=True) as store:
        assert (store.ids("candidate"), store.hashes("candidate")) == (["before"], {})


def test_a_dry_run_asks_no_endpoint(tmp_path: Path, resumes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ingest", "--store", f"{tmp_path}/store", "--candidates", str(resumes), "--dry-run"]
    assert run([*command, "--resume-endpoint", "http://127.0.0.1:9/v1"]) == 0  # nothing listens on port 9
    said = capsys.readouterr().out
    assert "candidates: 1 accepted" in said
    assert "a dry run asks no endpoint; the documents were read by the rules" in said


def test_an_endpoint_needs_documents_and_a_url(
    tmp_path: Path, resumes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("id,bio\n1,I cook.\n")
    for candidates, url, said in (
        (f"{tmp_path}/a.csv", "http://localhost/v1#small", "--candidates names none"),
        (str(resumes), "localhost#small", "expected https://host/v1#MODEL"),
    ):
        command = ["ingest", "--store", f"{tmp_path}/s", "--candidates", candidates, "--resume-endpoint", url]
        assert run(command) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_the_endpoints_reading_and_its_tokens_are_said_and_the_key_is_not(
    tmp_path: Path, resumes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.dumps({"bio": "Baker in hotels.", "hard_skills": ["bread", "cakes", "menus", "robots"]})
    usage = {"prompt_tokens": 1200, "completion_tokens": 34}
    answer = (200, {}, {"choices": [{"message": {"content": content}}], "usage": usage})
    command = ["ingest", "--store", f"{tmp_path}/store", "--candidates", str(resumes)]
    with openai_server("vllm", interrupt=lambda n: answer) as server:
        assert run([*command, "--resume-endpoint", f"{server.url}#small"]) == 0
        assert server.headers[0]["Authorization"] == "Bearer sk-secret-key"
    said = capsys.readouterr()
    assert "documents: 1 read by the model, 0 by the rules; 1 phrase that does not stand in its" in said.out
    assert f"small at {server.url}: 1 calls, 1,200 tokens in, 34 out" in said.out
    assert "sk-secret" not in said.out + said.err
