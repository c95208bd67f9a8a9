"""The form in which names of columns and fields are compared."""

from __future__ import annotations

import re
import unicodedata


def normalise(name: str) -> str:
    """A column name in the form that is compared: NFKC, case folded, without spaces and punctuation."""
    text = unicodedata.normalize("NFKC", name).casefold().replace("ё", "е")
    return re.sub(r"[\s_\-–—./:\\'\"`()*#]+", "", text)
