"""The value that a cell or field stands for: lists written as text, objects with a name, HTML, long texts."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from dynaq.ingest.columns import LIST_FIELDS, TEXT_FIELDS
from dynaq.ingest.html import has_html, html_to_text
from dynaq.ingest.limits import CELL_CHARS, LIST_ITEMS, LITERAL_CHARS

# What programs write into an empty cell. Compared with whole cells, and only in tables of text.
EMPTY_CELLS = frozenset({"nan", "none", "null", "n/a", "#n/a", "#ref!", "#value!", "#name?", "#div/0!", "nat", "<na>"})

NOTE_HTML = "HTML turned into text"
NOTE_CUT = f"a text longer than {CELL_CHARS:,} characters cut there"
NOTE_LITERAL = "a list in Python's notation read as a list"
NOTE_COMMAS = "a list written with commas, bars or lines split into its parts"
NOTE_NAMES = "objects replaced by their names"
NOTE_NOTHING = "cells such as nan, None and #N/A taken for empty"
NOTE_ITEMS = f"a list longer than {LIST_ITEMS:,} items cut there"
NOTE_PROSE = "experience written as a text put into the bio"

_NAME_KEYS = ("name", "title", "label", "skill", "skill_name", "value", "text")
_NUMPY_STRINGS = re.compile(r"""\[\s*(?:'[^']*'|"[^"]*")(?:\s+(?:'[^']*'|"[^"]*"))+\s*\]""")
_PROSE_CHARS = 200  # cells that list past positions are shorter; longer ones hold a résumé's text
_PART_CHARS = 60
_PART_WORDS = 6


def mend(record: Mapping[str, Any], *, table: bool) -> tuple[dict[str, Any], set[str]]:
    """The record's fields as lists and plain texts, and notes on what had to be changed.

    Args:
        record: fields by their names, as `ColumnPlan.apply` gives them.
        table: whether the values are cells of a table (all of them text), which are bounded.

    What cannot be mended is left as it is, and the record's validation reports it.
    """
    notes: set[str] = set()
    mended: dict[str, Any] = {}
    for name, value in record.items():
        if table and isinstance(value, str) and value.strip().casefold() in EMPTY_CELLS:
            notes.add(NOTE_NOTHING)
        elif name in LIST_FIELDS:
            mended[name] = _list(value, name, notes)
        elif name in TEXT_FIELDS:
            mended[name] = _text(value, notes, bounded=table)
        elif table and isinstance(value, str) and len(value) > CELL_CHARS and name != "id":
            notes.add(NOTE_CUT)
            mended[name] = value[:CELL_CHARS]
        else:
            mended[name] = value
    _move_prose(mended, notes)
    return mended, notes


def _move_prose(record: dict[str, Any], notes: set[str]) -> None:
    prose = record.get("experience")
    if isinstance(prose, str) and "bio" in record and not isinstance(record["bio"], str):
        return
    if isinstance(prose, str) and len(prose) > _PROSE_CHARS:
        notes.add(NOTE_PROSE)
        del record["experience"]
        record["bio"] = "\n".join(part for part in (record.get("bio"), prose) if part)


def _text(value: Any, notes: set[str], *, bounded: bool) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        value = _literal(value, set())
    if isinstance(value, Mapping) and isinstance(name := _name(value), str):
        notes.add(NOTE_NAMES)
        value = name
    if not isinstance(value, str):
        return value
    if has_html(value) and (text := html_to_text(value)) != value:
        notes.add(NOTE_HTML)
        value = text
    if bounded and len(value) > CELL_CHARS:
        notes.add(NOTE_CUT)
        value = value[:CELL_CHARS]
    return value


def _list(value: Any, field: str, notes: set[str]) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{", "("):
        value = _literal(value, notes)
    if isinstance(value, Mapping) and field != "experience" and _name(value) is not None:
        value = [value]
    if isinstance(value, str):
        return _split(value, field, notes)
    if not isinstance(value, (list, tuple, set, frozenset)):
        return value
    items: list[Any] = []
    for item in sorted(value, key=str) if isinstance(value, (set, frozenset)) else value:
        items += item if isinstance(item, (list, tuple)) else [item]
    if any(isinstance(item, Mapping) for item in items) and field != "experience":
        named = [_name(item) if isinstance(item, Mapping) else item for item in items]
        if all(name is not None for name in named):
            notes.add(NOTE_NAMES)
            items = named
    if any(isinstance(item, str) and has_html(item) for item in items):
        notes.add(NOTE_HTML)
        items = [html_to_text(item) if isinstance(item, str) and has_html(item) else item for item in items]
    if len(items) > LIST_ITEMS:
        notes.add(NOTE_ITEMS)
        items = items[:LIST_ITEMS]
    return items


def _name(value: Mapping[str, Any]) -> str | None:
    """The name in an object such as `{'id': 7, 'name': 'Python'}`."""
    for key in _NAME_KEYS:
        if isinstance(name := value.get(key), str):
            return name
    return None


def _literal(text: str, notes: set[str]) -> Any:
    """A JSON or Python literal; the text itself when it is neither. Nothing in it is executed."""
    if len(text) > LITERAL_CHARS:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if _NUMPY_STRINGS.fullmatch(text.strip()):
        notes.add(NOTE_LITERAL)
        return [single or double for single, double in re.findall(r"""'([^']*)'|"([^"]*)\"""", text)]
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
    notes.add(NOTE_LITERAL)
    return value


def _split(text: str, field: str, notes: set[str]) -> Any:
    """Split text of several parts into a list. Text with `;`, the documented separator, is split by the record."""
    if has_html(text):
        notes.add(NOTE_HTML)
        text = html_to_text(text)
        text = "\n".join(re.sub(r"^\* ", "", line) for line in text.split("\n"))
    if ";" in text:
        return text
    skills = field.endswith("skills")
    lines = [re.sub(r"^\s*[-–•*·●▪►]\s*", "", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    if len(lines) > 1 and (skills or field == "experience_requirements"):
        notes.add(NOTE_COMMAS)
        return [part for line in lines for part in (_parts(line) if skills else [line])]
    if skills and len(parts := _parts(text)) > 1:
        notes.add(NOTE_COMMAS)
        return parts
    return text


def _parts(text: str) -> list[str]:
    """Parts between commas, bars or bullets outside brackets; the whole text when they read like a sentence."""
    parts: list[str] = [""]
    depth = 0
    for i, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        number = char == "," and text[i - 1 : i].isdigit() and text[i + 1 : i + 2].isdigit()
        if depth <= 0 and char in ",|•·，、" and not number:
            parts.append("")
        else:
            parts[-1] += char
    parts = [part.strip() for part in parts if part.strip()]
    long = sum(len(part) > _PART_CHARS or len(part.split()) > _PART_WORDS for part in parts)
    return parts if parts and long * 4 <= len(parts) else [text.strip()]
