"""Header rows of tables: where they are, and names for their columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dynaq.errors import InputError
from dynaq.ingest.columns import normalise


def header_score(row: Sequence[object], known: Collection[str]) -> int:
    """How many cells of a row are names of fields."""
    return len({name for cell in row if cell is not None and (name := normalise(str(cell))) in known})


def find_header(rows: Sequence[Sequence[object]], known: Collection[str]) -> int:
    """Index of the header among a table's first rows: the one with most known names, else the first that is as wide.

    A first row with a known name is the header, however many names a later row has by chance.
    """
    if not rows or header_score(rows[0], known) >= 2:
        return 0
    scores = [header_score(row, known) for row in rows]
    best = max(scores)
    if best >= 2 or (best == 1 and scores[0] == 0):
        # Below a title row the known word must stand in a row as wide as the table, not in the title itself.
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
    """One name per column, "" for columns without one at the end, which are spreadsheets' leftovers.

    A name that is there twice gets a number, unless it is a field: which of the two is meant cannot be told, and
    InputError says so.
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
