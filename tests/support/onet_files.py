"""A small O*NET release of invented occupations, in both forms in which the tables come."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

CODES = [f"11-10{i:02d}.00" for i in range(8)]
TOO_THIN = CODES[7]

OCCUPATIONS = [(c, f"Title {c}", f'Does "{c}" things') for c in CODES]
TASKS = [(c, f"Task {i} of {c}.") for c in CODES for i in range(3 if c == TOO_THIN else 12)]
TECHNOLOGIES = [(c, f"Tool {i} of {c}") for c in CODES for i in range(9)]
SKILLS = [(c, f"Skill {i}", 1 + (i * 7 + n) % 40 / 10) for n, c in enumerate(CODES) for i in range(20)]
RELATED = [
    (c, CODES[(n + step) % 8], tier)
    for n, c in enumerate(CODES)
    for step, tier in ((1, "Primary-Short"), (2, "Primary-Long"), (3, "Supplemental"))
]
TITLES = [(c, f"Alias {i} of {c}") for c in CODES for i in range(5)]


def write_parquet(folder: Path) -> Path:
    """The tables as Parquet with snake_case columns."""
    tables = {
        "occupations": (("soc_code", "title", "description"), OCCUPATIONS),
        "tasks": (("soc_code", "task"), TASKS),
        "technology_skills": (("soc_code", "example"), TECHNOLOGIES),
        "skills": (("soc_code", "element_name", "importance"), SKILLS),
        "related_occupations": (("soc_code", "related_soc_code", "tier"), RELATED),
        "alternate_titles": (("soc_code", "title"), TITLES),
    }
    for name, (columns, rows) in tables.items():
        pq.write_table(
            pa.Table.from_pylist([dict(zip(columns, r, strict=True)) for r in rows]), folder / f"{name}.parquet"
        )
    return folder


def write_text(folder: Path) -> Path:
    """The tables as O*NET publishes them: tab-separated, further columns among ours, ratings on two scales."""
    skills = [
        (c, f"2.A.{n}", name, scale, f"{value:.2f}" if scale == "IM" else "3.00", "8")
        for n, (c, name, value) in enumerate(SKILLS)
        for scale in ("IM", "LV")
    ]
    tables = {
        "Occupation Data": (("O*NET-SOC Code", "Title", "Description"), OCCUPATIONS),
        "Task Statements": (
            ("O*NET-SOC Code", "Task ID", "Task", "Task Type"), [(c, "1", task, "Core") for c, task in TASKS],
        ),
        "Technology Skills": (
            ("O*NET-SOC Code", "Example", "Commodity Code", "Hot Technology"),
            [(c, tool, "43", "Y") for c, tool in TECHNOLOGIES],
        ),
        "Skills": (("O*NET-SOC Code", "Element ID", "Element Name", "Scale ID", "Data Value", "N"), skills),
        "Related Occupations": (
            ("O*NET-SOC Code", "Related O*NET-SOC Code", "Relatedness Tier", "Index"), [(*row, "1") for row in RELATED],
        ),
        "Alternate Titles": (
            ("O*NET-SOC Code", "Alternate Title", "Short Title", "Source(s)"), [(*row, "", "08") for row in TITLES],
        ),
    }  # fmt: skip
    for name, (columns, rows) in tables.items():
        lines = ["\t".join(map(str, row)) for row in [columns, *rows]]
        (folder / f"{name}.txt").write_bytes(("\r\n".join(lines) + "\r\n").encode())
    return folder
