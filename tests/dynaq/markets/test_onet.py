from __future__ import annotations

from pathlib import Path

import pytest

from dynaq.errors import InputError
from dynaq.markets import Market, onet_market
from tests.support.onet_files import CODES, TOO_THIN, write_parquet, write_text


@pytest.fixture
def market(tmp_path: Path) -> Market:
    return onet_market(write_parquet(tmp_path), applicants=7)


def test_the_published_text_files_make_the_market_that_parquet_makes(tmp_path: Path, market: Market) -> None:
    (tmp_path / "text").mkdir()
    other = onet_market(write_text(tmp_path / "text"), applicants=7)
    assert other.jobs == market.jobs
    assert other.applicants == market.applicants
    assert other.qrels.to_table().equals(market.qrels.to_table())


def test_an_occupation_with_too_little_to_tell_is_left_out(market: Market) -> None:
    assert [job.id for job in market.jobs] == [f"job-{code}" for code in CODES if code != TOO_THIN]


def test_relevance_is_that_of_related_occupations(market: Market) -> None:
    assert market.qrels.grades(f"applicant-{CODES[0]}") == {
        f"job-{CODES[0]}": 3.0,
        f"job-{CODES[1]}": 2.0,
        f"job-{CODES[2]}": 1.0,
    }
    # An occupation that was left out has no applicant and no relevant jobs.
    assert f"job-{TOO_THIN}" not in market.qrels.grades(f"applicant-{CODES[5]}")


def test_posting_and_applicant_tell_different_parts_of_an_occupation(market: Market) -> None:
    jobs = {job.id.removeprefix("job-"): job for job in market.jobs}
    for applicant in market.applicants:
        job = jobs[applicant.id.removeprefix("applicant-")]
        tasks = [f"{task}." for task in applicant.bio.removesuffix(".").split(". ")]
        assert len(tasks) == 6
        assert not any(task in job.description for task in tasks)
        assert set(applicant.hard_skills) != set(job.technical_skills)
        assert set(applicant.soft_skills) != set(job.soft_skills)
        assert not {p.title for p in applicant.experience} & {t.removeprefix("Experience as ") for t in
                                                              job.experience_requirements}  # fmt: skip
        assert job.title not in applicant.bio


def test_the_same_seed_makes_the_same_market_and_a_larger_cohort_begins_with_the_smaller(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path)
    small, large = onet_market(folder, applicants=3), onet_market(folder, applicants=7)
    assert large.applicants[:3] == small.applicants
    assert large.jobs == small.jobs
    assert onet_market(folder, applicants=3, seed=1).jobs != small.jobs


def test_onet_is_attributed_as_its_licence_asks(market: Market) -> None:
    assert "O*NET" in market.attribution
    assert "CC BY 4.0" in market.attribution
    assert "USDOL/ETA has not approved" in market.attribution


@pytest.mark.parametrize("applicants", [0, 8])
def test_a_cohort_that_cannot_be_made_is_an_input_error(tmp_path: Path, applicants: int) -> None:
    with pytest.raises(InputError, match="1 to 7"):
        onet_market(write_parquet(tmp_path), applicants=applicants)


def test_missing_and_broken_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        onet_market(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"occupations\.parquet or 'Occupation Data\.txt'"):
        onet_market(tmp_path)
    write_text(tmp_path)
    skills = tmp_path / "Skills.txt"
    skills.write_text(skills.read_text().replace("Data Value", "Value", 1))
    with pytest.raises(InputError, match=r"Skills\.txt has no column Data Value"):
        onet_market(tmp_path, applicants=3)
    skills.write_bytes(b"O*NET-SOC Code\xff")
    with pytest.raises(InputError, match=r"Skills\.txt is not UTF-8"):
        onet_market(tmp_path, applicants=3)
    (tmp_path / "skills.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"skills\.parquet cannot be read"):
        onet_market(tmp_path, applicants=3)
