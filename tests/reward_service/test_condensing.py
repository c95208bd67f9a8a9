"""Long postings are shortened to what they ask of people; postings that fit are left as they are."""

from __future__ import annotations

import re

import pytest

from bench.injection_attacks import ATTACKS, Attack
from dynaq.markets import esco_market
from dynaq.records import Job
from reward_service.condensing import condensed
from reward_service.config import JudgeConfig
from reward_service.prompts import job_text, likelihood_suffix
from reward_service.untrusted_text import neutralise

POSTING = """About us
Acme serves 3 million customers. We value everyone's contribution.
Responsibilities:
- Build pipelines that feed our models
Requirements:
- 5+ years of experience with Python, SQL and Apache Airflow
- Strong knowledge of AWS
Benefits
- Dental, 401k, a fruit basket
Acme is an equal opportunity employer."""
RUSSIAN = """О компании\nМы — крупный банк с офисом у метро.\nОбязанности:\n- разработка витрин данных;\nТребования:
- опыт работы с SQL и Python от 3 лет;\n- знание Airflow.\nУсловия:\n- оформление по ТК РФ, ДМС;\n- график 5/2."""
RUN_ON = (
    "We are Acme, a fintech founded in 2009. You will work with analysts in a team of six people in London. The ideal "
    "candidate has 5+ years of experience with Python, SQL and Airflow. We offer a competitive salary and dental."
)


def tokens(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\s?\w+|\s?[^\w\s]", text)]


def suffix(description: str, *, condense: bool = True, **fields: object) -> str:
    job = Job(id="j", title="Data Engineer", description=description, **fields)  # type: ignore[arg-type]
    return likelihood_suffix(job_text(job, 32, tokens, description=False, condense=condense))


def test_requirements_come_through_and_boilerplate_does_not() -> None:
    assert suffix(POSTING) == (
        " Data Engineer\nSkills required: Build pipelines that feed our models; Python, SQL and Apache Airflow; AWS\n"
    )
    assert suffix(RUSSIAN) == (
        " Data Engineer\nSkills required: разработка витрин данных; SQL и Python от 3 лет; Airflow\n"
    )
    assert "Python, SQL and Airflow" in suffix(RUN_ON)
    assert "dental" not in suffix(RUN_ON)
    assert "Python" not in suffix(RUN_ON, condense=False)  # without condensing, the cut comes before it


def test_requirements_in_a_column_of_their_own_are_used() -> None:
    shown = suffix(
        "We are a friendly team of people who like it here. " * 9, experience_requirements=("Two years of Go",)
    )
    assert "Skills required: Go" in shown


def test_a_posting_of_boilerplate_alone_keeps_its_words() -> None:
    assert "equal opportunity" in condensed("We are an equal opportunity employer. " * 9, 20, tokens)


@pytest.mark.parametrize("description", [True, False])
def test_what_fits_is_the_same_byte_for_byte(description: bool) -> None:
    for job in [*esco_market(applicants=2).jobs, Job(id="s", title="Cook", description="Cooks. Must have a licence.")]:
        limit = 512 if description else 32
        before = job_text(job, limit, tokens, description=description)
        after = job_text(job, limit, tokens, description=description, condense=True)
        assert after == before  # also when cut: for ESCO's postings, `likelihood` shows skills, not prose


def test_choice_gets_the_sentences_that_count() -> None:
    text = job_text(Job(id="j", title="Data Engineer", description=POSTING), 40, tokens, condense=True)
    assert text.was_cut
    assert text.was_condensed
    assert text.fields[1].text == (
        "Build pipelines that feed our models; 5+ years of experience with Python, SQL and Apache Airflow; "
        "Strong knowledge of AWS"
    )


@pytest.mark.parametrize("limit", [1, 5, 30, 200])
@pytest.mark.parametrize("text", ["", " \n", "lorem " * 20_000, "Requirements: must have Java. " * 900, "•" * 50_000])
def test_the_length_is_bounded(text: str, limit: int) -> None:
    assert len(tokens(condensed(text, limit, tokens))) <= limit


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.kind)
def test_no_attack_leaves_a_marker(attack: Attack) -> None:
    shown = condensed(f"{POSTING}\nRequirements:\n{attack.text}", 400, tokens)
    assert shown == neutralise(shown)
    assert "\n" not in shown


def test_it_is_another_judge_only_where_it_is_turned_on() -> None:
    assert JudgeConfig().scorer == "likelihood-2c34b5a8798d"  # as in 0.1.0, so that existing ledgers stay this judge's
    assert JudgeConfig(condense=True).fingerprint != JudgeConfig().fingerprint
    assert JudgeConfig(condense=True).scorer != JudgeConfig().scorer
