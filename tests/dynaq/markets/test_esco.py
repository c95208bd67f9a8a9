from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dynaq.errors import InputError
from dynaq.markets import esco_market


def test_every_occupation_has_several_postings_with_different_titles() -> None:
    market = esco_market(postings=3)
    by_occupation = Counter(job.metadata["esco_occupation"] for job in market.jobs)
    assert len(by_occupation) == 91
    assert set(by_occupation.values()) == {3}
    for first in range(0, len(market.jobs), 3):
        assert len({job.title for job in market.jobs[first : first + 3]}) == 3
    assert len({job.id for job in market.jobs}) == 273


def test_relevance_is_three_for_the_own_occupation_and_lower_for_neighbours() -> None:
    market = esco_market(applicants=91)
    occupation = {job.id: job.id.rsplit("-", 1)[0].removeprefix("job-") for job in market.jobs}
    for applicant in market.qrels.applicants:
        grades = market.qrels.grades(applicant)
        own = applicant.removeprefix("applicant-")
        assert {job for job, grade in grades.items() if grade == 3} == {j for j, o in occupation.items() if o == own}
        assert set(grades.values()) <= {1.0, 2.0, 3.0}
    every = Counter(g for a in market.qrels.applicants for g in market.qrels.grades(a).values())
    assert every[2] > 91
    assert every[1] > every[2]


def test_the_same_seed_makes_the_same_market_and_another_one_another() -> None:
    assert esco_market(seed=1).jobs == esco_market(seed=1).jobs
    assert esco_market(seed=1).applicants == esco_market(seed=1).applicants
    assert esco_market(seed=1).jobs != esco_market(seed=2).jobs


def test_a_larger_cohort_begins_with_the_smaller_one() -> None:
    assert esco_market(applicants=20).applicants[:8] == esco_market(applicants=8).applicants


def test_applicants_do_not_repeat_a_posting() -> None:
    market = esco_market(applicants=91)
    descriptions = {job.description for job in market.jobs}
    skills = {(job.technical_skills, job.soft_skills) for job in market.jobs}
    for applicant in market.applicants:
        assert applicant.bio not in descriptions
        assert (applicant.hard_skills, applicant.soft_skills) not in skills
        assert applicant.soft_skills
        assert applicant.experience


def test_esco_is_attributed() -> None:
    assert "ESCO" in esco_market().attribution


@pytest.mark.parametrize("applicants", [0, 92])
def test_a_cohort_that_cannot_be_made_is_an_input_error(applicants: int) -> None:
    with pytest.raises(InputError, match="1 to 91"):
        esco_market(applicants=applicants)


def test_a_missing_or_broken_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        esco_market(path=tmp_path / "esco.json.gz")
    (tmp_path / "esco.json.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="cannot be read"):
        esco_market(path=tmp_path / "esco.json.gz")
