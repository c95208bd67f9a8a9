"""Turns a ranking into the list that is shown, and explains each of its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dynaq.feedback.answers import HIDES
from dynaq.feedback.events import Event
from dynaq.feedback.exposure_policy import POOL, explore
from dynaq.records import Candidate
from dynaq.stores import FloatArray
from recommend_service.applicant_ranking import Ranking
from recommend_service.catalogue import ApplicantVectors, Catalogue, Rows, shared_skills
from recommend_service.reasons import CLOSE, Closeness, reasons
from recommend_service.schemas import Explanation

SUMMARY = 300  # characters of a description in a list
ELLIPSIS = " …"
LabelProbabilities = Mapping[str, dict[str, float]]  # job -> label -> probability


@dataclass(frozen=True)
class Shown:
    """A drawn list.

    Args:
        ranking: its jobs, in the order shown.
        wish: cosine of each job with the preference, None without one.
        propensities: probability with which the policy shows each job at its rank.
        exploring: whether each job would not be on the list without exploring.
    """

    ranking: Ranking
    wish: FloatArray | None
    propensities: tuple[float, ...]
    exploring: tuple[bool, ...]


@dataclass(frozen=True)
class Wish:
    """A preference: its unit vector `[block_dim]`, its weight in the order, and how many of the best it re-ranks."""

    vector: FloatArray
    weight: float
    shortlist: int


def choose(
    ranking: Ranking,
    catalogue: Catalogue,
    standing: Mapping[str, Event],
    wish: Wish | None,
    k: int,
    rng: np.random.Generator,
    sharpness: float,
) -> Shown:
    """Remove hidden jobs, re-rank the shortlist by the wish, and draw k jobs around the resulting order.

    standing: job -> the applicant's standing event for it (`dynaq.feedback.answers`).
    """
    hidden = [catalogue.rows[job] for job, event in standing.items() if event in HIDES and job in catalogue.rows]
    order: Rows = np.arange(len(ranking.rows))
    if hidden:
        order = order[~np.isin(ranking.rows, hidden)]
    similar: FloatArray | None = None
    if wish is not None:
        order = order[: wish.shortlist]
        similar = np.zeros(len(ranking.rows), np.float32)
        similar[order] = catalogue.text_similarities(wish.vector, ranking.rows[order])
        order = order[np.argsort(-blend(ranking.scores[order], similar[order], wish.weight), kind="stable")]
    places = [str(place) for place in order[:POOL]]
    drawn, propensities = explore(places, k, rng, sharpness)
    chosen: Rows = np.fromiter(map(int, drawn), np.int64, len(drawn))
    exploring = tuple(place not in places[:k] for place in drawn)
    return Shown(ranking.only(chosen), None if similar is None else similar[chosen], propensities, exploring)


def summary(description: str) -> str:
    """The first words of a description, at most SUMMARY characters with the ellipsis of what is left out."""
    # Not textwrap.shorten, which takes almost 20 times as long, for ten jobs of every list.
    text = " ".join(description[: 2 * SUMMARY].split())
    if len(text) <= SUMMARY:
        return text
    longest = SUMMARY - len(ELLIPSIS)
    end = text.rfind(" ", 0, longest + 1)
    return text[: end if end > 0 else longest] + ELLIPSIS


def blend(scores: FloatArray, similarities: FloatArray, weight: float) -> FloatArray:
    """(1 - weight)·score + weight·similarity, each standardised over the shortlist."""
    if not len(scores):
        return scores
    return (1.0 - weight) * _standardised(scores) + weight * _standardised(similarities)


def _standardised(values: FloatArray) -> FloatArray:
    standardised: FloatArray = (values - values.mean()) / max(float(values.std()), 1e-6)
    return standardised


def explain(
    shown: Shown,
    catalogue: Catalogue,
    applicant: ApplicantVectors,
    profile: Candidate,
    judged: LabelProbabilities,
    by_agent: bool,
    wish: Wish | None,
) -> list[Explanation]:
    """One explanation per shown job. judged: the newest judgements."""
    ranking = shown.ranking
    cosines = catalogue.similarities(applicant, ranking.rows)
    close = Closeness(catalogue, applicant, ranking.rows)
    fits = np.zeros(len(ranking.rows), bool)
    if wish is not None and shown.wish is not None:
        fits = shown.wish >= np.quantile(catalogue.text_similarities(wish.vector, catalogue.sample), 1.0 - CLOSE)
    explanations = []
    for place, row in enumerate(ranking.rows.tolist()):
        job = catalogue.job(row)
        shared = shared_skills(profile, job)
        explanations.append(
            Explanation(
                cosine=float(cosines[place]),
                q=float(ranking.scores[place]) if by_agent and np.isfinite(ranking.scores[place]) else None,
                q_is_estimated=bool(ranking.estimated[place]),
                judge=judged.get(job.id),
                preference=None if shown.wish is None else float(shown.wish[place]),
                shared_skills=shared,
                reasons=reasons(
                    profile,
                    shared,
                    skills=bool(close.skills[place]),
                    past=bool(close.past[place]),
                    wished=bool(fits[place]),
                    by_agent=by_agent,
                ),
            )
        )
    return explanations
