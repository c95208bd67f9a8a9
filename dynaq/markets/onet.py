"""The O*NET market: one posting and at most one applicant per occupation; the project's standard benchmark.

Relevance is O*NET's own: 3 for the applicant's occupation, 2 for Primary-Short related ones, 1 for Primary-Long ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dynaq.errors import InputError
from dynaq.markets.generator import Market, differing, disjoint, generator
from dynaq.markets.onet_tables import OnetTables, read_onet
from dynaq.qrels import Qrels
from dynaq.records import Candidate, Experience, Job

ATTRIBUTION = (
    "This includes information from the O*NET Database by the U.S. Department of Labor, Employment and Training "
    "Administration (USDOL/ETA), used under the CC BY 4.0 license. O*NET® is a trademark of USDOL/ETA. The information "
    "has been modified: postings and applicants are seeded excerpts. USDOL/ETA has not approved, endorsed, or tested "
    "these modifications."
)
GRADES = {"Primary-Short": 2.0, "Primary-Long": 1.0}
MIN_TASKS, MIN_TECHNOLOGIES, MIN_RELATED = 6, 4, 3
TOP_SKILLS = 12  # O*NET rates every skill for every occupation; the most important ones characterise it


@dataclass(frozen=True)
class Occupation:
    """One O*NET-SOC occupation with the items from which postings and applicants are made."""

    code: str
    title: str
    description: str
    tasks: tuple[str, ...]
    technologies: tuple[str, ...]
    skills: tuple[str, ...]
    titles: tuple[str, ...]
    related: dict[str, float]


def onet_market(folder: str | Path, *, applicants: int = 32, seed: int = 0) -> Market:
    """Make the market from a folder of O*NET tables.

    Args:
        folder: Parquet tables, or the tab-separated text files as O*NET publishes them.
        applicants: number of applicants, each from another occupation in a seeded order; a cohort of 32 is the first 32
            of a cohort of 512.
        seed: seed of the subsets and the order.

    Raises InputError when tables are missing or there are fewer occupations than applicants.
    """
    occupations = list(_occupations(read_onet(Path(folder))))
    if not 1 <= applicants <= len(occupations):
        raise InputError(f"O*NET market: {applicants} applicants; choose 1 to {len(occupations)}, one per occupation")
    order = generator("onet-cohort", seed).permutation(len(occupations))[:applicants]
    cohort = [occupations[i] for i in order]
    codes = {occupation.code for occupation in occupations}
    grades = {
        _applicant_id(o): {_job_id(o.code): 3.0} | {_job_id(c): g for c, g in o.related.items() if c in codes}
        for o in cohort
    }
    return Market(
        jobs=[_posting(o, seed) for o in occupations],
        applicants=[_applicant(o, seed) for o in cohort],
        qrels=Qrels(grades),
        attribution=ATTRIBUTION,
    )


def _job_id(code: str) -> str:
    return f"job-{code}"


def _applicant_id(occupation: Occupation) -> str:
    return f"applicant-{occupation.code}"


@dataclass(frozen=True)
class Excerpt:
    """The items of an occupation that one posting or profile mentions."""

    tasks: list[str]
    technologies: list[str]
    skills: list[str]
    titles: list[str]


def _excerpts(o: Occupation, seed: int) -> tuple[Excerpt, Excerpt]:
    """The posting's and the applicant's excerpts; they differ so that shared text does not give the match away."""
    rng = generator("onet", seed, o.code)
    tasks = disjoint(o.tasks, 6, rng)
    technologies = differing(o.technologies, 8, rng)
    skills = differing(o.skills, 8, rng)
    titles = disjoint([t for t in o.titles if t.lower() != o.title.lower()], 2, rng)
    posting, applicant = zip(tasks, technologies, skills, titles, strict=True)
    return Excerpt(*posting), Excerpt(*applicant)


def _posting(o: Occupation, seed: int) -> Job:
    excerpt, _ = _excerpts(o, seed)
    return Job(
        id=_job_id(o.code),
        title=o.title,
        description=" ".join([o.description, *excerpt.tasks]),
        technical_skills=tuple(excerpt.technologies),
        soft_skills=tuple(excerpt.skills),
        experience_requirements=tuple(f"Experience as {title}" for title in excerpt.titles),
        metadata={"onet_soc_code": o.code},
    )


def _applicant(o: Occupation, seed: int) -> Candidate:
    _, excerpt = _excerpts(o, seed)
    return Candidate(
        id=_applicant_id(o),
        bio=" ".join(excerpt.tasks),
        hard_skills=tuple(excerpt.technologies),
        soft_skills=tuple(excerpt.skills),
        experience=tuple(Experience(title=title) for title in excerpt.titles),
    )


def _occupations(tables: OnetTables) -> Iterator[Occupation]:
    """The occupations with enough items for a posting and an applicant that differ."""
    tasks, technologies = _grouped(tables.tasks), _grouped(tables.technologies)
    titles = _grouped(tables.alternate_titles)
    skills: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for code, name, importance in tables.skills:
        skills[code].append((-importance, name))
    related: dict[str, dict[str, float]] = defaultdict(dict)
    count: dict[str, int] = defaultdict(int)
    for code, other, tier in tables.related:
        count[code] += 1
        if tier in GRADES:
            related[code][other] = GRADES[tier]
    for code, title, description in tables.occupations:
        enough = len(tasks[code]) >= MIN_TASKS and len(technologies[code]) >= MIN_TECHNOLOGIES
        if not (enough and skills[code] and count[code] >= MIN_RELATED):
            continue
        yield Occupation(
            code=code,
            title=title,
            description=description,
            tasks=tuple(tasks[code]),
            technologies=tuple(technologies[code]),
            skills=tuple(name for _, name in sorted(skills[code])[:TOP_SKILLS]),
            titles=tuple(titles[code]),
            related=related[code],
        )


def _grouped(rows: list[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, dict[str, None]] = defaultdict(dict)
    for code, text in rows:
        groups[code].setdefault(text)
    return defaultdict(list, {code: list(texts) for code, texts in groups.items()})
