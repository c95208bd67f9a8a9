"""Skills of documents that list none: phrases in their text that the catalogue's jobs ask for.

A phrase counts if it is one of the catalogue's skills, or close to one in the encoder's space. It is taken as the
document spells it; the catalogue's wording never enters a profile.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dynaq.encoder import DEFAULT_NAME, MULTILINGUAL_NAME, Embedder
from dynaq.ingest.parse_records import Parsed
from dynaq.records import Candidate
from dynaq.stores import Store

ENOUGH = 3  # a document that lists this many skills itself is not searched
MOST = 30
CATALOGUE_SKILLS = 5000
# Encoder -> least cosine of phrases that mean the same skill. Scales differ: "project management" and "managing
# projects" have 0.89 and 0.97, "Kubernetes" and "Berlin" 0.1 and 0.83. With other encoders only literal matches count.
SIMILARITY = {DEFAULT_NAME: 0.8, MULTILINGUAL_NAME: 0.96}
_PHRASE_WORDS = 4
_RUN = 6  # words in the longest skill that is searched for


def add_known_skills(parsed: list[Parsed], store: Store, encoder: Embedder) -> list[Parsed]:
    """The records; those from documents that list few skills are completed from their own texts."""
    wanting = [
        i
        for i, item in enumerate(parsed)
        if item.document and isinstance(item.record, Candidate) and len(item.record.hard_skills) < ENOUGH
    ]
    if not wanting:
        return parsed
    skills = _catalogue_skills(store)
    if not skills:
        return parsed
    similar_from = SIMILARITY.get(encoder.name)
    vectors = None if similar_from is None else encoder.encode(skills)
    completed = list(parsed)
    for i in wanting:
        record = parsed[i].record
        assert isinstance(record, Candidate)
        found = skills_in(record.bio, skills)
        if vectors is not None and similar_from is not None:
            found += _alike(_phrases(record.bio, found), vectors, encoder, similar_from)
        named = dict.fromkeys([*record.hard_skills, *found])
        distinct = list({skill.casefold(): skill for skill in reversed(named)}.values())[::-1]
        completed[i] = replace(parsed[i], record=record.model_copy(update={"hard_skills": tuple(distinct[:MOST])}))
    return completed


def _catalogue_skills(store: Store) -> list[str]:
    counts = Counter(skill.strip() for job in store.records("job") for skill in job.technical_skills)
    return [skill for skill, _ in counts.most_common(CATALOGUE_SKILLS) if 0 < len(skill) <= 60]


def skills_in(text: str, skills: Sequence[str]) -> list[str]:
    """Runs of words in a text that are one of the skills, as the text spells them, in order.

    Matching is case-sensitive for skills of one or two letters: `C` and `Go` are skills, `c` and `go` are not.
    """
    exact = {" ".join(_words(skill)) for skill in skills}
    folded = {skill.casefold() for skill in exact if len(skill) > 2}
    words = list(re.finditer(r"[\w+#.]*[\w+#]", text))
    found: dict[str, str] = {}
    i = 0
    while i < len(words):
        step = 1
        for size in range(min(_RUN, len(words) - i), 0, -1):
            run = text[words[i].start() : words[i + size - 1].end()]
            key = " ".join(word[0] for word in words[i : i + size])
            if "\n" not in run and (key in exact or key.casefold() in folded):
                found.setdefault(key.casefold(), run)
                step = size
                break
        i += step
    return list(found.values())


def _words(text: str) -> list[str]:
    return re.findall(r"[\w+#.]*[\w+#]", text)


def _phrases(text: str, found: Sequence[str]) -> list[str]:
    """Short parts between punctuation and conjunctions that may be skills."""
    known = {skill.casefold() for skill in found}
    parts = (part.strip(" -–—()") for part in re.split(r"[\n,;:.•|/]|\s(?:and|und|et|y|и)\s", text))
    phrases = (
        part for part in parts if 1 <= len(part.split()) <= _PHRASE_WORDS and re.fullmatch(r"[^\W\d][\w\s+#'’-]*", part)
    )
    return [part for part in dict.fromkeys(phrases) if part.casefold() not in known and len(part) > 2][:200]


def _alike(phrases: Sequence[str], vectors: np.ndarray, encoder: Embedder, similar_from: float) -> list[str]:
    if not phrases:
        return []
    similar = (encoder.encode(phrases) @ vectors.T).max(axis=1)
    return [phrase for phrase, cosine in zip(phrases, similar, strict=True) if cosine >= similar_from]
