"""Messy files of tables: headers, encodings, delimiters, formats and workbooks, each with its outcome."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Case:
    """One messy file.

    Args:
        name: of the file.
        content: its bytes or text, or a function that writes it.
        counts: accepted, mended, rejected; None when the file is an error as a whole.
        says: what must be in the notes, in the reason, or in the error.
        first: fields of the first record, in the order of ids.
        kind: of the records.
        options: of ingestion.
        total: records that the store holds afterwards; None is as many as were accepted.
    """

    name: str
    content: bytes | str | Callable[[Path], Any]
    counts: tuple[int, int, int] | None
    says: str = ""
    first: dict[str, Any] | None = None
    kind: str = "jobs"
    options: dict[str, Any] | None = None
    total: int | None = None


def _book(*sheets: list[list[Any]], merge: str | None = None) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        book = openpyxl.Workbook()
        for number, rows in enumerate(sheets):
            sheet = book.active if number == 0 else book.create_sheet()
            assert sheet is not None
            for row in rows:
                sheet.append(row)
            if merge:
                sheet.merge_cells(merge)
        book.save(path)

    return write


def _wrong_dimension(path: Path) -> None:
    plain = io.BytesIO()
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in (["id", "title"], [1, "Cook"], [2, "Nurse"]):
        book.active.append(row)
    book.save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data.replace(b'ref="A1:B3"', b'ref="A1"'))


def _bomb_workbook(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("xl/worksheets/sheet1.xml", b" " * (300 << 20))


def _entities_workbook(path: Path) -> None:
    plain = io.BytesIO()
    _book([["id", "title"], [1, "Cook"]])(plain)  # type: ignore[arg-type]
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 20}">' for i in range(1, 12))
    head = f'<?xml version="1.0"?><!DOCTYPE worksheet [<!ENTITY a0 "bomb">{entities}]>'
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("sheet1.xml"):
                data = head.encode() + data.replace(b"Cook", b"&a11;")
            target.writestr(name, data)


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


RUSSIAN_ROWS = "\n".join(
    f"{i};{title};{text}"
    for i, (title, text) in enumerate(
        [("Повар", "Готовит обеды для сотрудников завода"), ("Визажист", "Делает макияж в салоне красоты"),
         ("Водитель", "Возит грузы по городу и области")]
    )
)  # fmt: skip
RUSSIAN_CSV = f"id;Название;Описание\n{RUSSIAN_ROWS}\n"
COOK = {"title": "Cook"}

TABLES: dict[str, Case] = {
    # Headers.
    "job_title and job_id": Case("a.csv", "job_id,job_title\n1,Cook\n", (1, 0, 0), "title ← job_title", COOK),
    "Job Title with a space": Case("a.csv", "ID,Job Title\n1,Cook\n", (1, 0, 0), "title ← Job Title", COOK),
    "JobTitle in one word": Case("a.csv", "Id,JobTitle\n1,Cook\n", (1, 0, 0), "title ← JobTitle", COOK),
    "ID,Title": Case("a.csv", "ID,Title\n1,Cook\n", (1, 0, 0), "id ← ID", {"id": "1", **COOK}),
    "hyphens": Case("a.csv", "job-id,job-title\n1,Cook\n", (1, 0, 0), "title ← job-title", COOK),
    "Russian headers": Case(
        "a.csv",
        "Название;Описание;Ключевые навыки\nПовар;Готовит;супы, торты\n",
        (1, 1, 0),
        "title ← Название",
        {"title": "Повар", "technical_skills": ("супы", "торты")},
    ),
    "vacancy name": Case("a.csv", "Vacancy Name\nCook\n", (1, 0, 0), "title ← Vacancy Name", COOK),
    "German headers": Case(
        "a.csv", "Stellenbezeichnung;Beschreibung\nKoch;Kocht\n", (1, 0, 0), "title ←", {"title": "Koch"}
    ),
    "position, which is title only without a better one": Case(
        "a.jsonl", '{"id": 1, "title": "Cook", "position": 3}', (1, 0, 0), "", {**COOK, "metadata": {"position": 3}}
    ),
    "no ids": Case("a.csv", "title\nCook\nNurse\n", (2, 0, 0), "id ← made from the content"),
    "no ids and the same row again": Case("a.csv", "title\nCook\nCook\n", (2, 0, 0), "made from the content", COOK),
    "an id column that is empty": Case("a.csv", "id,title\n,Cook\n,Nurse\n", (2, 0, 0), "made from the content"),
    "trailing empty headers": Case("a.csv", "id,title,,,\n1,Cook,,,\n", (1, 0, 0), "", {**COOK, "metadata": {}}),
    "a header without a name in the middle": Case(
        "a.csv", "id,,title\n1,x,Cook\n", (1, 0, 0), "", {**COOK, "metadata": {"column 2": "x"}}
    ),
    "two columns of the same unknown name": Case(
        "a.csv", "id,title,note,note\n1,Cook,a,b\n", (1, 0, 0), "", {"metadata": {"note": "a", "note (2)": "b"}}
    ),
    "two columns of titles": Case("a.csv", "title,title\nCook,Nurse\n", None, "'title' is there twice"),
    "lines above the header": Case(
        "a.csv", "Report of March,\n,\nid,Job Title\n1,Cook\n", (1, 0, 0), "header was found on line 3", COOK
    ),
    "cells beyond the header that are empty": Case("a.csv", "id,title\n1,Cook,,\n", (1, 0, 0), "", COOK),
    "cells beyond the header that are not": Case("a.csv", "id,title\n1,Cook,x\n2,Nurse\n", (1, 0, 1), "3 fields where"),
    "no known column": Case("a.csv", "foo,bar\n1,Cook\n", None, "columns found: foo, bar.*--map title=COLUMN"),
    "a mapping": Case(
        "a.csv",
        "foo,bar\n1,Cook\n",
        (1, 0, 0),
        "title ← bar",
        {"id": "1", **COOK},
        options={"map": ["title=bar,id=foo"]},
    ),
    "a mapping whose columns have commas": Case(
        "a.csv",
        'a,"Position, current"\n1,Cook\n',
        (1, 0, 0),
        "title ←",
        COOK,
        options={"map": ["title=Position, current,id=a"]},
    ),
    "a mapping of two columns to one field": Case(
        "a.csv",
        "title,what,how\nCook,Cooks,Well\n",
        (1, 0, 0),
        "what + how",
        {"description": "Cooks\nWell"},
        options={"map": ["description=what,description=how"]},
    ),
    "a mapping with a wrong name": Case(
        "a.csv",
        "id,job_titel\n1,Cook\n",
        None,
        "no column 'job_title'.*did you mean 'job_titel'",
        options={"map": ["title=job_title"]},
    ),
    # Encodings and delimiters.
    "cp1251": Case("a.csv", RUSSIAN_CSV.encode("cp1251"), (3, 0, 0), "read as CP1251", {"title": "Повар"}),
    "koi8-r, named": Case(
        "a.csv",
        RUSSIAN_CSV.encode("koi8_r"),
        (3, 0, 0),
        "semicolons",
        {"title": "Повар"},
        options={"encoding": "koi8-r"},
    ),
    "cp1252": Case(
        "a.csv",
        "id;title\n1;Gärtner\n2;Bürokauffrau\n3;Köchin für Großküche\n".encode("cp1252"),
        (3, 0, 0),
        "read as",
        {"title": "Gärtner"},
    ),
    "UTF-16 with tabs, as Excel's Unicode text": Case(
        "a.csv", "id\ttitle\n1\tKöchin\n".encode("utf-16"), (1, 0, 0), "read as UTF-16", {"title": "Köchin"}
    ),
    "UTF-8 with some broken lines": Case(
        "a.csv",
        "id,title\n1,Gärtner\n2,Köchin\n".encode() + b"3,Caf\xe9\n",
        (2, 0, 1),
        "broken UTF-8",
        {"title": "Gärtner"},
    ),
    "an unknown encoding": Case("a.csv", "id,title\n1,Cook\n", None, "klingon", options={"encoding": "klingon"}),
    "Shift JIS": Case(
        "a.csv",
        "id,title\n1,看護師募集\n2,調理師の仕事です\n3,データ分析の担当者\n".encode("cp932"),
        (3, 0, 0),
        "read as CP932",
        {"title": "看護師募集"},
    ),
    "semicolons": Case("a.csv", "id;title\n1;Cook\n", (1, 0, 0), "semicolons", COOK),
    "semicolons and commas in the texts": Case(
        "a.csv",
        "id;title;description\n1;Cook;soups, cakes, bread\n2;Nurse;care, pills\n",
        (2, 0, 0),
        "semicolons",
        COOK,
    ),
    "bars": Case("a.csv", "id|title\n1|Cook\n", (1, 0, 0), "bars", COOK),
    "tabs in a .csv": Case("a.csv", "id\ttitle\n1\tCook\n", (1, 0, 0), "tabs", COOK),
    "a delimiter that is named": Case("a.csv", "id~title\n1~Cook\n", (1, 0, 0), "", COOK, options={"delimiter": "~"}),
    "sep= on top": Case("a.csv", "sep=;\nid;title\n1;Cook\n", (1, 0, 0), "", COOK),
    "quotes escaped by backslashes": Case(
        "a.csv",
        'id,title,description\n1,Cook,"said \\"hi\\", left"\n',
        (1, 0, 0),
        "",
        {"description": 'said "hi", left'},
    ),
    ".tsv": Case("a.tsv", "id\ttitle\n1\tCook\n", (1, 0, 0), "", COOK),
    # Formats.
    ".json with a list": Case("a.json", '[{"id": 1, "title": "Cook"}, {"id": 2}]', (1, 0, 1), "title", COOK),
    ".json with an object around the list": Case(
        "a.json", '{"found": 1, "items": [{"id": 1, "name": "Cook"}]}', (1, 0, 0), "title ← name", COOK
    ),
    ".json as pandas writes columns": Case(
        "a.json", '{"title": {"0": "Cook", "1": "Nurse"}, "pay": {"0": NaN, "1": 2}}', (2, 0, 0), "made from"
    ),
    ".json with a line per record": Case(
        "a.json", '{"id": 1, "title": "Cook"}\n{"id": 2, "title": "b"}\n', (2, 0, 0), "", COOK
    ),
    ".json that is none": Case("a.json", "{", None, "is not JSON"),
    ".json with a number": Case("a.json", "3", None, "holds no records"),
    ".csv.gz": Case("a.csv.gz", gzip.compress(b"id,title\n1,Cook\n"), (1, 0, 0), "", COOK),
    ".jsonl.gz": Case("a.jsonl.gz", gzip.compress(b'{"id": 1, "title": "Cook"}'), (1, 0, 0), "", COOK),
    ".gz that is cut": Case("a.csv.gz", gzip.compress(b"id,title\n1,Cook\n" * 99)[:-9], None, "no whole .gz"),
    ".gz that is a bomb": Case("a.csv.gz", gzip.compress(b"\0" * (80 << 20)), None, "unpacks to over"),
    ".parquet.gz": Case(
        "a.parquet.gz",
        lambda path: path.write_bytes(gzip.compress(_parquet([{"id": 1, "title": "Cook"}]))),
        (1, 0, 0),
        "",
        COOK,
    ),
    ".xls": Case("a.xls", b"\xd0\xcf\x11\xe0", None, "save it as .xlsx"),
    "an archive": Case("a.zip", b"PK", None, "unpack it"),
    # Workbooks.
    "a merged title above the header": Case(
        "a.xlsx",
        _book([["Jobs of March", None], [], ["ID", "Job Title"], [1, "Cook"]], merge="A1:B1"),
        (1, 0, 0),
        "found in row 3",
        COOK,
    ),
    "the table on the second sheet": Case(
        "a.xlsx",
        _book([["About", "this"], ["made", "by"]], [["id", "title"], [1, "Cook"]]),
        (1, 0, 0),
        "'Sheet1' was read",
        COOK,
    ),
    "a sheet by its name": Case(
        "a.xlsx",
        _book([["id", "title"], [1, "Nurse"]], [["id", "title"], [1, "Cook"]]),
        (1, 0, 0),
        "",
        COOK,
        options={"sheet": "Sheet1"},
    ),
    "a sheet that is not there": Case(
        "a.xlsx", _book([["id"]]), None, "its sheets are 'Sheet'", options={"sheet": "x"}
    ),
    "a workbook with a wrong dimension": Case("a.xlsx", _wrong_dimension, (2, 0, 0), "", COOK),
    "errors of formulas": Case(
        "a.xlsx",
        _book([["id", "title", "description"], [1, "Cook", "#N/A"]]),
        (1, 1, 0),
        "taken for empty",
        {"description": ""},
    ),
    "trailing empty headers in a workbook": Case(
        "a.xlsx", _book([["id", "title", None, None], [1, "Cook", None, None]]), (1, 0, 0), "", COOK
    ),
    "a workbook that is a bomb": Case("a.xlsx", _bomb_workbook, None, "would unpack"),
    "a workbook with entities": Case("a.xlsx", _entities_workbook, None, "no .xlsx workbook|title"),
    "a workbook with a password": Case("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 512, None, "password"),
}
