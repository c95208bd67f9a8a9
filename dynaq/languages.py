"""Which language a record is written in, offline, and which an encoder reads.

py3langid (BSD, 5 MB, numpy only) decides; lingua and heliport, which do better on single words, are 90 MB each. A
record's texts together are long enough for it; where it is not sure, the record counts as "und" (undetermined).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from dynaq.encoder import DEFAULT_NAME, MULTILINGUAL_NAME

UNDETERMINED = "und"
READ_CHARS = 400  # of a record: enough to be sure, and a tenth of the time that embedding it takes
MIN_LETTERS = 24  # a title of two words is in five languages at once
SURE = 0.9  # probability below which nothing is claimed
LAST_LATIN = 0x24F  # code point; letters beyond it are in another script, which tells without statistics

# What jobs are written in; py3langid's others are mistaken for them in lists of product names.
LANGUAGES = (
    "af", "ar", "az", "be", "bg", "bn", "bs", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "eu", "fa",
    "fi", "fil", "fr", "ga", "gl", "gu", "he", "hi", "hr", "hu", "hy", "id", "is", "it", "ja", "ka", "kk", "km",
    "kn", "ko", "ku", "ky", "lo", "lt", "lv", "mk", "ml", "mn", "mr", "ms", "my", "nb", "ne", "nl", "nn", "no",
    "pa", "pl", "ps", "pt", "ro", "ru", "si", "sk", "sl", "sq", "sr", "sv", "sw", "ta", "te", "th", "tl", "tr",
    "uk", "ur", "uz", "vi", "zh",
)  # fmt: skip
NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "et": "Estonian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi",
    "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean",
    "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish",
    "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese", UNDETERMINED: "undetermined",
}  # fmt: skip
# Encoder -> the languages it reads. XLM-RoBERTa's hundred (Conneau et al. 2020, table 6) hold all of LANGUAGES.
READS = {DEFAULT_NAME: frozenset({"en"}), MULTILINGUAL_NAME: frozenset(LANGUAGES)}


def language_of(text: str) -> str:
    """ISO 639-1 code of a text's language, "und" where it is too short or not sure."""
    text = text[:READ_CHARS]
    letters = [letter for letter in text if letter.isalpha()]
    latin = 2 * sum(ord(letter) <= LAST_LATIN for letter in letters) > len(letters)
    if not letters or (latin and len(letters) < MIN_LETTERS):
        return UNDETERMINED
    # Names in capitals (SQL, SAP R/3) tell nothing, and a text all in capitals is read as it would be in small ones.
    code, probability = _identifier().classify(unicodedata.normalize("NFC", text).lower())
    return str(code) if probability >= SURE or not latin else UNDETERMINED


@cache
def _identifier() -> Any:
    # Loaded when there is something to read: it takes a second.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(set(LANGUAGES) & set(identifier.labels))
    return identifier


def record_language(texts: Mapping[str, str]) -> str:
    """The language of a record by its texts, the longest first: skills are often English where the rest is not."""
    return language_of(". ".join(sorted(filter(None, texts.values()), key=len, reverse=True)))


def unread(counts: Mapping[str, int], encoder: str) -> dict[str, int]:
    """Language -> number of records that the encoder does not read; empty for an encoder that is not known here."""
    reads = READS.get(encoder)
    if reads is None:
        return {}
    return {code: n for code, n in counts.items() if code not in reads and code != UNDETERMINED and n}


def spelled(counts: Mapping[str, int]) -> str:
    """`840 English, 160 Russian`, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{n} {NAMES.get(code, code)}" for code, n in ordered if n)


def reading(encoder: str) -> str:
    """Which languages an encoder reads, for a person."""
    reads = READS.get(encoder)
    if reads is None:
        return f"what {encoder} was trained on"
    return "English" if reads == {"en"} else f"{len(reads)} languages"


def total(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts added up."""
    added: dict[str, int] = {}
    for part in parts:
        for code, n in part.items():
            added[code] = added.get(code, 0) + n
    return added
