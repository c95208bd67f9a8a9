"""Files of postings as strangers bring them: own headers, HTML, duplicates, literals in cells. Seeded."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import openpyxl

from tests.support.occupations import ENGLISH, RUSSIAN, Occupation

KAGGLE_HEADER = (
    "Uniq Id", "Job Title", "Company Name", "Location", "Job Description", "Key Skills", "Required Experience",
    "Salary Estimate", "Date Posted", "",
)  # fmt: skip
CITIES = ("Boston, MA", "Austin, TX", "Denver, CO", "Leeds", "Toronto")
COMPANIES = ("Northwind Health", "Contoso Foods", "Fabrikam Logistics", "Tailspin Software", "Adventure Finance")
BOILERPLATE = (
    "<p><strong>About us</strong><br/>We are an equal opportunity employer and value everyone's contribution.</p>"
    "<script>track('view')</script><p>Benefits: health insurance &amp; paid leave&nbsp;for all.</p>"
)


def _description(occupation: Occupation, draw: random.Random, company: str) -> str:
    tasks = "".join(f"<li>{task}.</li>" for task in draw.sample(occupation.tasks, 3))
    return (
        f"<p>{company} is looking for a colleague for its team of {draw.randint(3, 60)}.</p><ul>{tasks}</ul>"
        f"<p>You bring: {occupation.requirement}. You know {', '.join(draw.sample(occupation.skills, 4))}.</p>"
        f"{BOILERPLATE}"
    )


def kaggle_postings(path: Path, rows: int = 400, seed: int = 0) -> Path:
    """A CSV with headers of its own, HTML, comma lists and an empty last column; every tenth row repeats another."""
    draw = random.Random(seed)
    made: list[list[str]] = []
    for number in range(rows):
        if number % 10 == 9:
            made.append([f"u{number:05d}", *draw.choice(made)[1:]])
            continue
        occupation, company = draw.choice(ENGLISH), draw.choice(COMPANIES)
        made.append(
            [
                f"u{number:05d}", draw.choice(occupation.titles), company, draw.choice(CITIES),
                _description(occupation, draw, company), ", ".join(draw.sample(occupation.skills, 4)),
                occupation.requirement, f"${draw.randint(30, 180)}K", f"2026-0{draw.randint(1, 9)}-11", "",
            ]
        )  # fmt: skip
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([KAGGLE_HEADER, *made])
    return path


HH_COLUMNS = (
    "id", "premium", "name", "department", "has_test", "response_letter_required", "area", "salary", "type", "address",
    "response_url", "sort_point_distance", "published_at", "created_at", "archived", "apply_alternate_url",
    "branding", "show_logo_in_search", "insider_interview", "url", "alternate_url", "relations", "employer", "snippet",
    "contacts", "schedule", "working_days", "working_time_intervals", "working_time_modes", "accept_temporary",
    "professional_roles", "accept_incomplete_resumes", "experience", "employment", "adv_response_url",
    "is_adv_vacancy", "adv_context", "key_skills", "description", "languages", "driver_license_types", "test",
    "billing_type", "allow_messages", "accept_handicapped", "accept_kids", "specializations", "hidden",
    "quick_responses_allowed", "code", "vacancy_constructor_template", "branded_description", "negotiations_url",
)  # fmt: skip


def _hh_row(number: int, occupation: Occupation, draw: random.Random) -> dict[str, Any]:
    tasks = "".join(f"<li>{task};</li>" for task in draw.sample(occupation.tasks, 3))
    row: dict[str, Any] = dict.fromkeys(HH_COLUMNS)
    row |= {
        "id": 90_000_000 + number,
        "premium": False,
        "name": draw.choice(occupation.titles),
        "area": str(
            {"id": "1", "name": draw.choice(("Москва", "Казань", "Томск")), "url": "https://api.hh.test/areas/1"}
        ),
        "salary": str({"from": draw.randint(40, 200) * 1000, "to": None, "currency": "RUR", "gross": False}),
        "type": str({"id": "open", "name": "Открытая"}),
        "published_at": "2026-03-01T10:00:00+0300",
        "employer": str({"id": "7", "name": "ООО Ромашка", "trusted": True}),
        "snippet": str({"requirement": occupation.requirement, "responsibility": None}),
        "schedule": str({"id": "fullDay", "name": "Полный день"}),
        "experience": str({"id": "between1And3", "name": "От 1 года до 3 лет"}),
        "employment": str({"id": "full", "name": "Полная занятость"}),
        "key_skills": str([{"name": skill} for skill in draw.sample(occupation.skills, 4)]),
        "description": f"<p><strong>Обязанности:</strong></p> <ul>{tasks}</ul> <p>Смен в месяц: {draw.randint(5, 25)}. "
        f"{occupation.requirement}.</p>",
        "professional_roles": str([{"id": "1", "name": "Другое"}]),
        "working_days": "[]",
        "languages": "[]",
    }
    return row


def hh_vacancies(path: Path, rows: int = 1387, seed: int = 0, title: bool = True) -> Path:
    """An Excel export of 53 columns in Russian: Python literals in cells, a merged title above, a second sheet."""
    draw = random.Random(seed)
    book = openpyxl.Workbook()
    cover = book.active
    assert cover is not None
    cover.title = "О выгрузке"
    cover.append(["Выгрузка вакансий", None, "2026-03-01"])
    sheet = book.create_sheet("Вакансии")
    if title:
        sheet.append(["Вакансии за март"])
        sheet.merge_cells("A1:F1")
        sheet.append([])
    sheet.append([*HH_COLUMNS, None, None])
    for number in range(rows):
        sheet.append([*_hh_row(number, draw.choice(RUSSIAN), draw).values()])
    book.save(path)
    return path
