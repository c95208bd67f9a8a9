"""Makes untrusted text safe for a prompt, and cuts it to a number of tokens at sensible places.

Postings are written by strangers. The result is one line without control or invisible characters, and without anything
that could be read as a marker of a chat template or a delimiter of the prompt.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

# The part of a tokenizer that cutting needs: (start, end) of each token in the text.
Offsets = Callable[[str], Sequence[tuple[int, int]]]

_BRACKET_MARKERS = re.compile(r"\[(/?\s*[A-Za-z_]{2,16}\s*)\](?!\()")  # [INST], [/SYS]; not a Markdown link
_RULES = re.compile(r"([#=\-_*~`|])\1{2,}")  # ### Instruction, ---, ```, |||
_SPACE = re.compile(r"\s+")
_ANGLES = str.maketrans({"<": "‹", ">": "›"})


def neutralise(text: str) -> str:
    """One line of visible text in which `<`, `>` and bracketed markers are defused.

    Compatibility forms are folded first (NFKC), so that markers in full-width letters are caught too. Format, control,
    private and unassigned characters are removed, and so are variation selectors and tags, which can carry hidden text.
    """
    folded = unicodedata.normalize("NFKC", text)
    visible = "".join(map(_shown, folded))
    plain = _BRACKET_MARKERS.sub(r"(\1)", visible.translate(_ANGLES))
    return _SPACE.sub(" ", _RULES.sub(r"\1", plain)).strip()


@lru_cache(maxsize=8192)  # a text has few different characters, and looking one up costs ten times as much
def _shown(char: str) -> str:
    """What remains of a character: a blank of white space, nothing of an invisible one."""
    if char in "\t\n\r\v\f" or unicodedata.category(char) in ("Zs", "Zl", "Zp"):
        return " "
    return char if _is_visible(char) else ""


def _is_visible(char: str) -> bool:
    if unicodedata.category(char)[0] == "C":
        return False
    return not ("\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef")


def cut(text: str, limit: int, offsets: Offsets) -> tuple[str, bool]:
    """At most `limit` tokens of the text, ending at a sentence, a list item or a word; and whether it was cut."""
    spans = offsets(text)
    if len(spans) <= limit:
        return text, False
    if limit <= 0:
        return "", bool(text)
    end = spans[limit - 1][1]
    head = text[:end]
    if text[end : end + 1].strip():  # the cut is in the middle of a word
        head = head[: head.rfind(" ")] if " " in head else head
    stops = [m.start() for m in re.finditer(r"[.!?;,](?= |$)", head)]
    if stops and stops[-1] >= len(head) // 2:  # a whole item or sentence, unless that throws half away
        head = head[: stops[-1]]
    return head.rstrip(" ,;"), True


@dataclass(frozen=True, slots=True)
class Field:
    """One labelled line of a prompt."""

    label: str
    text: str


def fit(fields: Sequence[Field], limit: int, offsets: Offsets) -> tuple[list[Field], bool]:
    """The fields cut to `limit` tokens in total, the longest first; and whether any was cut."""
    lengths = [len(offsets(field.text)) for field in fields]
    if sum(lengths) <= limit:
        return list(fields), False
    cap = _fair_cap(lengths, limit)
    fitted = [Field(field.label, cut(field.text, cap, offsets)[0]) for field in fields]
    return [field for field in fitted if field.text], True


def _fair_cap(lengths: Sequence[int], limit: int) -> int:
    """The largest c for which the sum of min(length, c) stays within the limit."""
    left, cap = limit, 0
    for rank, length in enumerate(sorted(lengths)):
        cap = left // (len(lengths) - rank)
        if length > cap:
            return cap
        left -= length
    return cap
