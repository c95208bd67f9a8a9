"""Excel workbooks: finds the sheet with the table and the header below titles; cells become the text that is shown."""

from __future__ import annotations

import datetime as dt
import itertools
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dynaq.errors import InputError
from dynaq.ingest.encodings import unpacked
from dynaq.ingest.headers import find_header, header_score, name_columns
from dynaq.ingest.limits import HEADER_ROWS, SHEET_ROWS
from dynaq.ingest.tables import Raw, ReadOptions, Table
from dynaq.ingest.zips import check_zip


@contextmanager
def open_workbook(path: Path, options: ReadOptions) -> Iterator[Table]:
    """One sheet of an `.xlsx` file as a table. Raises InputError when it is not a workbook, or holds no table."""
    # Imported here: it takes a while, and few inputs are spreadsheets.
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    with unpacked(path) as file:
        try:
            check_zip(file, path, "workbook")
            book = load_workbook(file, read_only=True, data_only=True)
        except InputError:
            raise
        except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, SyntaxError) as error:
            raise InputError(f"input file {path} is no .xlsx workbook ({error})") from None
        try:
            sheet, header_at, notes = _choose(book.worksheets, options, path)
            rows = sheet.iter_rows(values_only=True)
            header = [_name(cell) for cell in next(itertools.islice(rows, header_at, None), ())]
            if not any(header):
                raise InputError(f"input file {path}: sheet {sheet.title!r} has no header row")
            names = name_columns(header, options.known, where=str(path))
            yield Table([n for n in names if n], _rows(rows, names, header_at + 2), notes, cells=True)
        finally:
            book.close()


def _choose(sheets: Sequence[Any], options: ReadOptions, path: Path) -> tuple[Any, int, list[str]]:
    """(sheet, index of its header row, notes): the first sheet unless a later one has more of the fields' names."""
    if options.sheet is not None:
        named = [sheet for sheet in sheets if sheet.title == options.sheet]
        if not named:
            titles = ", ".join(repr(sheet.title) for sheet in sheets)
            raise InputError(f"input file {path} has no sheet {options.sheet!r}; its sheets are {titles}")
        sheets = named
    if not sheets:
        raise InputError(f"input file {path} holds no sheet with cells")
    heads = []
    for sheet in sheets:
        sheet.reset_dimensions()  # some programs write a wrong size, and openpyxl would stop there
        heads.append(list(itertools.islice(sheet.iter_rows(values_only=True), SHEET_ROWS)))
    places = [find_header(rows[:HEADER_ROWS], options.known) for rows in heads]
    scores = [header_score(rows[at], options.known) if rows else 0 for rows, at in zip(heads, places, strict=True)]
    filled = [sum(cell is not None for row in rows for cell in row) for rows in heads]
    # Without any known name the first sheet that is not empty is taken.
    best = max(range(len(sheets)), key=lambda i: (scores[i], filled[i] > 0, -i))
    notes = []
    if len(sheets) > 1:
        others = ", ".join(repr(sheet.title) for i, sheet in enumerate(sheets) if i != best and filled[i])
        if others:
            notes.append(f"sheet {sheets[best].title!r} was read, {others} not; choose with --sheet")
    if places[best]:
        notes.append(f"the header was found in row {places[best] + 1}, below other rows")
    return sheets[best], places[best], notes


def _rows(rows: Iterator[Sequence[Any]], names: Sequence[str], first: int) -> Iterator[Raw]:
    for number, row in enumerate(rows, start=first):
        cells = {k: _cell(v) for k, v in zip(names, row, strict=False) if k and v is not None and v != ""}
        if cells:
            yield number, cells


def _name(cell: Any) -> str:
    return " ".join(str(cell).split()) if cell is not None else ""


def _cell(value: Any) -> str:
    """A cell as the text that is shown: 7 rather than 7.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (dt.date, dt.datetime, dt.time)):
        return value.isoformat()
    return str(value)
