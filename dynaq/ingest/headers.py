"""Header rows of tables: finding them, and naming their columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dynaq.errors import InputError
from dynaq.field_names import normalise


def header_score(row: Sequence[object], known: Collection[str]) -> int:
    """How many distinct known names stand in a row."""
    return len({name for cell in row if cell is not None and (name := normalise(str(cell))) in known})


def find_header(rows: Sequence[Sequence[object]], known: Collection[str]) -> int:
    """Index of the header among a table's first rows: the row with the most known names, else the first of full width.

    A first row with two known names is always the header, whatever later rows contain.
    """
    if not rows or header_score(rows[0], known) >= 2:
        return 0
    scores = [header_score(row, known) for row in rows]
    best = max(scores)
    if best >= 2 or (best == 1 and scores[0] == 0):
        # A single known word counts only in a row of full width: it may stand in a title above the table by chance.
        index = scores.index(best)
        if best >= 2 or _width(rows[index]) == max(map(_width, rows)):
            return index
    if scores[0]:
        return 0
    if _width(rows[0]) <= 1:
        widest = max(map(_width, rows))
        return next((i for i, row in enumerate(rows) if widest > 1 and _width(row) == widest), 0)
    return 0


def _width(row: Sequence[object]) -> int:
    return sum(cell is not None and str(cell).strip() != "" for cell in row)


def name_columns(header: Sequence[str], known: Collection[str], *, where: str) -> list[str]:
    """One name per column; "" for unnamed columns at the end, which spreadsheets leave behind.

    Repeated names are numbered. Raises InputError when a repeated name is a field's, since it is not clear which of the
    columns is meant.
    """
    names: list[str] = []
    for position, name in enumerate(header, start=1):
        if not name:
            names.append(f"column {position}" if any(header[position:]) else "")
        elif name in names:
            if normalise(name) in known:
                raise InputError(f"input file {where}: column {name!r} is there twice; rename one of them")
            count = sum(other == name or other.startswith(f"{name} (") for other in names)
            names.append(f"{name} ({count + 1})")
        else:
            names.append(name)
    return names
