"""The report's drill-down: each applicant's profile, and each strategy's list for them with the reasons."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dynaq.errors import InputError
from dynaq.judging.judgement import LABELS
from dynaq.qrels import Qrels
from dynaq.records import Candidate
from dynaq.stores import Store
from dynaq.tensor_cache import TensorCache
from jobs.reporting.lines import Line

SHOWN = 10  # jobs per list
ENTRIES = 4000  # of all lists together: about 2 MB of page, which a phone still opens
TEXT = 600  # characters of a bio, and of a title that goes too far
SKILLS = 24  # of each kind

Pair = tuple[str, str]


def people(
    lines: Sequence[Line], store: Store, qrels: Qrels | None, judgements: pa.Table, layout: str
) -> tuple[list[dict[str, Any]], int]:
    """The applicants that fit on a page, and how many were left out.

    judgements: of the run's judge, columns of JUDGEMENT_SCHEMA; the newest of a pair counts.
    """
    everyone = list(lines[0].runs[0].ranked)
    chosen = everyone[: max(1, ENTRIES // (SHOWN * len(lines)))]
    lists = {(line.name, one): line.runs[0].ranked.get(one, [])[:SHOWN] for line in lines for one in chosen}
    shown = sorted({job_id for ranked in lists.values() for job_id, _ in ranked})
    titles = {job.id: job.title for job in store.records("job", shown)}
    profiles = {candidate.id: candidate for candidate in store.records("candidate", chosen)}
    cosines = _cosines(store, layout, shown, chosen)
    answers = _answers(judgements, chosen)

    def entry(applicant_id: str, job_id: str, q: float) -> dict[str, Any]:
        grade = (qrels.grades(applicant_id) if qrels else {}).get(job_id)
        return {
            "title": titles.get(job_id, job_id)[:TEXT],
            "job_id": job_id,
            "q": q,
            "cosine": cosines.get((applicant_id, job_id)),
            "grade": f"{grade:g}" if grade else None,
            **answers.get((applicant_id, job_id), {}),
        }

    return [
        _profile(one, profiles.get(one))
        | {
            "lists": [
                {
                    "name": line.name,
                    "colour": line.colour,
                    "jobs": [entry(one, job_id, q) for job_id, q in lists[line.name, one]],
                }
                for line in lines
            ]
        }
        for one in chosen
    ], len(everyone) - len(chosen)


def _profile(applicant_id: str, text: Candidate | None) -> dict[str, Any]:
    if text is None:  # left the store since
        return {"id": applicant_id, "past": "", "bio": "", "skills": {}}
    kinds = {"hard skills": text.hard_skills, "soft skills": text.soft_skills}
    return {
        "id": applicant_id,
        "past": ", ".join(item.title for item in text.experience)[:TEXT],
        "bio": text.bio if len(text.bio) <= TEXT else text.bio[:TEXT] + "…",
        "skills": {
            kind: [skill[:TEXT] for skill in skills[:SKILLS]]
            + ([f"and {len(skills) - SKILLS} more"] if len(skills) > SKILLS else [])
            for kind, skills in kinds.items()
            if skills
        },
    }


def _cosines(store: Store, layout: str, jobs: Sequence[str], applicants: Sequence[str]) -> dict[Pair, float]:
    """Similarity in [-1, 1] of the pairs whose vectors the store still has."""
    try:
        cache = TensorCache.copy_from_database(store, sorted(applicants), job_ids=jobs, layout=layout)
    except InputError as error:
        logging.getLogger(__name__).warning("the report shows no cosines: %s", error)
        return {}
    return {
        (one, job_id): float(value)
        for one in cache.applicant_ids
        for job_id, value in zip(cache.job_ids, cache.calculate_cosine_similarities(one), strict=True)
    }


def _answers(judgements: pa.Table, applicants: Sequence[str]) -> Mapping[Pair, dict[str, Any]]:
    """(applicant, job) -> label, reward and the four probabilities, of the applicants on the page."""
    own = judgements.filter(pc.is_in(judgements.column("applicant_id"), pa.array(list(applicants), pa.string())))
    return {
        (row["applicant_id"], row["job_id"]): {
            "label": row["label"],
            "reward": row["reward"],
            "p": [row[f"p_{label.lower()}"] for label in LABELS],
        }
        for row in own.to_pylist()
    }
