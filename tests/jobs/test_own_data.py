"""A stranger's data from the file to the first recommendation, as the commands of docs/data.md do it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from jobs.cli import run
from tests.support.occupations import ENGLISH, RUSSIAN, Occupation
from tests.support.postings import hh_vacancies, kaggle_postings
from tests.support.resumes import resume_folder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session_fixture")]

NURSE = {"id": "ann", "bio": "I look after patients on an intensive care ward.", "skills": "triage; wound care"}
DRIVER = {"id": "joe", "bio": "I have driven long haul trucks for years.", "skills": "CDL class A; route planning"}
MAKEUP = {"id": "vera", "bio": "Визажист, делаю макияж и аквагрим на детских праздниках.", "skills": "макияж; аквагрим"}
COOK = {"id": "oleg", "bio": "Повар, готовлю горячие блюда и выпечку.", "skills": "выпечка; заготовки"}


def recommended(
    capsys: pytest.CaptureFixture[str], store: str, out: Path, *ingest: str, applicants: list[str], k: int = 5
) -> dict[str, list[str]]:
    """Ingest, train on the texts alone, recommend: the titles on top of each applicant's list."""
    assert run(["ingest", "--store", store, *ingest]) == 0
    assert run(["train", "--store", store, "--strategy", "cosine", "--budget", "10", "--out", str(out)]) == 0
    lists = {}
    for applicant in applicants:
        capsys.readouterr()
        assert run(["recommend", "--run", str(out), "--applicant", applicant, "-k", str(k), "--json"]) == 0
        lists[applicant] = [one["title"] for one in json.loads(capsys.readouterr().out)["recommendations"]]
    return lists


def people(path: Path, *rows: dict[str, str]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def occupation_of(title: str, among: tuple[Occupation, ...]) -> Occupation:
    return next(one for one in among if title in one.titles)


def test_a_file_of_postings_with_its_own_headers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    postings = str(kaggle_postings(tmp_path / "postings.csv", rows=120))
    files = ["--jobs", postings, "--candidates", people(tmp_path / "people.jsonl", NURSE, DRIVER)]
    lists = recommended(capsys, f"{tmp_path}/store", tmp_path / "run", *files, applicants=["ann", "joe"])
    assert set(lists["ann"]) <= set(ENGLISH[1].titles)
    assert set(lists["joe"]) <= set(ENGLISH[4].titles)


def test_an_export_of_russian_vacancies_with_the_multilingual_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vacancies = str(hh_vacancies(tmp_path / "vacancies.xlsx"))  # 1,387 x 53
    assert run(["ingest", "--store", f"{tmp_path}/s", "--jobs", vacancies, "--dry-run"]) == 0
    assert "jobs: 1387 accepted, 0 rejected" in capsys.readouterr().out
    files = ["--jobs", vacancies, "--candidates", people(tmp_path / "people.jsonl", MAKEUP, COOK), "--limit", "120"]
    options = [*files, "--encoder", "multilingual"]
    lists = recommended(capsys, f"{tmp_path}/store", tmp_path / "run", *options, applicants=["vera", "oleg"])
    assert set(lists["vera"]) <= set(RUSSIAN[2].titles)
    assert set(lists["oleg"]) <= set(RUSSIAN[4].titles)


def test_a_folder_of_twenty_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "resumes"
    who = {path.name: person for path, person in resume_folder(folder).items()}
    files = ["--jobs", str(kaggle_postings(tmp_path / "postings.csv", rows=120)), "--candidates", str(folder)]
    store = f"{tmp_path}/store"
    assert run(["ingest", "--store", store, *files]) == 0
    with (folder / "ingested.csv").open(encoding="utf-8", newline="") as file:
        person_of = {row["id"]: who[row["file"]] for row in csv.DictReader(file)}
    assert len(person_of) == 20
    lists = recommended(capsys, store, tmp_path / "run", applicants=list(person_of), k=3)
    right = [
        applicant
        for applicant, titles in lists.items()
        if {occupation_of(title, ENGLISH).titles for title in titles} == {person_of[applicant].occupation.titles}
    ]
    assert len(right) >= 18, lists


def test_a_database_that_was_filled_by_hand(mongo_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(mongo_uri)
    database = client.get_default_database()
    database["jobs_text"].insert_many(
        {"_id": f"{o}-{t}", "job_title": title, "description": ". ".join(one.tasks), "technical_skills": [*one.skills]}
        for o, one in enumerate(ENGLISH)
        for t, title in enumerate(one.titles)
    )
    bio = f"{NURSE['bio']} Call me: jane.doe@example.com"
    database["candidates_text"].insert_one(
        {"_id": "ann", "bio": bio, "skills": ["triage"], "experience": [{"title": "Staff Nurse", "company": "Clinic"}]}
    )
    lists = recommended(capsys, mongo_uri, tmp_path / "run", applicants=["ann"], k=3)
    assert set(lists["ann"]) == set(ENGLISH[1].titles)
    stored = database["candidates_text"].find_one({"_id": "ann"})
    client.close()
    assert stored is not None
    assert stored["bio"] == bio
