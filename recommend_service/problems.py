"""Errors over HTTP: problem+json (RFC 9457), whose `type` names the problem and the version of its meaning."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException

from recommend_service.recorder import Overloaded

logger = logging.getLogger(__name__)
PROBLEM_VERSION = 1
MEDIA_TYPE = "application/problem+json"


class ProblemDetails(BaseModel):
    """What went wrong. `type` is stable within a version; `detail` is for human readers."""

    type: str = Field(examples=[f"urn:dynaq:problem:v{PROBLEM_VERSION}:unknown-applicant"])
    title: str
    status: int
    detail: str
    version: int = PROBLEM_VERSION


class Problem(Exception):
    """An error response, raised by a route."""

    def __init__(self, status: int, name: str, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.status, self.name, self.detail = status, name, detail
        self.retry_after = retry_after
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
        if status == HTTPStatus.UNAUTHORIZED:
            self.headers["WWW-Authenticate"] = "Bearer"


def problem_response(problem: Problem) -> JSONResponse:
    """The response of a problem: JSON by RFC 9457, with status and headers."""
    body = ProblemDetails(
        type=f"urn:dynaq:problem:v{PROBLEM_VERSION}:{problem.name}",
        title=problem.name.replace("-", " "),
        status=problem.status,
        detail=problem.detail.encode("utf-8", "replace").decode(),  # a lone surrogate cannot be encoded
    )
    return JSONResponse(body.model_dump(), problem.status, problem.headers, media_type=MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem responses of a route for the OpenAPI document, by status."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Install handlers that turn every error of the app into problem+json."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, problem: Problem) -> JSONResponse:
        return problem_response(problem)

    @app.exception_handler(Overloaded)
    async def _overloaded(request: Request, error: Overloaded) -> JSONResponse:
        return problem_response(Problem(503, "overloaded", str(error), retry_after=1))

    @app.exception_handler(StarletteHTTPException)
    async def _http(request: Request, error: StarletteHTTPException) -> JSONResponse:
        name = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        problem = Problem(error.status_code, name, str(error.detail))
        problem.headers |= dict(error.headers or {})
        return problem_response(problem)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return problem_response(Problem(422, "invalid-request", f"{place}: {first['msg']}"))

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        # The route's pattern, since the path may hold an applicant's id.
        route = getattr(request.scope.get("route"), "path", "none")
        logger.error("%s %s failed", request.method, route, exc_info=error)
        return problem_response(Problem(500, "internal-error", "the service failed; see its log"))
