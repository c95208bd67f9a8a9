"""Lines of a page in reading order, column after column, from its words and their positions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dynaq.personal.redaction import COLUMN_MARK

Word = dict[str, Any]  # text, x0, x1, top, bottom in points, as pdfplumber gives them

_GUTTER = 9.0  # least gap between columns, in points
_COLUMN_ROWS = 4
_YEAR_OR_MONTH = re.compile(r"\b(?:19|20)\d\d\b|\b\d{1,2}[./]\d{2,4}\b")


def page_lines(words: Sequence[Word], width: float) -> list[str]:
    """Lines of a page: the words of each row joined, a tab at wide gaps, "" between rows that are far apart.

    A page in two columns is read column by column; rows that span both, such as headers, stay in their place.
    """
    rows = _rows(words)
    gutter = _gutter(rows, width)
    if gutter is None:
        return _lines(rows)
    lines: list[str] = []
    band: list[list[Word]] = []
    for row in rows:
        if _crosses(row, gutter):
            lines += _columns(band, gutter)
            lines += _lines([row])
            band = []
        else:
            band.append(row)
    return lines + _columns(band, gutter)


def _rows(words: Sequence[Word]) -> list[list[Word]]:
    """Words grouped by the height of their middles, from top to bottom, each row from left to right."""
    rows: list[list[Word]] = []
    for word in sorted(words, key=lambda w: (w["top"] + w["bottom"], w["x0"])):
        middle = (word["top"] + word["bottom"]) / 2
        last = rows[-1][-1] if rows else None
        if last is not None and abs(middle - (last["top"] + last["bottom"]) / 2) <= 2.5:
            rows[-1].append(word)
        else:
            rows.append([word])
    return [sorted(row, key=lambda w: w["x0"]) for row in rows]


def _crosses(row: Sequence[Word], x: float) -> bool:
    """Whether a row continues across `x`: a word covers it, or the words beside it are as close as in a sentence."""
    left = [word["x1"] for word in row if word["x0"] < x]
    right = [word["x0"] for word in row if word["x0"] >= x]
    if left and max(left) > x:
        return True
    return bool(left and right) and min(right) - max(left) < _GUTTER


def _gutter(rows: Sequence[Sequence[Word]], width: float) -> float | None:
    """Position of the gap between two columns; None for a single column, or for dates set beside their rows."""
    best, best_score = None, 0.0
    for x in sorted({word["x0"] for row in rows for word in row if 0.2 * width < word["x0"] < 0.8 * width}):
        at = x - 1.0
        whole = [row for row in rows if not _crosses(row, at)]
        left = [[w for w in row if w["x0"] < at] for row in whole]
        right = [[w for w in row if w["x0"] >= at] for row in whole]
        n_left, n_right = sum(map(bool, left)), sum(map(bool, right))
        if min(n_left, n_right) < _COLUMN_ROWS:
            continue
        # Many rows of a column start at the same x; right-aligned dates end at the same x instead.
        starts = sum(abs(row[0]["x0"] - x) < 3 for row in right if row)
        if starts * 2 < n_right or not _side_by_side(left, right) or _mostly_dates(left) or _mostly_dates(right):
            continue
        score = min(n_left, n_right) + starts - 2.0 * sum(_crosses(row, at) for row in rows if row[0]["x0"] < x)
        if score > best_score:
            best, best_score = at, score
    return best


def _side_by_side(left: Sequence[Sequence[Word]], right: Sequence[Sequence[Word]]) -> bool:
    """Whether the columns overlap vertically in some rows, rather than one being above the other."""
    tops = [[row[0]["top"] for row in column if row] for column in (left, right)]
    low, high = max(min(side) for side in tops), min(max(side) for side in tops)
    return all(sum(low <= top <= high for top in side) >= 3 for side in tops)


def _mostly_dates(column: Sequence[Sequence[Word]]) -> bool:
    texts = [" ".join(word["text"] for word in row) for row in column if row]
    dates = sum(bool(_YEAR_OR_MONTH.search(text)) and len(text.split()) <= 6 for text in texts)
    return dates * 2 > len(texts)


def _columns(band: Sequence[Sequence[Word]], gutter: float) -> list[str]:
    left = [[word for word in row if word["x0"] < gutter] for row in band]
    right = [[word for word in row if word["x0"] >= gutter] for row in band]
    found = [_lines([row for row in column if row]) for column in (left, right)]
    if all(found):
        return [*found[0], COLUMN_MARK, *found[1], ""]
    return [*found[0], *found[1], ""] if any(found) else []


def _lines(rows: Sequence[Sequence[Word]]) -> list[str]:
    lines: list[str] = []
    bottom: float | None = None
    for row in rows:
        height = max(word["bottom"] - word["top"] for word in row)
        if bottom is not None and row[0]["top"] - bottom > 0.9 * height:
            lines.append("")
        bottom = max(word["bottom"] for word in row)
        text, end = "", None
        for word in row:
            if end is not None:
                text += "\t" if word["x0"] - end > 2.0 * height else " "
            text, end = text + word["text"], word["x1"]
        lines.append(text)
    return lines
