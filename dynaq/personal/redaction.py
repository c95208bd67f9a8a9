"""Removes personal data from applicants' texts before anything is embedded or judged, and before files are stored.

It works by rules: patterns (e-mail, phone through `phonenumbers`, street addresses), labelled fields ("Date of birth:
…"), whole sections ("Personal details", "References"), and names that the document or a column states, which are then
removed everywhere. What no rule matches stays in the text; docs/data.md has the measured recall.

Records that are in a store already, such as those of a database filled by hand, are not changed there:
`judged_candidates` reads them without personal data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import phonenumbers

from dynaq.field_names import normalise
from dynaq.personal.patterns import (
    ADDRESSES,
    ENGLISH,
    GENDER,
    HEAD_CITY,
    LABELLED,
    NAMES,
    NANP,
    ONLY_LABEL,
    PATTERNS,
    PERSONAL_COLUMNS,
    PHONE_LIKE,
    PHONES,
    REGIONS,
    SAID_NAME,
    THIRD_PERSON,
)
from dynaq.personal.person_names import person_names, without_names
from dynaq.personal.resume_words import HEADINGS, OCCUPATION, heading_key
from dynaq.records import Candidate, Experience

PERSONAL_DATA = "personal_data"  # key of a store's meta, and its values:
# `REMOVED` names the rules: vectors that older rules let pass are looked at again by the next ingestion.
STATE_KEPT, REMOVING, REMOVED = "kept", "removing", "removed by rules 2"
# A line between two columns: text above the second column's first heading is in no section of the first column.
COLUMN_MARK = "\ue000"
_HEAD_LINES = 15


class Applicants(Protocol):
    """The part of `dynaq.stores.Store` that applicants are read from."""

    def records(self, kind: Literal["candidate"], ids: Sequence[str] | None = None) -> Iterator[Candidate]:
        """The records with these ids (None: all)."""
        ...

    def meta(self) -> Mapping[str, Any]:
        """Metadata of the store as a whole."""
        ...


def redact(text: str, names: Sequence[str] = ()) -> tuple[str, set[str]]:
    """A text without personal data, and the kinds that it contained; the text itself if there were none.

    Args:
        text: any text, of one line or many.
        names: the applicant's names, as far as they are known; they are removed everywhere.
    """
    found: set[str] = set()
    names = [*names]
    for match in SAID_NAME.finditer(text):
        names.append(match["name"])
    clean = _without_labelled(text, found, names)
    for kind, pattern in PATTERNS:
        clean, count = pattern.subn(" ", clean)
        if count:
            found.add(kind)
    if ENGLISH.search(clean):
        clean, count = THIRD_PERSON.subn(" ", clean)
        if count:
            found.add(GENDER)
    clean, phones = _without_phones(clean)
    if phones:
        found.add(PHONES)
    without = without_names(clean, names)
    if without != clean:
        found.add(NAMES)
        clean = without
    return (_tidy(clean, text), found) if found else (text, found)


def _without_labelled(text: str, found: set[str], names: list[str]) -> str:
    """Drop lines, or cells of a line, of the form "Label: value"; a label alone is dropped with what follows it."""
    pieces = re.split(r"(\n|\t|\||;|•|·)", text)
    label: str | None = None
    for i in range(0, len(pieces), 2):
        piece = pieces[i]
        if not piece.strip():
            continue
        if label is not None:
            if label == NAMES:
                names.append(piece.strip())
            pieces[i], label = "", None
            continue
        for kind, pattern in LABELLED:
            if match := pattern.match(piece):
                value, rest = _sentence(match["value"])
                if not value.strip():
                    label = kind
                elif kind == NAMES and len(value.split()) > 5:
                    break
                elif kind == NAMES:
                    names.append(value.strip())
                found.add(kind)
                pieces[i] = rest
                break
        else:
            alone = next((kind for kind, pattern in ONLY_LABEL if pattern.match(piece)), None)
            if alone is not None and i + 1 < len(pieces) and pieces[i + 1] in ("\t", "|"):
                found.add(alone)
                pieces[i], label = "", alone
    return "".join(pieces)


def _sentence(value: str) -> tuple[str, str]:
    """A label's value, and what follows it: the next sentence, in texts of a single line."""
    end = re.search(r"(?<=[\w)]{2})\.\s+(?=[A-ZА-ЯЁÄÖÜ])", value)
    return (value[: end.start()], value[end.end() :]) if end else (value, "")


