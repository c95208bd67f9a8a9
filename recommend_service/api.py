"""The service over HTTP: a FastAPI application around a Recommender.

It needs no Ray: `recommend_service.app` runs it in a Ray Serve replica, tests and notebooks run it in their process.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, Depends, FastAPI, Header, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dynaq.feedback.events import MAX_TEXT
from dynaq.records import Job
from recommend_service import problems
from recommend_service.access_log import AccessLog
from recommend_service.callers import ApplicantId, caller_of, take
from recommend_service.config import MAX_K
from recommend_service.docs import PAGE, docs_page
from recommend_service.facets import LONGEST, Facet
from recommend_service.keys import Caller, Keys
from recommend_service.middleware import Guard
from recommend_service.problems import Problem, ProblemDetails, documented
from recommend_service.profiles import candidate
from recommend_service.rights_routes import rights_routes
from recommend_service.schemas import (
    ApplicantCreated,
    ApplicantIn,
    FeedbackAccepted,
    FeedbackBatch,
    FeedbackBody,
    Id,
    Preference,
    Recommendations,
    Status,
)
from recommend_service.service import Recommender
from recommend_service.view_routes import view_routes

DESCRIPTION = """Recommends jobs to applicants, ranked by each applicant's own agent, and takes their feedback.

Errors are `application/problem+json`; their `type` names the problem and the version of its meaning."""

_bearer = HTTPBearer(auto_error=False)
FacetValue = Annotated[str | None, Query(max_length=LONGEST, description="one of GET /v1/filters")]
JobId = Annotated[Id, InPath(description="job")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=MAX_TEXT,
        description="what is sent again with the same key is stored once",
    ),
]
PREFERENCE = (
    "what the applicant would like, in free text, in a language that the store's encoder reads: English with the "
    "default one, a hundred languages with `multilingual`"
)


def make_app(service: Recommender) -> FastAPI:
    """The application. It starts the service, unless it runs already, and stops it at its own end."""

    access_log = AccessLog(service.config.access_log)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()
            access_log.close()

    app = FastAPI(
        title="Dyna-Q recommendations",
        version=version("dynaq-jobs"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads scripts from a CDN; ours needs no network
        redoc_url=None,
    )
    problems.install(app)
    app.add_middleware(
        Guard, metrics=service.metrics, loopback_only=service.config.api_key is None, access_log=access_log
    )
    keys, keyed = Keys(service.config.api_key, service.config.read_key), service.config.api_key is not None
    guard: dict[str, Any] = {"dependencies": [Depends(_authorise(keys) if keyed else _admit)]}
    guard["responses"] = documented(401, 403) if keyed else {}
    app.include_router(_open_routes(service, app))
    app.include_router(_routes(service), **guard)
    app.include_router(view_routes(service), **guard)
    app.include_router(rights_routes(service, keys), **guard)
    _document_problems(app)
    return app


def _authorise(keys: Keys) -> Any:
    async def authorise(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> None:
        request.state.caller = keys.caller(given.credentials if given else None)

    return authorise


async def _admit(request: Request) -> None:
    """Without a key, on loopback, every caller is the operator."""
    request.state.caller = Caller("service")


def _open_routes(service: Recommender, app: FastAPI) -> APIRouter:
    """Routes without data about applicants: health, the empty page, the documentation."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> Status:
        """Whether the process is alive."""
        return Status(status="ok")

    @router.get("/readyz")
    async def readyz() -> Status:
        """Which run ranks over which catalogue, and why a newer one is not used."""
        catalogue = service.ranker.catalogue
        return Status(
            status="ready",
            run_id=service.run_id,
            catalogue=catalogue.digest[:12],
            jobs=len(catalogue.job_ids),
            problem=service.problem,
            process=os.getpid(),
        )

    @router.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))

    router.add_api_route("/", _file(PAGE / "index.html", "text/html"), include_in_schema=False)
    router.add_api_route("/operator", _file(PAGE / "operator.html", "text/html"), include_in_schema=False)
    kinds = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    for file in PAGE.iterdir():
        if file.suffix in kinds:
            router.add_api_route(f"/{file.name}", _file(file, kinds[file.suffix]), include_in_schema=False)
    return router


