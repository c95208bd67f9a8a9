"""What routes ask about a call: who makes it, about whom, and whether it is within the caller's limits."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import Path as InPath
from fastapi import Request

from recommend_service.keys import Caller
from recommend_service.problems import Problem
from recommend_service.rate_limit import What
from recommend_service.schemas import Id
from recommend_service.service import Recommender

ApplicantId = Annotated[Id, InPath(description="applicant")]


def caller_of(request: Request) -> Caller:
    """The caller, whom the guard in front of the route has checked."""
    caller: Caller = request.state.caller
    return caller


async def take(service: Recommender, what: What, request: Request, tokens: int) -> None:
    """Take tokens of the caller's limit. Raises Problem when there are too few."""
    caller = request.client.host if request.client else "unknown"
    wait = await service.wait(what, caller, tokens)
    if wait > 0:
        raise Problem(429, "too-many-requests", f"try again in {math.ceil(wait)} s", retry_after=wait)