def _without_phones(text: str) -> tuple[str, int]:
    """Drop valid phone numbers of many countries. Sequences of years and dates are not phone numbers."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        shown = match[0]
        number_alone = re.split(r"\s?(?:x|ext|доб)", shown, flags=re.IGNORECASE)[0]
        groups = re.findall(r"\d+", number_alone)
        digits = "".join(groups)
        if not 7 <= len(digits) <= 15 or (
            all(len(g) <= 2 or re.fullmatch(r"(?:19|20)\d\d", g) for g in groups if g)
            and (any(len(g) == 4 for g in groups) and not shown.startswith("+"))
        ):
            return shown
        if NANP.match(shown):
            count += 1
            return " "
        international = re.sub(r"^00(?=[1-9])", "+", number_alone)
        for region in REGIONS:
            try:
                number = phonenumbers.parse(international, region)
            except phonenumbers.NumberParseException:
                continue
            if phonenumbers.is_valid_number(number) or (
                shown.startswith("+") and phonenumbers.is_possible_number(number)
            ):
                count += 1
                return " "
        return shown

    return PHONE_LIKE.sub(replace, text), count


def _tidy(text: str, before: str) -> str:
    """Clean up what is left: empty brackets, separators with nothing between them, double spaces."""
    untouched = set(before.split("\n"))
    lines = []
    for line in text.split("\n"):
        if line in untouched:
            lines.append(line)
            continue
        line = re.sub(r"\(\s*[,;]?\s*\)|\[\s*\]", " ", line)
        line = re.sub(r"[^\S\n\t]+", " ", line)
        line = re.sub(r"(?:\s*[|•·;,]\s*){2,}", " | ", line)
        line = re.sub(r" +([,.;:!?])", r"\1", line)
        line = (
            re.sub(r"^[\s|•·;,:.]+(?=\S)|[\s|•·;,:]+$", "", line)
            if re.search(r"^\s*[|·;,:.]|[|·;,:]\s*$", line)
            else line
        )
        lines.append(line.strip(" ") if re.search(r"\w", line) or line.strip() == COLUMN_MARK else "")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def names_in_columns(fields: Mapping[str, Any]) -> list[str]:
    """The values of a record's columns that hold names."""
    return [
        value
        for name, value in fields.items()
        if isinstance(value, str) and PERSONAL_COLUMNS.get(normalise(str(name))) == NAMES and len(value) < 100
    ]


def document_without_personal_data(lines: Sequence[str], hints: Sequence[str] = ()) -> tuple[list[str], set[str]]:
    """A document's lines without personal data, and the kinds that it contained.

    Args:
        lines: in reading order.
        hints: texts that may contain parts of the name, such as the file's name.

    Sections such as "Personal details" and "References" are removed as a whole. The name is searched for at the top,
    above the first section, and confirmed by the e-mail address or the hints where possible.
    """
    found: set[str] = set()
    kept = _without_personal_sections(lines, found)
    labelled: list[str] = []
    _without_labelled("\n".join(lines), set(), labelled)
    names = person_names(lines, hints, labelled)
    body, in_body = redact("\n".join(_without_head_addresses(kept, found)), names)
    found |= in_body
    return body.split("\n"), found


def _without_head_addresses(lines: Sequence[str], found: set[str]) -> list[str]:
    """The lines; those above the first section, or at the top of a column, lose addresses and places."""
    kept = list(lines)
    heads = [0, *(i + 1 for i, line in enumerate(lines) if line == COLUMN_MARK)]
    for start in heads:
        rest = lines[start:]
        end = next((i for i, line in enumerate(rest) if heading_key(line) in HEADINGS), len(rest))
        end = min(end, _nth_line(rest, _HEAD_LINES))
        contact = [i for i, line in enumerate(rest[:end]) if "@" in line or PHONE_LIKE.search(line)]
        for i, line in enumerate(rest[:end]):
            parts = re.split(r"(\s*[|\t•·]\s*)", line)
            near = any(abs(i - other) <= 2 for other in contact)
            clear = ["" if _address(part, near=near) else part for part in parts]
            if clear != parts:
                found.add(ADDRESSES)
                kept[start + i] = "".join(clear)
    return kept


