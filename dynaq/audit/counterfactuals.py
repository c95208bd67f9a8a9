"""Counterfactual profiles and postings: the same text but for what a level of a protected attribute says."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from dynaq.audit.attributes import GENDERED_TITLES, Attribute
from dynaq.errors import InputError
from dynaq.personal.redaction import without_personal_data
from dynaq.records import Candidate, Job

T = TypeVar("T")

PREFIX = "counterfactual-"  # of the ids under which a judge sees a variant; no applicant's answer can be mixed up


@dataclass(frozen=True)
class Variant:
    """A profile under one level of an attribute.

    Args:
        attribute, level: their names.
        profile: place of the profile in the audit's sample.
        text: what is embedded and judged. Its id is a hash of its content, so that equal texts are one.
    """

    attribute: str
    level: str
    profile: int
    text: Candidate


def variants(
    profiles: Sequence[Candidate], attributes: Sequence[Attribute], *, redact: bool, seed: int = 0
) -> list[Variant]:
    """Every profile under every level.

    Personal data is taken out of the profiles first, so that a level's text is the only such data in a variant.

    Args:
        profiles: the sample.
        attributes: what to vary.
        redact: also take personal data out of the variants, as a store that does not keep it does.
        seed: which of a level's texts the first profile gets; the others follow in rotation.
    """
    found = []
    bases = base_texts(profiles)
    for attribute in attributes:
        for level, texts in attribute.levels.items():
            for i, base in enumerate(bases):
                first = (seed + i) % len(texts)  # the same place in every level, so that dates and wordings pair up
                carrier = _carrier([*texts[first:], *texts[:first]], base)
                text = base.model_copy(update={"bio": f"{carrier}\n{base.bio}".strip()})
                if redact:
                    text = without_personal_data(text)[0]
                found.append(Variant(attribute.name, level, i, _by_content(text)))
    return found


def _carrier(texts: Sequence[str], base: Candidate) -> str:
    """The first of the texts none of whose capitalised words stands in the profile, else the first.

    A name that is also a word of the profile would be two changes.
    """
    words = set(re.findall(r"\w+", base.model_dump_json()))
    return next((text for text in texts if not words & _name_words(text)), texts[0])


def _name_words(text: str) -> set[str]:
    label, _, value = text.partition("Name:")
    return set(re.findall(r"\w+", value)) if not label else set()


def _by_content(text: Candidate) -> Candidate:
    content = json.dumps(text.model_dump(mode="json", exclude={"id"}), sort_keys=True)
    return text.model_copy(update={"id": PREFIX + hashlib.sha256(content.encode()).hexdigest()[:16]})


def base_texts(profiles: Sequence[Candidate]) -> list[Candidate]:
    """The profiles without personal data and without a level's text, their ids hashes of their content."""
    return [_by_content(without_personal_data(profile)[0]) for profile in profiles]


def gendered_postings() -> dict[str, list[Job]]:
    """Level of GENDERED_TITLES -> postings that consist of a title, the same in each level but for its gender."""
    return {
        level: [Job(id=f"{PREFIX}{level}-{i:02d}", title=title) for i, title in enumerate(titles)]
        for level, titles in GENDERED_TITLES.levels.items()
    }


def sampled(profiles: Sequence[T], size: int, seed: int = 0) -> list[T]:
    """At most `size` profiles, or their ids, seeded, in their order. Raises InputError below two: no interval."""
    if min(len(profiles), size) < 2:
        raise InputError(f"{min(len(profiles), size)} profile to audit; two are the least, and sixteen a start")
    chosen = np.random.default_rng(seed).permutation(len(profiles))[:size]
    return [profiles[i] for i in sorted(chosen)]
