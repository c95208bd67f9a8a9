"""Counterfactual profiles: one thing changes, and with redaction in front nothing does."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from dynaq.audit.attributes import ATTRIBUTES, CONTRASTS, GENDERED_TITLES, contrasts_of, own_names
from dynaq.audit.counterfactuals import PREFIX, gendered_postings, sampled, variants
from dynaq.errors import InputError
from dynaq.markets import esco_market
from dynaq.records import Candidate, Experience

PROFILES = [
    Candidate(id="a", bio="I bake bread with care.", hard_skills=("ovens",), experience=(Experience(title="Baker"),)),
    Candidate(id="b", bio="Name: Jo Miller\nI sell cars and drive them.", hard_skills=("cars",)),
    Candidate(id="c", bio="Die Buchhaltung liegt mir.", soft_skills=("Sorgfalt",)),
]


def test_redaction_makes_all_levels_of_an_attribute_the_same_text() -> None:
    texts: dict[tuple[str, int], set[str]] = defaultdict(set)
    for variant in variants([*PROFILES, *esco_market(applicants=6).applicants], ATTRIBUTES, redact=True):
        texts[variant.attribute, variant.profile].add(variant.text.id)
    assert {key: len(ids) for key, ids in texts.items() if len(ids) > 1} == {}


def test_without_redaction_only_the_first_lines_differ() -> None:
    by_profile: dict[int, set[str]] = defaultdict(set)
    for variant in variants(PROFILES, ATTRIBUTES, redact=False):
        levels = next(one.levels for one in ATTRIBUTES if one.name == variant.attribute)
        carrier = next(text for text in levels[variant.level] if variant.text.bio.startswith(f"{text}\n"))
        by_profile[variant.profile].add(variant.text.bio.removeprefix(f"{carrier}\n"))
        assert variant.text.model_copy(update={"id": "", "bio": ""}) == PROFILES[variant.profile].model_copy(
            update={"id": "", "bio": ""}
        )
    assert by_profile == {0: {"I bake bread with care."}, 1: {"I sell cars and drive them."}, 2: {PROFILES[2].bio}}


def test_ids_are_of_content_and_of_no_applicant() -> None:
    first = variants(PROFILES, ATTRIBUTES, redact=False)
    renamed = [profile.model_copy(update={"id": f"other-{profile.id}"}) for profile in PROFILES]
    assert [one.text.id for one in variants(renamed, ATTRIBUTES, redact=False)] == [one.text.id for one in first]
    assert all(one.text.id.startswith(PREFIX) for one in first)
    assert len({one.text.id for one in first}) == len(first)


def test_a_name_that_is_a_word_of_the_profile_is_not_used() -> None:
    profile = Candidate(id="a", bio="Worked with Emily and Anne at Ryan's in Walsh.")
    names = [one.text.bio.splitlines()[0] for one in variants([profile] * 8, ATTRIBUTES[:1], redact=False)]
    assert not [name for name in names if {"Emily", "Anne", "Ryan", "Walsh"} & set(name.split())]


def test_every_contrast_compares_levels_that_exist() -> None:
    levels = {attribute.name: attribute.levels for attribute in ATTRIBUTES}
    for contrast in CONTRASTS:
        assert {*contrast.other, *contrast.reference} <= set(levels[contrast.attribute])
    assert contrasts_of(ATTRIBUTES) == CONTRASTS
    assert len({contrast.name for contrast in CONTRASTS}) == len(CONTRASTS)
    assert all(attribute.source for attribute in (*ATTRIBUTES, GENDERED_TITLES))


def test_postings_differ_by_level_and_pair_up() -> None:
    postings = gendered_postings()
    assert {len(jobs) for jobs in postings.values()} == {6}
    assert len({job.title for jobs in postings.values() for job in jobs}) == 18


def test_names_of_a_file_are_compared_with_its_first_group(tmp_path: Path) -> None:
    file = tmp_path / "names.csv"
    file.write_text("group,name\nnorth,Ann Lee\nsouth,Bo Cruz\nsouth,Cy Diaz\neast,Di Eng\n")
    attribute, contrasts = own_names(str(file))
    assert attribute.levels["south"] == ("Name: Bo Cruz", "Name: Cy Diaz")
    assert [(one.other, one.reference) for one in contrasts] == [(("south",), ("north",)), (("east",), ("north",))]
    for text, said in (("group,name\nnorth,Ann Lee\n", "1 group"), ("a,b\n1,2\n", "columns group and name")):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            own_names(str(file))
    with pytest.raises(InputError, match="cannot be read"):
        own_names(str(tmp_path / "none.csv"))


def test_a_sample_is_seeded_and_needs_two_profiles() -> None:
    market = esco_market(applicants=9).applicants
    assert sampled(market, 4) == sampled(market, 4)
    assert len(sampled(market, 4)) == 4
    assert sampled(market, 99) == market
    with pytest.raises(InputError, match="two are the least"):
        sampled(market, 1)
