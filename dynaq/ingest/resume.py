"""Turns a résumé's lines into the fields of a candidate, by its headings. Every word comes from the document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dynaq.personal.redaction import COLUMN_MARK
from dynaq.personal.resume_words import COMPANY, DOCUMENT_TITLES, HEADINGS, OCCUPATION, heading_key

BIO_CHARS = 20_000
_SKILL_WORDS = 7
_BULLET = re.compile(r"^\s*[•\-–—*·●▪►◦]\s+")
_MONTHS = (
    "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mär|mai|okt|dez|янв|фев|мар|апр|ма[йя]|июн|июл|авг|сен|окт|ноя|дек|"
    "fév|avr|juin|juil|août|déc|ene|abr|ago|dic|gen|mag|giu|lug|set|ott|fev|out|січ|лют|бер|кві|тра|чер|лип|сер|вер|жов|лис|гру"
)
_MONTH = rf"(?:(?:{_MONTHS})[^\W\d_]{{0,7}}\.?,?\s+(?:de\s+)?)?(?:\d{{1,2}}[./])?"
_YEAR = r"(?:19|20)\d\d"
_NOW = (
    r"(?:present|now|current|today|ongoing|heute|jetzt|aktuell|aujourd['’]hui|présent|actualidad|presente|actual|"
    r"настоящее время|н\.\s?в\.?|по настоящее время|сейчас|至今|現在)"
)
PERIOD = re.compile(
    rf"\(?\b{_MONTH}{_YEAR}\s*(?:[-–—]|to|until|bis|à|по|hasta|a)\s*(?:по\s+)?(?:{_MONTH}{_YEAR}|{_NOW})\)?"
    rf"|\b(?:since|seit|depuis|desde|с)\s+{_MONTH}{_YEAR}|^\s*\(?{_YEAR}\)?\s*$",
    re.IGNORECASE,
)
_SEPARATORS = re.compile(r"\t|\s+[|·•]\s+|\s+[–—-]\s+|\s+(?:at|bei|chez|в компании)\s+|\s+@\s+")


def resume_fields(lines: Sequence[str]) -> dict[str, Any]:
    """The fields `bio`, `hard_skills`, `soft_skills` and `experience` of a candidate.

    Args:
        lines: the document in reading order; "" where the layout leaves a gap.

    Text under no heading and sections that are not fields make up the bio. Without any heading the whole document is
    the bio.
    """
    sections = _sections(lines)
    hard = _skills([line for name, content in sections if name == "hard_skills" for line in content])
    soft = _skills([line for name, content in sections if name == "soft_skills" for line in content])
    positions, details = _experience(
        [line for name, content in sections if name == "experience" for line in [*content, ""]]
    )
    bio = [line for name, content in sections if name == "head" for line in content]
    bio += [line for name, content in sections if name == "summary" for line in content]
    bio += details + hard.prose + soft.prose
    bio += [line for name, content in sections if name in ("education", "other") for line in content]
    text = "\n".join(clean for line in bio if (clean := _plain(line)))
    fields: dict[str, Any] = {
        "bio": text[:BIO_CHARS],
        "hard_skills": hard.items,
        "soft_skills": soft.items,
        "experience": positions,
    }
    return {name: value for name, value in fields.items() if value}


def _plain(line: str) -> str:
    return " ".join(_BULLET.sub("", line).split())


def _sections(lines: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(section, its lines) of each section; the first is the head, above the first heading."""
    sections: list[tuple[str, list[str]]] = [("head", [])]
    for line in lines:
        name, rest = _heading(line)
        if line == COLUMN_MARK:
            sections.append(("head", []))
        elif name is not None:
            sections.append((name, [rest] if rest else []))
        elif heading_key(line) not in DOCUMENT_TITLES or not line.strip():
            sections[-1][1].append(line)
    return sections


def _heading(line: str) -> tuple[str | None, str]:
    """(section, the text after the heading on the same line); (None, "") for a line that is not a heading."""
    text = line.strip()
    if not text or _BULLET.match(text):
        return None, ""
    if len(text) < 60 and (name := _section_of(text)) is not None:
        return name, ""
    before, colon, behind = text.partition(":")
    if colon and behind.strip() and len(before) < 40 and (name := HEADINGS.get(heading_key(before))) is not None:
        return name, behind.strip()
    return None, ""


def _section_of(text: str) -> str | None:
    if re.search(r"[.!?,;@]\s*$", text) or re.search(r"\d", text):
        return None
    key = heading_key(text)
    if key in HEADINGS:
        return HEADINGS[key]
    parts = [part for part in re.split(r"\s(?:and|und|et|y|и|e)\s|/", key) if part]
    known = [HEADINGS[part.strip()] for part in parts if part.strip() in HEADINGS]
    return known[0] if len(parts) > 1 and len(known) == len(parts) else None


