"""The applicant's name in a document: finding it, and removing it from texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dynaq.personal.patterns import WORD
from dynaq.personal.resume_words import DOCUMENT_TITLES, HEADINGS, OCCUPATION, heading_key

# Occupations that are also common surnames; such a word alone does not confirm a name.
SURNAMES = frozenset(
    {"koch", "cook", "baker", "carpenter", "head", "guard", "coach", "meister", "driver", "chef", "cleaner"}
)


def without_names(text: str, names: Iterable[str]) -> str:
    """The text without these names: in full, surname first, and each capitalised word of them."""
    for name in sorted({name.strip() for name in names if name.strip()}, key=len, reverse=True):
        words = [re.escape(word) for word in re.findall(r"[\w'’.-]+", name)]
        if len(words) > 1:
            whole = r"[\s,]+".join(words)
            turned = r"[\s,]+".join([words[-1], *words[:-1]])
            text = re.sub(rf"\b(?:{whole}|{turned})(?!\w)", " ", text, flags=re.I)
        for word in re.findall(r"[^\W\d_][\w'’-]+", name):
            if (len(word) < 3 and not _cjk(word)) or OCCUPATION.fullmatch(word) or heading_key(word) in HEADINGS:
                continue
            shapes = {word, word.capitalize(), word.upper(), word.title()}
            text = re.sub(rf"(?<!\w)(?:{'|'.join(map(re.escape, shapes))})(?!\w)(?:['’]s\b)?", " ", text)
    return text


def _cjk(word: str) -> bool:
    return any("\u3040" <= char <= "\u9fff" or "\uac00" <= char <= "\ud7a3" for char in word)


def person_names(lines: Sequence[str], hints: Sequence[str], labelled: Sequence[str]) -> list[str]:
    """The applicant's name: labelled, else confirmed by e-mail address or hints, else the first name-like line."""
    text = "\n".join(lines)
    names = [name for name in labelled if _name_like(name)]
    evidence = {word.casefold() for hint in hints for word in re.findall(r"[^\W\d_]{3,}", hint)}
    for address in re.findall(r"([\w.+%-]+)\s?@", text):
        evidence |= {part.casefold() for part in re.findall(r"[^\W\d_]{3,}", address)}
    first: str | None = None
    confirmed: list[str] = []
    for number, line in enumerate(line for line in lines if line.strip()):
        for piece in re.split(r"[|\t•·]|\s[–—-]\s|,(?=\s)", line):
            piece = re.sub(
                r"^(?:CV|Resume|Résumé|Lebenslauf|Curriculum Vitae|Резюме)\b\s*[:–—-]?\s*",
                "",
                piece.strip(),
                flags=re.I,
            )
            piece = re.sub(r"^(?:Dr|Mr|Mrs|Ms|Prof|Herr|Frau|M|Mme|Sr|Sra)\b\.?(?:-Ing\.)?\s+", "", piece)
            if not _name_like(piece, surnames=True):
                continue
            words = {word.casefold() for word in re.findall(r"[^\W\d_]+", piece)}
            sure = words - SURNAMES
            if any(_alike(word, part) for word in sure for part in evidence):
                confirmed.append(piece)
            elif first is None and number < 5 and _name_like(piece):
                first = piece
    if not names:
        names = confirmed[:1] or ([first] if first else [])
    return names


def _alike(word: str, part: str) -> bool:
    return len(word) >= 3 and (word == part or (len(word) >= 4 and word in part))


def _name_like(text: str, *, surnames: bool = False) -> bool:
    """Whether a text is two to four capitalised words without digits, and neither a heading nor a job title.

    Args:
        text: a line or a part of one.
        surnames: allow words that are both occupations and surnames.
    """
    text = text.strip()
    if _cjk(text):
        return 2 <= len(text) <= 4 and heading_key(text) not in HEADINGS and heading_key(text) not in DOCUMENT_TITLES
    words = text.split()
    if not 2 <= len(words) <= 4 or len(text) > 50 or re.search(r"[\d@/&+#:;()]", text):
        return False
    key = heading_key(text)
    jobs = {match[0].casefold() for match in OCCUPATION.finditer(text)}
    if key in HEADINGS or key in DOCUMENT_TITLES or (jobs - SURNAMES if surnames else jobs):
        return False
    particles = {"van", "von", "de", "der", "den", "da", "di", "del", "la", "le", "bin", "al", "dos", "zu", "ter"}
    shape = re.compile(rf"(?:{WORD}|[A-ZÀ-ÞА-ЯЁ]\.?)$")
    return all(shape.match(word) or word.lower() in particles for word in words) and not any(
        heading_key(word) in HEADINGS for word in words
    )
