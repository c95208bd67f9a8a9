"""What the pages show beside lists: profiles, what was said and shown, what changed, runs side by side.

Nothing here is recorded: no exposure, no event.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time
from typing import Any, Literal

import numpy as np

from dynaq.feedback.answers import HIDES, settle
from dynaq.feedback.events import OVERSEEN, REMEMBERED, WARM_START, Event
from dynaq.records import Candidate
from recommend_service.catalogue import Catalogue, searched
from recommend_service.facets import FACETS
from recommend_service.oversight import set_aside
from recommend_service.run_views import learning_curve
from recommend_service.schemas import ApplicantList, ApplicantShown, Position
from recommend_service.service import Recommender
from recommend_service.slates import choose
from recommend_service.view_schemas import (
    Answer,
    AnswerList,
    Comparison,
    ExposureList,
    ExposureShown,
    FacetValue,
    Filters,
    JobNamed,
    LearningCurve,
    Left,
    ListChanges,
    Placed,
    ProfileShown,
    RunList,
    RunsList,
)


class Views:
    """Reads for the pages of one service."""

    def __init__(self, service: Recommender) -> None:
        self._service, self._runs = service, service.run_views

    @property
    def _catalogue(self) -> Catalogue:
        return self._service.ranker.catalogue

    # Of everybody

    async def applicants(self, after: str, limit: int, search: str) -> ApplicantList:
        """The first `limit` applicants after `after`, ordered by id; those whose texts have all words of the search."""
        service, catalogue = self._service, self._catalogue
        words = search.casefold().split()
        ids = service.newcomers.after(after, catalogue)
        if words:
            ids = [one for one in ids if _has(words, searched(self._profile(one)))]
            ids += await service.compute(lambda: _matching(catalogue, after, words))
        else:
            ids += catalogue.applicant_ids_after(after, limit + 1)
        ids = sorted(ids)[: limit + 1]
        shown = [
            ApplicantShown(id=one, headline=_headline(known[1]), has_agent=service.ranker.has_agent(one))
            for one in ids[:limit]
            if one not in service.rights.erased and (known := service.newcomers.known(one, catalogue)) is not None
        ]
        return ApplicantList(applicants=shown, next=ids[limit - 1] if len(ids) > limit else None)

    def _profile(self, applicant_id: str) -> Candidate:
        known = self._service.newcomers.known(applicant_id, self._catalogue)
        assert known is not None
        return known[1]

    async def filters(self) -> Filters:
        """By what lists can be filtered."""
        catalogue = self._catalogue
        facets = await self._service.compute(lambda: catalogue.facets)
        values = {
            facet: [FacetValue(value=text, jobs=count) for text, count in facets.values(facet)] for facet in FACETS
        }
        return Filters.model_validate(values)

    async def runs(self) -> RunList:
        """The runs whose lists can be looked at."""
        serves = self._service.run_id
        return RunList(runs=await self._service.compute(lambda: self._runs.runs(serves)))

    # Of one applicant

    async def profile(self, applicant_id: str) -> ProfileShown:
        """What is known about an applicant. Raises Problem, like all below, for an unknown one."""
        service = self._service
        _, record = await service.applicant(applicant_id)
        return ProfileShown(
            id=record.id,
            bio=record.bio,
            hard_skills=list(record.hard_skills),
            soft_skills=list(record.soft_skills),
            experience=[Position(title=one.title, company=one.company) for one in record.experience],
            has_agent=service.ranker.has_agent(applicant_id),
            answers=len(await service.standing_now(applicant_id)),
            judged=len(await service.judged(applicant_id)),
        )

    async def answers(self, applicant_id: str) -> AnswerList:
        """What an applicant has said, newest first."""
        service = self._service
        await service.applicant(applicant_id)
        events = await service.read(lambda: service.store.feedback([applicant_id]))
        found = sorted(settle(events).items(), key=lambda one: one[1][1], reverse=True)
        return AnswerList(
            answers=[
                Answer(job_id=job_id, title=self._title(job_id), event=event, at=at)
                for (_, job_id), (event, at) in found
            ],
            events=events.num_rows,
        )

    async def exposures(self, applicant_id: str, limit: int) -> ExposureList:
        """The newest lists that an applicant was shown."""
        await self._service.applicant(applicant_id)
        rows = await self._shown(applicant_id)
        return ExposureList(
            exposures=[
                ExposureShown(
                    key=row["key"],
                    at=row["at"],
                    policy=row["policy"],
                    preference=row["preference"],
                    jobs=[JobNamed(job_id=one, title=self._title(one)) for one in row["job_ids"]],
                )
                for row in rows[:limit]
            ],
            total=len(rows),
        )

    async def changes(self, applicant_id: str) -> ListChanges:
        """How the list of today differs from the last plain one of an earlier day."""
        service = self._service
        await service.applicant(applicant_id)
        today = datetime.combine(datetime.now(UTC).date(), time(), UTC)
        earlier = [row for row in await self._shown(applicant_id) if row["at"] < today and row["preference"] is None]
        if not earlier:
            return ListChanges(since=None, new_run=False, entered=[], left=[])
        before = earlier[0]
        now = await service.recommend(applicant_id, len(before["job_ids"]), None, False, recorded=False)
        listed = {one.job_id: one.title for one in now.recommendations}
        standing = await service.standing_now(applicant_id)
        decided = service.rights.decisions.of_applicant(applicant_id)
        ranked_by = before["policy"]
        return ListChanges(
            since=before["at"],
            new_run=ranked_by not in (OVERSEEN, REMEMBERED, now.run_id or WARM_START),
            entered=[
                JobNamed(job_id=one, title=title) for one, title in listed.items() if one not in before["job_ids"]
            ],
            left=[
                Left(job_id=one, title=self._title(one), why=self._why_left(one, standing, decided))
                for one in before["job_ids"]
                if one not in listed
            ],
        )

    def _why_left(
        self, job_id: str, standing: Mapping[str, Event], decided: Mapping[str, str]
    ) -> Literal["answered", "withdrawn", "operator", "ranked-lower"]:
        if standing.get(job_id) in HIDES:
            return "answered"
        if decided.get(job_id) == "block":
            return "operator"
        return "ranked-lower" if job_id in self._catalogue.rows else "withdrawn"

    async def learning(self, applicant_id: str, run_id: str | None) -> LearningCurve:
        """How an applicant's agent learned. run_id: in which run; None means the one that serves."""
        service = self._service
        await service.applicant(applicant_id)
        serving = service.ranker.run
        same = run_id is None or (serving is not None and run_id == serving.run_id)
        return await service.compute(
            lambda: learning_curve(serving if same else self._runs.open(str(run_id)), applicant_id)
        )

    async def comparison(self, applicant_id: str, left: str, right: str, k: int) -> Comparison:
        """An applicant's lists by two runs, as the service would list them without exploring and without a memory."""
        service, serving = self._service, self._service.ranker
        catalogue = serving.catalogue
        applicant, _ = await service.applicant(applicant_id)
        standing = await service.standing_now(applicant_id)
        aside = set_aside(standing, service.rights.decisions.of_applicant(applicant_id))
        lists: list[tuple[str, bool, list[tuple[str, float]]]] = []
        for run_id in (left, right):
            ranker = await service.compute(lambda run_id=run_id: self._runs.ranker(run_id, catalogue, serving))  # type: ignore[misc]
            ranking = await service.ranked(ranker, applicant, k + len(aside))
            shown = choose(ranking, catalogue, aside, None, k, np.random.default_rng(0), math.inf).ranking
            jobs = [catalogue.job_ids[row] for row in shown.rows.tolist()]
            by_agent = ranker.has_agent(applicant_id)
            lists.append((run_id, by_agent, list(zip(jobs, map(float, shown.scores), strict=True))))
        ranks = [{job_id: rank for rank, (job_id, _) in enumerate(jobs, start=1)} for _, _, jobs in lists]
        one, other = (
            RunsList(
                run_id=run_id,
                has_agent=by_agent,
                jobs=[
                    Placed(
                        rank=rank,
                        job_id=job_id,
                        title=self._title(job_id),
                        score=score,
                        other_rank=ranks[1 - side].get(job_id),
                    )
                    for rank, (job_id, score) in enumerate(jobs, start=1)
                ],
            )
            for side, (run_id, by_agent, jobs) in enumerate(lists)
        )
        return Comparison(left=one, right=other, shared=len(set(ranks[0]) & set(ranks[1])))

    async def _shown(self, applicant_id: str) -> list[dict[str, Any]]:
        """Lists that an applicant was shown, newest first."""
        service = self._service
        table = await service.read(lambda: service.store.exposures([applicant_id]))
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows[::-1]

    def _title(self, job_id: str) -> str | None:
        row = self._catalogue.rows.get(job_id)
        return None if row is None else self._catalogue.job(row).title


def _matching(catalogue: Catalogue, after: str, words: Sequence[str]) -> list[str]:
    texts = zip(catalogue.applicant_ids, catalogue.applicant_texts, strict=True)
    return [one for one, text in texts if one > after and _has(words, text)]


def _has(words: Sequence[str], text: str) -> bool:
    return all(word in text for word in words)


def _headline(applicant: Candidate) -> str:
    titles = ", ".join(position.title for position in applicant.experience[:2])
    return (titles or applicant.bio or ", ".join(applicant.hard_skills))[:80]
