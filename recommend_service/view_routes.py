"""Routes behind the pages: search, profiles, documents, what was said and shown, changes, runs side by side."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from dynaq.feedback.events import MAX_TEXT
from recommend_service.callers import ApplicantId, caller_of, take
from recommend_service.problems import documented
from recommend_service.profiles import candidate
from recommend_service.schemas import ApplicantList, ProfileIn
from recommend_service.service import Recommender
from recommend_service.view_schemas import (
    AnswerList,
    Comparison,
    DocumentRead,
    ExposureList,
    Filters,
    LearningCurve,
    ListChanges,
    ProfileShown,
    RunList,
)
from recommend_service.views import Views

MAX_SEARCH = 200  # characters
MAX_COMPARED = 100  # jobs of each list
DOCUMENT: dict[str, Any] = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}
RunId = Annotated[str, Query(min_length=1, max_length=100, description="one of GET /v1/runs")]


def view_routes(service: Recommender) -> APIRouter:
    """The routes."""
    router, views = APIRouter(), Views(service)

    @router.get("/v1/applicants", responses=documented(422))
    async def applicants(
        request: Request,
        after: Annotated[str, Query(max_length=MAX_TEXT, description="list only ids after this one")] = "",
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        search: Annotated[
            str, Query(max_length=MAX_SEARCH, description="words in the id, the titles or the text of the profile")
        ] = "",
    ) -> ApplicantList:
        """Applicants, ordered by id."""
        caller_of(request).check_operator(reading=True)
        return await views.applicants(after, limit, search)

    @router.get("/v1/filters")
    async def filters() -> Filters:
        """By what lists can be filtered: the values of `place`, `contract` and `language` in the catalogue."""
        return await views.filters()

    @router.get("/v1/applicants/{applicant_id:path}/profile", responses=documented(404, 422))
    async def profile(request: Request, applicant_id: ApplicantId) -> ProfileShown:
        """What is known about an applicant, and what their list is made from."""
        caller_of(request).check_owns(applicant_id, writing=False)
        return await views.profile(applicant_id)

    @router.put("/v1/applicants/{applicant_id:path}/profile", responses=documented(400, 404, 409, 413, 422, 429, 503))
    async def change_profile(request: Request, applicant_id: ApplicantId, body: ProfileIn) -> ProfileShown:
        """Replace a profile. Lists without an agent follow at once; an agent follows when it is trained again.

        Personal data in the texts is removed as for new applicants.
        """
        caller_of(request).check_owns(applicant_id, writing=True)
        await take(service, "profiles", request, 1)
        await service.change(candidate(body, applicant_id))
        return await views.profile(applicant_id)

    @router.post("/v1/documents", responses=documented(400, 413, 422, 429), openapi_extra={"requestBody": DOCUMENT})
    async def document(
        request: Request,
        name: Annotated[str, Query(min_length=1, max_length=MAX_TEXT, description="of the file, e.g. cv.pdf")],
    ) -> DocumentRead:
        """Find the fields of a profile in a document (PDF, Word, HTML or text), sent as the body. Nothing is stored."""
        caller_of(request).check_writes()
        await take(service, "profiles", request, 1)
        return await service.profiles.read_document(name, await request.body())

    @router.get("/v1/applicants/{applicant_id:path}/feedback", responses=documented(404, 422))
    async def answers(request: Request, applicant_id: ApplicantId) -> AnswerList:
        """What an applicant has said: one answer per job, newest first. Saved jobs are those with the event `save`."""
        caller_of(request).check_owns(applicant_id, writing=False)
        return await views.answers(applicant_id)

    @router.get("/v1/applicants/{applicant_id:path}/exposures", responses=documented(404, 422))
    async def exposures(
        request: Request,
        applicant_id: ApplicantId,
        limit: Annotated[int, Query(ge=1, le=200, description="number of lists")] = 20,
    ) -> ExposureList:
        """The newest lists that an applicant was shown."""
        caller_of(request).check_owns(applicant_id, writing=False)
        return await views.exposures(applicant_id, limit)

    @router.get("/v1/applicants/{applicant_id:path}/changes", responses=documented(404, 422, 503))
    async def changes(request: Request, applicant_id: ApplicantId) -> ListChanges:
        """How the list of today differs from the last one that was shown on an earlier day."""
        caller_of(request).check_owns(applicant_id, writing=False)
        return await views.changes(applicant_id)

    @router.get("/v1/applicants/{applicant_id:path}/learning", responses=documented(404, 409, 422))
    async def learning(request: Request, applicant_id: ApplicantId, run: RunId | None = None) -> LearningCurve:
        """How an applicant's agent learned, round by round, in the run that serves or in another one."""
        caller = caller_of(request)
        caller.check_owns(applicant_id, writing=False)
        if run is not None:
            caller.check_operator(reading=True)
        return await views.learning(applicant_id, run)

    @router.get("/v1/runs")
    async def runs(request: Request) -> RunList:
        """Runs whose lists can be compared: that which serves, those before it, and the trials beside it."""
        caller_of(request).check_operator(reading=True)
        return await views.runs()

    @router.get("/v1/applicants/{applicant_id:path}/comparison", responses=documented(404, 409, 422))
    async def comparison(
        request: Request,
        applicant_id: ApplicantId,
        left: RunId,
        right: RunId,
        k: Annotated[int, Query(ge=1, le=MAX_COMPARED, description="length of each list")] = 10,
    ) -> Comparison:
        """An applicant's lists by two runs, without exploring. Nothing is recorded."""
        caller_of(request).check_operator(reading=True)
        return await views.comparison(applicant_id, left, right, k)

    return router
