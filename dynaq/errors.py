"""The failures that a user sees. Each message says what is wrong, with which input, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class DynaqError(Exception):
    """A failure while working; the command line exits with 1."""


class InputError(DynaqError):
    """Wrong usage or bad input, found before or while reading it; the command line exits with 2."""


class JudgeError(DynaqError):
    """A judge could not answer. This is never turned into a reward."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'gamma'?` for the known name that is nearest to a wrong one; "" when none is near."""
    nearest = get_close_matches(name, list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