class _Skills:
    """Individual skills, and the lines of their section that are sentences."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.prose: list[str] = []

    def add(self, text: str) -> None:
        item = re.sub(r"\s*(?:[●○★☆■□▪]+|\((?:\d+\+?\s*[^\W\d_]+)\)|\d{1,3}\s*%)\s*$", "", _plain(text)).strip(" .;,:")
        if not re.search(r"\w", item):
            return
        if len(item.split()) > _SKILL_WORDS:
            self.prose.append(text)
        elif item.casefold() not in (other.casefold() for other in self.items):
            self.items.append(item)


def _skills(lines: Sequence[str]) -> _Skills:
    skills = _Skills()
    for line in _unwrapped(lines):
        group, colon, behind = line.partition(":")
        if colon and len(group.split()) <= 4 and behind.strip():
            line = behind
        for part in _split_outside_brackets(line):
            skills.add(part)
    return skills


def _unwrapped(lines: Sequence[str]) -> list[str]:
    """Lines joined again where a comma-separated list was wrapped at the page's width."""
    filled = [line for line in lines if line.strip()]
    commas = sum("," in line for line in filled)
    if commas * 2 < len(filled) or any(_BULLET.match(line) for line in filled):
        return filled
    joined: list[str] = []
    for line in filled:
        goes_on = bool(joined) and ":" not in line and (joined[-1].rstrip().endswith((",", "-")) or "," in joined[-1])
        if goes_on:
            joined[-1] += " " + line
        else:
            joined.append(line)
    return joined


def _split_outside_brackets(text: str) -> list[str]:
    parts, depth = [""], 0
    for char in text:
        depth += (char in "([") - (char in ")]")
        if char in ",;|•·\t" and depth <= 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part for part in parts if part.strip()]


def _experience(lines: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
    """(positions, the lines that describe them). A position is recognised by the period beside its title."""
    heads: list[tuple[list[str], str]] = []
    details: list[str] = []
    pending: list[str] = []  # short lines since the last gap or detail, which may be a title above its period
    take_next = 0
    for line in lines:
        period = PERIOD.search(line)
        if not line.strip():
            if take_next and heads[-1][0]:
                take_next = 0
        elif period is not None and not _BULLET.match(line) and len(line.split()) <= 25:
            rest = (line[: period.start()] + "\t" + line[period.end() :]).strip(" \t,|–—-()")
            above = pending[-2:]
            details += pending[:-2]
            pending = []
            if rest:
                heads.append(([*above, rest], period[0].strip(" ()")))
                take_next = 0 if above or len(_parts(rest)) > 1 else 1
            else:
                heads.append((above, period[0].strip(" ()")))
                take_next = 0 if above else 2
        elif _short(line) and take_next:
            heads[-1][0].append(line)
            take_next -= 1
        elif _short(line):
            details += pending[:-2]
            pending = [*pending[-2:], line]
        else:
            take_next = 0
            details += [*pending, line]
            pending = []
    details += pending
    positions = [position for head, period in heads if (position := _position(head, period)) is not None]
    if not positions:
        positions, details = _undated(details)
    return positions, details


def _undated(lines: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
    """Positions in a list without periods: short lines that contain an occupation."""
    positions, rest = [], []
    for line in lines:
        text = _plain(line)
        if _short(text) and OCCUPATION.search(text) and (position := _position([text], "")) is not None:
            positions.append(position)
        else:
            rest.append(line)
    return positions, rest


def _short(line: str) -> bool:
    sentence = line.rstrip().endswith((".", ";", "!")) and not _company(line)
    return not _BULLET.match(line) and len(line.split()) <= 12 and not sentence


def _parts(text: str) -> list[str]:
    """The parts of a head's line. Commas separate only where nothing else does, since company names have commas too."""
    parts = [part for part in _SEPARATORS.split(text) if part and re.search(r"\w", part)]
    if len(parts) == 1:
        pieces = parts[0].split(", ")
        named = next((i for i, piece in enumerate(pieces) if OCCUPATION.search(piece) and not _company(piece)), None)
        if named is not None and len(pieces) > 1:
            others = [", ".join(pieces[:named]), ", ".join(pieces[named + 1 :])]
            parts = [pieces[named], *filter(None, others)]
    return [stripped for part in parts if (stripped := part.strip(" ,|–—-()"))]


def _position(head: Sequence[str], period: str) -> dict[str, str] | None:
    """Title and company of a position: the part that names an occupation, and the one that names a company."""
    lines = list(head)
    if len(lines) > 1 and any(OCCUPATION.search(line) for line in lines):
        parts = [
            part for line in lines for part in (_parts(line) if _SEPARATORS.search(line) else [line.strip(" ,|–—-()")])
        ]
    else:
        parts = [part for line in lines for part in _parts(line)]
    if not parts:
        return None
    titled = [part for part in parts if OCCUPATION.search(part) and not _company(part)]
    title = titled[0] if titled else next((part for part in parts if not _company(part)), parts[0])
    others = [part for part in parts if part != title]
    companies = [part for part in others if _company(part)]
    company = companies[0] if companies else (others[0] if others else "")
    position = {"title": title, "company": company}
    if period:
        position["period"] = " ".join(period.split())
    return position


def _company(text: str) -> bool:
    return COMPANY.search(text) is not None and not re.search(
        r"\b(?:engineer|developer|manager|nurse|teacher|инженер|менеджер|разработчик)\b", text, re.IGNORECASE
    )