def _file(path: Path, kind: str) -> Any:
    async def file() -> FileResponse:
        return FileResponse(path, media_type=kind)

    return file


def _routes(service: Recommender) -> APIRouter:
    router, config = APIRouter(), service.config

    @router.get("/v1/applicants/{applicant_id:path}/recommendations", responses=documented(404, 409, 422, 503))
    async def recommendations(
        request: Request,
        applicant_id: ApplicantId,
        k: Annotated[int, Query(ge=1, le=MAX_K, description="length of the list")] = 10,
        preference: Annotated[Preference | None, Query(description=PREFERENCE)] = None,
        explain: Annotated[bool, Query(description="why each job is on the list")] = False,
        place: FacetValue = None,
        contract: FacetValue = None,
        language: FacetValue = None,
    ) -> Recommendations:
        """An applicant's list. Without an agent it is the warm-start ranking, as its `source` and `note` say.

        `place`, `contract` and `language` keep only jobs that have this value (`GET /v1/filters`).
        """
        caller = caller_of(request)
        caller.check_reads(applicant_id)
        given: dict[Facet, str | None] = {"place": place, "contract": contract, "language": language}
        filters = {facet: value for facet, value in given.items() if value is not None}
        recorded = caller.scope != "reader"
        return await service.recommend(applicant_id, k, preference, explain, filters=filters, recorded=recorded)

    @router.post("/v1/applicants", status_code=201, responses=documented(400, 409, 413, 422, 429, 503))
    async def create_applicant(
        request: Request, response: Response, body: ApplicantIn, idempotency_key: IdempotencyKey = None
    ) -> ApplicantCreated:
        """Create an applicant. Recommendations are available at once.

        Names, contact details and other personal data in the texts are neither stored nor used, unless the store was
        made to keep them (`dynaq ingest --keep-personal`).
        """
        caller_of(request).check_operator()
        await take(service, "profiles", request, 1)
        key = idempotency_key
        name = uuid.uuid4().hex[:12] if key is None else hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        applicant = candidate(body, body.id or f"p-{name}")
        await service.create(applicant, repeatable=idempotency_key is not None)
        where = f"/v1/applicants/{quote(applicant.id, safe='')}/recommendations"
        response.headers["Location"] = where
        return ApplicantCreated(id=applicant.id, recommendations=where)

    @router.post("/v1/feedback", status_code=201, responses=documented(400, 404, 413, 422, 429, 503))
    async def feedback(
        request: Request, body: Annotated[FeedbackBody, Body()], idempotency_key: IdempotencyKey = None
    ) -> FeedbackAccepted:
        """Store one event or several; they are on disk when the call returns."""
        given = body.events if isinstance(body, FeedbackBatch) else [body]
        if len(given) > config.max_batch:
            raise Problem(413, "too-large", f"{len(given)} events in one call; at most {config.max_batch}")
        for one in given:
            caller_of(request).check_owns(one.applicant_id, writing=True)
        await take(service, "events", request, len(given))
        kept = await service.feedback(given, idempotency_key)
        return FeedbackAccepted(accepted=len(kept), keys=[event.key for event in kept])

    @router.get("/v1/jobs/{job_id:path}", responses=documented(404, 422))
    async def job(job_id: JobId) -> Job:
        """One job of the catalogue."""
        return service.job(job_id)

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics(request: Request) -> Response:
        """Prometheus text format."""
        caller_of(request).check_operator(reading=True)
        service.observe()
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _document_problems(app: FastAPI) -> None:
    """Describe every error in the OpenAPI document as a problem, including those that FastAPI adds itself."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = original()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas["ProblemDetails"] = ProblemDetails.model_json_schema()
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
        return app.openapi_schema or original()

    app.openapi = openapi  # type: ignore[method-assign]
