"""Routes for people's rights and human oversight: tokens, erasure, export, operators' decisions."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from recommend_service.callers import ApplicantId, caller_of
from recommend_service.keys import Keys
from recommend_service.problems import documented
from recommend_service.schemas import (
    DecisionIn,
    DecisionList,
    DecisionShown,
    Erasure,
    Me,
    TokenIn,
    TokenIssued,
)
from recommend_service.service import Recommender


def rights_routes(service: Recommender, keys: Keys) -> APIRouter:
    """The routes."""
    router = APIRouter()

    @router.get("/v1/me")
    async def me(request: Request) -> Me:
        """Whose key or token this is."""
        caller = caller_of(request)
        return Me(scope=caller.scope, applicant_id=caller.applicant_id, read_only=caller.read_only)

    @router.post(
        "/v1/applicants/{applicant_id:path}/tokens", status_code=201, responses=documented(400, 404, 409, 413, 422)
    )
    async def token(request: Request, applicant_id: ApplicantId, body: TokenIn) -> TokenIssued:
        """A token with which one applicant, and nobody else, sees and does what is theirs. Needs the service key."""
        caller_of(request).check_operator()
        await service.applicant(applicant_id)
        text, expires_at = keys.issue(applicant_id, body.minutes, read_only=body.read_only)
        return TokenIssued(token=text, expires_at=expires_at)

    @router.get("/v1/applicants/{applicant_id:path}/export", responses=documented(404, 422, 503))
    async def export(request: Request, applicant_id: ApplicantId) -> dict[str, Any]:
        """Everything that is held about an applicant, in the store and in the runs that serve or served."""
        caller_of(request).check_owns(applicant_id, writing=False)
        return await service.rights.export(applicant_id)

    @router.get("/v1/applicants/{applicant_id:path}/decisions", responses=documented(404, 422, 503))
    async def decisions(request: Request, applicant_id: ApplicantId) -> DecisionList:
        """What operators decided for an applicant: the log, oldest first."""
        caller_of(request).check_owns(applicant_id, writing=False)
        await service.applicant(applicant_id)
        return DecisionList(decisions=[DecisionShown(**row) for row in await service.rights.log(applicant_id)])

    @router.post(
        "/v1/applicants/{applicant_id:path}/decisions", status_code=201, responses=documented(400, 404, 413, 422, 503)
    )
    async def decide(request: Request, applicant_id: ApplicantId, body: DecisionIn) -> DecisionShown:
        """Block or pin a job for an applicant, or undo that. It is logged. Needs the service key."""
        caller_of(request).check_operator()
        await service.applicant(applicant_id)
        service.job(body.job_id)
        return DecisionShown(**await service.rights.decide(applicant_id, body))

    @router.delete("/v1/applicants/{applicant_id:path}", responses=documented(404, 422, 503))
    async def erase(request: Request, applicant_id: ApplicantId) -> Erasure:
        """Erase an applicant from the store, from the runs that serve or served, and from memory.

        Other run folders and pre-trained networks are the operator's: `dynaq forget --runs`.
        """
        caller_of(request).check_owns(applicant_id, writing=True)
        return await service.forget(applicant_id)

    return router