def _address(part: str, *, near: bool) -> bool:
    """Whether a part of the head is an address, or a place name beside contact details. E-mails and phones are not."""
    if not part.strip() or OCCUPATION.search(part) or "@" in part:
        return False
    if any(kind == ADDRESSES and pattern.search(part) for kind, pattern in PATTERNS):
        return True
    postal = re.search(r"(?<![\d+ -])\d{5,6}(?![\d -]*\d)", part) and re.search(r"[^\W\d_]{3}", part)
    return bool(postal) or (near and HEAD_CITY.match(part.strip()) is not None)


def _nth_line(lines: Sequence[str], n: int) -> int:
    filled = [i for i, line in enumerate(lines) if line.strip()]
    return filled[n - 1] + 1 if len(filled) >= n else len(lines)


def _without_personal_sections(lines: Sequence[str], found: set[str]) -> list[str]:
    kept: list[str] = []
    personal = False
    for line in lines:
        section = HEADINGS.get(heading_key(line)) if len(line) < 60 else None
        if section is not None:
            personal = section == "personal"
        if not personal:
            kept.append(line)
        elif section is None and line.strip():
            found |= redact(line)[1] or {ADDRESSES}
    return kept


def without_personal_data(candidate: Candidate, names: Sequence[str] = ()) -> tuple[Candidate, frozenset[str]]:
    """The record without personal data, and the kinds that it contained; the record itself if there were none.

    An id that is an e-mail address or a phone number is left to the caller, since it is the record's key.
    """
    found: set[str] = set()
    bio, kinds = redact(candidate.bio, names)
    found |= kinds

    def items(texts: Sequence[str]) -> tuple[str, ...]:
        clean = []
        for text in texts:
            rest, kinds = redact(text, names)
            found.update(kinds)
            if rest.strip():
                clean.append(rest)
        return tuple(clean)

    hard, soft = items(candidate.hard_skills), items(candidate.soft_skills)
    experience = tuple(filter(None, (_position(position, names, found) for position in candidate.experience)))
    if not found:
        return candidate, frozenset()
    update = {"bio": bio, "hard_skills": hard, "soft_skills": soft, "experience": experience}
    return candidate.model_copy(update=update), frozenset(found)


def _position(position: Experience, names: Sequence[str], found: set[str]) -> Experience | None:
    kept: dict[str, Any] = {}
    for key, value in position.model_dump().items():
        kind = PERSONAL_COLUMNS.get(normalise(key))
        if kind is not None:
            found.add(kind)
        elif isinstance(value, str):
            kept[key], kinds = redact(value, names)
            found |= kinds
        else:
            kept[key] = value
    return Experience.model_validate(kept) if str(kept.get("title", "")).strip() else None


def says_something(candidate: Candidate) -> bool:
    """Whether a record has any text to embed."""
    texts = [candidate.bio, *candidate.hard_skills, *candidate.soft_skills, *(p.title for p in candidate.experience)]
    return any(text.strip() for text in texts)


def keeps_personal_data(meta: Mapping[str, Any]) -> bool:
    """Whether a store with this meta has its applicants' texts embedded and judged as they are."""
    return meta.get(PERSONAL_DATA) == STATE_KEPT


def judged_candidates(store: Applicants, ids: Sequence[str] | None = None) -> Iterator[Candidate]:
    """The applicants with these ids (None: all) as judges see them.

    That is without personal data, unless the store keeps it. What the store itself holds is not changed.
    """
    records = store.records("candidate", ids)
    return records if keeps_personal_data(store.meta()) else (without_personal_data(record)[0] for record in records)
