"""The judge over HTTP: a FastAPI application that Ray Serve runs in front of the engine's replicas.

It is a separate, lightweight deployment, so that /healthz answers while an engine is still starting.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Request, Response
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve.handle import DeploymentHandle

from cluster.serve import key_matches, refuse_open_address, served_host
from dynaq.errors import DynaqError, InputError, JudgeError
from dynaq.ingest.parse_records import Rejected, parse_candidate, parse_job
from dynaq.judging.history import MAX_HISTORY, PastEvent, ledger_key, with_history
from dynaq.judging.judgement import AsyncJudge, Judgement, Label
from dynaq.judging.ledger_first import LedgerFirst
from dynaq.records import Candidate, Job
from dynaq.stores import open_store
from reward_service.client import ServeJudge
from reward_service.config import JudgeConfig
from reward_service.errors import JudgeBusy, JudgeUnavailable

READY_SECONDS = 5.0  # an engine that does not answer a status call within this time is not ready

app = FastAPI(
    title="Dyna-Q reward service",
    description="An LLM plays an applicant: p over APPLY, SAVE, CLICK and IGNORE for each job it is shown.",
)
_bearer = HTTPBearer(auto_error=False)


class JudgementRequest(BaseModel):
    """One applicant and the jobs to show them: records as in the input files, or `{"id": …}` for one of the store.

    history: what the applicant did before, newest first, each job once, for a judge with memory. Without a title, the
    store's is taken.
    """

    model_config = ConfigDict(extra="forbid")

    applicant: dict[str, Any]
    jobs: list[dict[str, Any]] = Field(min_length=1)
    history: tuple[PastEvent, ...] = Field(default=(), max_length=MAX_HISTORY)


class JudgementAnswer(BaseModel):
    """The judgement of one pair. For an abstention, label and reward are null and the note says why."""

    job_id: str
    p_apply: float | None
    p_save: float | None
    p_click: float | None
    p_ignore: float | None
    label: Label | None
    reward: float | None
    label_mass: float
    judge: str
    note: str = ""


class JudgementResponse(BaseModel):
    """One judgement per job, in the order of the request."""

    judgements: list[JudgementAnswer]


class Metrics:
    """The metrics of /metrics, in a registry of their own."""

    def __init__(self, fingerprint: str) -> None:
        self.registry = CollectorRegistry()
        counter = {"registry": self.registry}
        self.requests = Counter("judge_requests_total", "Calls by HTTP status.", ["status"], **counter)  # type: ignore[arg-type]
        self.pairs = Counter("judge_pairs_total", "Pairs answered, by label.", ["label"], **counter)  # type: ignore[arg-type]
        self.seconds = Histogram("judge_request_seconds", "Time of a call.", **counter)  # type: ignore[arg-type]
        self.open = Gauge("judge_open_requests", "Calls being worked on.", **counter)  # type: ignore[arg-type]
        info = Gauge("judge_info", "The judge that answers.", ["judge"], **counter)  # type: ignore[arg-type]
        info.labels(fingerprint).set(1)


def _job(raw: dict[str, Any], index: int) -> Job:
    try:
        record = parse_job(raw).record
    except Rejected as error:
        raise InputError(f"jobs[{index}]: {error}") from error
    assert isinstance(record, Job)
    return record


def _applicant(raw: dict[str, Any]) -> Candidate:
    try:
        record = parse_candidate(raw).record
    except Rejected as error:
        raise InputError(f"applicant: {error}") from error
    assert isinstance(record, Candidate)
    return record


def _check_found(
    applicant_id: str | None, applicant: Candidate | None, job_ids: list[str], jobs: dict[str, Job]
) -> None:
    """Check that the store has every record requested by id. Raises InputError naming the first that is missing."""
    if applicant_id is not None and applicant is None:
        raise InputError(f"applicant {applicant_id!r} is not in the store; send the whole record or ingest it")
    lost = [job_id for job_id in job_ids if job_id not in jobs]
    if lost:
        raise InputError(f"job {lost[0]!r} is not in the store; send the whole record or ingest it")


def _answer(judgement: Judgement) -> JudgementAnswer:
    p = dict.fromkeys(("p_apply", "p_save", "p_click", "p_ignore"))
    if not judgement.abstained:
        p = dict(zip(p, judgement.probabilities, strict=True))
    return JudgementAnswer(
        job_id=judgement.job_id,
        **p,
        label=judgement.label,
        reward=judgement.reward,
        label_mass=judgement.label_mass,
        judge=judgement.judge,
        note=judgement.note,
    )


# Last in the file, because serve.ingress copies the class together with the globals defined so far.
@serve.ingress(app)
class JudgeApi:
    """The routes. If a key is configured, all but the health checks need it."""

    def __init__(self, config: JudgeConfig, judge: DeploymentHandle[Any]) -> None:
        self._config = config = config.with_secrets()  # under `serve deploy`, keys are in the cluster's environment
        refuse_open_address(config.api_key, served_host(), "the judge")
        self._handle = judge
        # No retries here: an HTTP caller is told at once that the judge is busy, and waits itself.
        self._judge = ServeJudge(judge, config.fingerprint, patience=0.0)
        self._ledger: LedgerFirst | None = None
        if config.store:  # nothing kept in memory, because other processes may write the same ledger
            self._ledger = LedgerFirst(open_store(config.store), self._judge, config.fingerprint, applicants_kept=0)
        self._metrics = Metrics(config.fingerprint)

    @app.post("/v1/judgements", response_model=JudgementResponse)
    async def judgements(self, request: Request, body: Annotated[JudgementRequest, Body()]) -> Any:
        """Judge one applicant on many jobs."""
        started, status = time.perf_counter(), 500
        self._metrics.open.inc()
        try:
            await self._authorise(request)
            answers = await self._judgements(body)
            for answer in answers:
                self._metrics.pairs.labels(answer.label or "abstained").inc()
            status = 200
            return {"judgements": [_answer(answer) for answer in answers]}
        except HTTPException as error:
            status = error.status_code
            raise
        except asyncio.CancelledError:
            status = 499  # the client disconnected; Serve cancels its call to the replica
            raise
        finally:
            self._metrics.open.dec()
            self._metrics.seconds.observe(time.perf_counter() - started)
            self._metrics.requests.labels(status).inc()

    @app.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """Whether the process is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz(self) -> dict[str, str]:
        """Whether an engine answers; 503 until then."""
        try:
            await asyncio.wait_for(self._handle.status.remote(), READY_SECONDS)
        except Exception as error:
            raise HTTPException(503, "no engine is up yet; try again", {"Retry-After": "5"}) from error
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics(self, request: Request) -> Response:
        """Prometheus text format."""
        await self._authorise(request)
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/judge")
    async def judge(self, request: Request) -> dict[str, Any]:
        """The judge's fingerprint and configuration."""
        await self._authorise(request)
        return {"judge": self._config.fingerprint, "configuration": self._config.public()}

    async def _authorise(self, request: Request) -> None:
        key = self._config.api_key
        if key is None:
            return
        given = await _bearer(request)
        if not key_matches(given.credentials if given else None, key):
            raise HTTPException(401, "send the API key as `Authorization: Bearer KEY`", {"WWW-Authenticate": "Bearer"})

    async def _judgements(self, body: JudgementRequest) -> list[Judgement]:
        if len(body.jobs) > self._config.max_pairs_per_call:
            raise HTTPException(413, f"{len(body.jobs)} jobs in one call; at most {self._config.max_pairs_per_call}")
        try:
            applicant, jobs, stored = await self._records(body)
            judge: AsyncJudge = self._ledger if self._ledger is not None and stored else self._judge
            return await judge.judge_async(applicant, jobs)
        except InputError as error:
            raise HTTPException(422, str(error)) from error
        except JudgeBusy as error:
            raise HTTPException(429, str(error), {"Retry-After": str(max(1, round(error.retry_after)))}) from error
        except JudgeUnavailable as error:
            raise HTTPException(503, str(error), {"Retry-After": "5"}) from error
        except (JudgeError, DynaqError) as error:
            raise HTTPException(502, str(error)) from error

    async def _records(self, body: JudgementRequest) -> tuple[Candidate, list[Job], bool]:
        """The records of a request, and whether all of them are from the store. Raises InputError."""
        names = [job["id"] if list(job) == ["id"] else None for job in body.jobs]
        wanted = [str(name) for name in names if name is not None]
        applicant_id = str(body.applicant["id"]) if list(body.applicant) == ["id"] else None
        ledger_key(self._config.fingerprint, body.history)  # checks it
        untitled = [event.job_id for event in body.history if not event.title]
        needed = list(dict.fromkeys([*wanted, *untitled]))
        applicant, stored = None, dict[str, Job]()
        if needed or applicant_id is not None:
            if self._ledger is None:
                raise InputError("a record is named by id only, and this service has no store; send the whole record")
            applicant, stored = await self._ledger.records(applicant_id, needed)
            _check_found(applicant_id, applicant, needed, stored)
        jobs = [
            stored[str(name)] if name is not None else _job(raw, i)
            for i, (name, raw) in enumerate(zip(names, body.jobs, strict=True))
        ]
        ids = [job.id for job in jobs]
        if len(set(ids)) < len(ids):
            raise InputError(f"job {next(i for i in ids if ids.count(i) > 1)!r} is there twice; send each once")
        return (
            with_history(applicant or _applicant(body.applicant), body.history, stored),
            jobs,
            applicant is not None and len(wanted) == len(jobs) and len(untitled) == len(body.history),
        )
