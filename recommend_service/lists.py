"""One list: drawn from a ranking by the applicant's answers, wish and operators' decisions, and described to them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from dynaq.feedback.answers import HIDES
from dynaq.feedback.events import WARM_START, Event
from dynaq.records import Job
from recommend_service.applicant_ranking import Ranking
from recommend_service.catalogue import Catalogue
from recommend_service.facets import facets_of
from recommend_service.oversight import parts, set_aside, with_pinned
from recommend_service.schemas import Explanation, Recommendation, Recommendations
from recommend_service.slates import Shown, Wish, choose, summary

NO_AGENT = "No agent has been trained for this applicant yet: ranked by similarity of profile and jobs."
BY_AGENT = "Ranked by the applicant's own agent."


def draw(
    applicant_id: str,
    ranking: Ranking,
    catalogue: Catalogue,
    standing: Mapping[str, Event],
    decided: Mapping[str, str],
    k: int,
    sharpness: float,
    *,
    wish: Wish | None,
    text: str | None,
    filtered: bool,
) -> Shown:
    """A list of k jobs around the ranking; the same one all day while nothing is said.

    Args:
        applicant_id: the applicant.
        ranking: of the catalogue.
        catalogue: with the rows of the ranking.
        standing: job -> the applicant's standing event.
        decided: job -> an operator's decision.
        k: length of the list.
        sharpness: of the exposure policy.
        wish: by which the list is ordered.
        text: of the wish.
        filtered: whether the ranking is of a part of the catalogue, to which no job is pinned.
    """
    rng = _generator(applicant_id, ranking.policy, text or "", datetime.now(UTC).date().isoformat())
    shown = choose(ranking, catalogue, set_aside(standing, decided), wish, k, rng, sharpness)
    pinned = [one for one, action in decided.items() if action == "pin" and standing.get(one) not in HIDES]
    return with_pinned(shown, ranking, catalogue, [] if filtered else pinned, k)


def described(
    applicant_id: str,
    ranking: Ranking,
    shown: Shown,
    jobs: Sequence[Job],
    explanations: Sequence[Explanation | None],
    standing: Mapping[str, Event],
    decided: Mapping[str, str],
    *,
    judge: str | None,
    text: str | None,
    explored: bool,
    exposure: str | None,
) -> Recommendations:
    """The answer to a request for a list.

    Args:
        applicant_id: the applicant.
        ranking: from which the list was drawn.
        shown: the list.
        jobs: its jobs.
        explanations: of each job, None where none was asked for.
        standing: job -> the applicant's standing event.
        decided: job -> an operator's decision.
        judge: of the run's answers, if there was one.
        text: of the applicant's wish.
        explored: whether lists are drawn at random.
        exposure: key of the stored exposure.
    """
    agent = ranking.policy != WARM_START
    source: Literal["agent", "warm-start"] = "agent" if agent else "warm-start"
    pinned = {one for one, action in decided.items() if action == "pin"}
    return Recommendations(
        applicant_id=applicant_id,
        source=source,
        note=BY_AGENT if agent else NO_AGENT,
        run_id=ranking.policy if agent else None,
        preference=text,
        exposure=exposure,
        parts=parts(
            source,
            judge,
            standing,
            decided,
            wish=text is not None,
            explored=explored,
            remembered=ranking.worth is not None,
        ),
        recommendations=[
            Recommendation(
                rank=rank,
                placed_by="person" if job.id in pinned else "model",
                exploring=exploring,
                job_id=job.id,
                title=job.title,
                summary=summary(job.description),
                facets={facet: ", ".join(texts) for facet, texts in facets_of(job.metadata).items()},
                marked="save" if standing.get(job.id) == "save" else "click" if job.id in standing else None,
                explanation=explanation,
            )
            for rank, (job, explanation, exploring) in enumerate(
                zip(jobs, explanations, shown.exploring, strict=True), start=1
            )
        ],
    )


def _generator(*parts: str) -> np.random.Generator:
    """A generator seeded by the parts: reloading a page gives the same list, another day or run gives another one."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
