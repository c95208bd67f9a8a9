"""Reads O*NET tables: Parquet (snake_case columns) or the tab-separated text files as O*NET publishes them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dynaq.errors import InputError

# Table -> (Parquet file, its columns), (text file, its columns in the same order).
TABLES = {
    "occupations": (
        ("occupations.parquet", ("soc_code", "title", "description")),
        ("Occupation Data.txt", ("O*NET-SOC Code", "Title", "Description")),
    ),
    "tasks": (
        ("tasks.parquet", ("soc_code", "task")),
        ("Task Statements.txt", ("O*NET-SOC Code", "Task")),
    ),
    "technologies": (
        ("technology_skills.parquet", ("soc_code", "example")),
        ("Technology Skills.txt", ("O*NET-SOC Code", "Example")),
    ),
    "skills": (
        ("skills.parquet", ("soc_code", "element_name", "importance")),
        ("Skills.txt", ("O*NET-SOC Code", "Element Name", "Data Value", "Scale ID")),
    ),
    "related": (
        ("related_occupations.parquet", ("soc_code", "related_soc_code", "tier")),
        ("Related Occupations.txt", ("O*NET-SOC Code", "Related O*NET-SOC Code", "Relatedness Tier")),
    ),
    "alternate_titles": (
        ("alternate_titles.parquet", ("soc_code", "title")),
        ("Alternate Titles.txt", ("O*NET-SOC Code", "Alternate Title")),
    ),
}


@dataclass(frozen=True)
class OnetTables:
    """Rows of the tables the market needs, in the source's order.

    Args:
        occupations: (code, title, description).
        tasks, technologies, alternate_titles: (code, text).
        skills: (code, skill, importance on the scale 1 to 5).
        related: (code, related code, tier).
    """

    occupations: list[tuple[str, str, str]]
    tasks: list[tuple[str, str]]
    technologies: list[tuple[str, str]]
    skills: list[tuple[str, str, float]]
    related: list[tuple[str, str, str]]
    alternate_titles: list[tuple[str, str]]


def read_onet(folder: Path) -> OnetTables:
    """Read the tables, preferring Parquet where both forms exist. Raises InputError naming what is missing."""
    if not folder.is_dir():
        raise InputError(f"O*NET folder {folder} does not exist")
    rows: dict[str, list[Any]] = {}
    missing = []
    for table, ((parquet, parquet_columns), (text, text_columns)) in TABLES.items():
        if (folder / parquet).is_file():
            rows[table] = _read_parquet(folder / parquet, parquet_columns)
        elif (folder / text).is_file():
            rows[table] = _read_text(folder / text, text_columns)
        else:
            missing.append(f"{parquet} or {text!r}")
    if missing:
        raise InputError(f"O*NET folder {folder} has no {'; no '.join(missing)}")
    # The published file has one row for a skill's importance (IM) and one for its level (LV).
    skills = [row[:3] for row in rows.pop("skills") if len(row) == 3 or row[3] == "IM"]
    try:
        ratings = [(code, name, float(value)) for code, name, value in skills if value not in (None, "")]
    except ValueError as error:
        raise InputError(f"O*NET folder {folder}: a skill's importance is no number ({error})") from None
    return OnetTables(skills=ratings, **rows)


def _read_parquet(path: Path, columns: tuple[str, ...]) -> list[Any]:
    try:
        table = pq.read_table(path, columns=list(columns))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"O*NET table {path} cannot be read: {str(error).splitlines()[0]}") from None
    if absent := set(columns) - set(table.column_names):
        raise InputError(f"O*NET table {path} has no column {', '.join(sorted(absent))}")
    return list(zip(*(table[name].to_pylist() for name in columns), strict=True))


def _read_text(path: Path, columns: tuple[str, ...]) -> list[Any]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # These files do not quote fields: a quotation mark is part of the text.
            reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            header = next(reader, [])
            if absent := [name for name in columns if name not in header]:
                raise InputError(f"O*NET table {path} has no column {', '.join(absent)}")
            places = [header.index(name) for name in columns]
            return [tuple(row[i] for i in places) for row in reader if len(row) > max(places)]
    except UnicodeDecodeError as error:
        raise InputError(f"O*NET table {path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
