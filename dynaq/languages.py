"""The language of a record, detected offline, and the languages that an encoder reads.

Detection is by py3langid (BSD, 5 MB, numpy only). lingua and heliport do better on single words but are 90 MB each, and
a record's texts together are long enough. A record of uncertain language counts as "und" (undetermined).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from dynaq.encoder import DEFAULT_NAME, MULTILINGUAL_NAME

UNDETERMINED = "und"
LANGUAGE_CHARS = 400  # of a record: enough to be sure, in a tenth of the time that embedding takes
MIN_LETTERS = 24  # a title of two words may be in any of five languages
LEAST_PROBABILITY = 0.9  # probability below which the language is undetermined
LAST_LATIN = 0x24F  # code point; letters beyond it are in another script, which needs no statistics

# Languages of job postings; in lists of product names py3langid would find its other languages by mistake.
LANGUAGES = (
    "af", "ar", "az", "be", "bg", "bn", "bs", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "eu", "fa",
    "fi", "fil", "fr", "ga", "gl", "gu", "he", "hi", "hr", "hu", "hy", "id", "is", "it", "ja", "ka", "kk", "km",
    "kn", "ko", "ku", "ky", "lo", "lt", "lv", "mk", "ml", "mn", "mr", "ms", "my", "nb", "ne", "nl", "nn", "no",
    "pa", "pl", "ps", "pt", "ro", "ru", "si", "sk", "sl", "sq", "sr", "sv", "sw", "ta", "te", "th", "tl", "tr",
    "uk", "ur", "uz", "vi", "zh",
)  # fmt: skip
LANGUAGE_NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "et": "Estonian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi",
    "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean",
    "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish",
    "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese", UNDETERMINED: "undetermined",
}  # fmt: skip
# Encoder -> the languages it reads. XLM-RoBERTa's hundred (Conneau et al. 2020, table 6) include all of LANGUAGES.
READS = {DEFAULT_NAME: frozenset({"en"}), MULTILINGUAL_NAME: frozenset(LANGUAGES)}


def language_of(text: str) -> str:
    """ISO 639-1 code of a text's language; "und" if the text is too short or the result uncertain."""
    text = text[:LANGUAGE_CHARS]
    letters = [letter for letter in text if letter.isalpha()]
    latin = 2 * sum(ord(letter) <= LAST_LATIN for letter in letters) > len(letters)
    if not letters or (latin and len(letters) < MIN_LETTERS):
        return UNDETERMINED
    # The model is confused by capitals: by names such as SAP R/3, and by texts all in capitals.
    code, probability = _identifier().classify(unicodedata.normalize("NFC", text).lower())
    return str(code) if probability >= LEAST_PROBABILITY or not latin else UNDETERMINED


@cache
def _identifier() -> Any:
    # Loaded on first use, since it takes a second.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(set(LANGUAGES) & set(identifier.labels))
    return identifier


def record_language(texts: Mapping[str, str]) -> str:
    """The language of a record, judged by its longest texts first: skills are often English where the rest is not."""
    return language_of(". ".join(sorted(filter(None, texts.values()), key=len, reverse=True)))


def unread(counts: Mapping[str, int], encoder: str) -> dict[str, int]:
    """Language -> number of records that the encoder does not read; empty for an unknown encoder."""
    reads = READS.get(encoder)
    if reads is None:
        return {}
    return {code: n for code, n in counts.items() if code not in reads and code != UNDETERMINED and n}


def spelled(counts: Mapping[str, int]) -> str:
    """`840 English, 160 Russian`, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{n} {LANGUAGE_NAMES.get(code, code)}" for code, n in ordered if n)


def reading(encoder: str) -> str:
    """The languages that an encoder reads, as a phrase for users."""
    reads = READS.get(encoder)
    if reads is None:
        return f"what {encoder} was trained on"
    return "English" if reads == {"en"} else f"{len(reads)} languages"


def total(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum of the counts."""
    added: dict[str, int] = {}
    for part in parts:
        for code, n in part.items():
            added[code] = added.get(code, 0) + n
    return added
