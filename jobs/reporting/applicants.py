"""The report's section per applicant: the profile, and each strategy's list with the reasons for every job."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dynaq.errors import InputError
from dynaq.judging.judgement import LABELS
from dynaq.personal.redaction import judged_candidates
from dynaq.qrels import Qrels
from dynaq.records import Candidate
from dynaq.stores import Store
from dynaq.tensor_cache import TensorCache
from jobs.reporting.compared_lines import Line

JOBS_PER_LIST = 10
MAX_JOBS = 4000  # over all lists: about 2 MB of page, which a phone still opens
MAX_CHARACTERS = 600  # of a bio or a title
MAX_SKILLS = 24  # of each kind

Pair = tuple[str, str]


def applicant_entries(
    lines: Sequence[Line], store: Store, qrels: Qrels | None, judgements: pa.Table, layout: str
) -> tuple[list[dict[str, Any]], int]:
    """The applicants that fit on a page, and how many were left out.

    judgements: of the run's judge, columns of JUDGEMENT_SCHEMA; the newest of a pair counts.
    """
    applicants = list(lines[0].runs[0].ranked)
    chosen = applicants[: max(1, MAX_JOBS // (JOBS_PER_LIST * len(lines)))]
    lists = {(line.name, one): line.runs[0].ranked.get(one, [])[:JOBS_PER_LIST] for line in lines for one in chosen}
    shown = sorted({job_id for ranked in lists.values() for job_id, _ in ranked})
    titles = {job.id: job.title for job in store.records("job", shown)}
    profiles = {candidate.id: candidate for candidate in judged_candidates(store, chosen)}
    cosines = _cosines(store, layout, shown, chosen)
    answers = _answers(judgements, chosen)

    def entry(applicant_id: str, job_id: str, q: float) -> dict[str, Any]:
        grade = (qrels.grades(applicant_id) if qrels else {}).get(job_id)
        return {
            "title": titles.get(job_id, job_id)[:MAX_CHARACTERS],
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
    ], len(applicants) - len(chosen)


def _profile(applicant_id: str, text: Candidate | None) -> dict[str, Any]:
    if text is None:  # has left the store since
        return {"id": applicant_id, "past": "", "bio": "", "skills": {}}
    kinds = {"hard skills": text.hard_skills, "soft skills": text.soft_skills}
    return {
        "id": applicant_id,
        "past": ", ".join(item.title for item in text.experience)[:MAX_CHARACTERS],
        "bio": text.bio if len(text.bio) <= MAX_CHARACTERS else text.bio[:MAX_CHARACTERS] + "…",
        "skills": {
            kind: [skill[:MAX_CHARACTERS] for skill in skills[:MAX_SKILLS]]
            + ([f"and {len(skills) - MAX_SKILLS} more"] if len(skills) > MAX_SKILLS else [])
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
