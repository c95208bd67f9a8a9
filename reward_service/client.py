"""Clients of the judge, over a Serve handle inside the cluster and over HTTP. Both are a `Judge` and an `AsyncJudge`.

Both back off and retry when the judge is busy or its replica is being replaced, and raise the last failure after
`patience` seconds. A judgement is never made up.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import httpx

from dynaq.errors import JudgeError
from dynaq.judging.history import history_of
from dynaq.judging.judgement import Judgement, check_answers
from dynaq.records import Candidate, Job
from reward_service.config import JudgeConfig
from reward_service.errors import JudgeBusy, JudgeUnavailable

T = TypeVar("T")
LONGEST_PAUSE = 10.0  # seconds between two attempts
OUT_OF_CREDIT = "insufficient_quota"  # OpenAI's code for an empty account, sent as 429 too; waiting does not fill it


class RewardClient(ABC):
    """A judge in another process. `judge` may be called from any thread, `judge_async` from any event loop.

    Args:
        patience: seconds during which a busy or unavailable judge is retried, enough to replace a replica.
    """

    def __init__(self, patience: float = 180.0) -> None:
        self.patience = patience
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """The judge's key in the ledger."""
        ...

    @abstractmethod
    async def _ask(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """One attempt. Raises JudgeBusy or JudgeUnavailable if a retry may succeed."""

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """One judgement per job, in order. Raises JudgeError."""
        return await self._retried(lambda: self._ask(applicant, jobs)) if jobs else []

    async def _retried(self, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        deadline = time.monotonic() + self.patience
        pause = 0.25
        while True:
            try:
                return await attempt()
            except (JudgeBusy, JudgeUnavailable) as error:
                # Half of the pause is random, so that clients refused together do not retry together.
                wait = max(getattr(error, "retry_after", 0.0), pause * (0.5 + random.random() / 2))
                if time.monotonic() + wait > deadline:
                    raise
            await asyncio.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    def judge(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """`judge_async` for callers without an event loop. Raises JudgeError."""
        return self._run(self.judge_async(applicant, jobs))

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on this client's own event loop, in a thread that lives as long as the process."""
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="reward-client", daemon=True).start()
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise


class ServeJudge(RewardClient):
    """A judge over a Serve handle. Can be pickled into other actors of the cluster."""

    def __init__(
        self, handle: Any, fingerprint: str, patience: float = 180.0, variant: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(patience)
        self._handle = handle
        self._fingerprint = fingerprint
        self._variant = dict(variant or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return ServeJudge, (self._handle, self._fingerprint, self.patience, self._variant)

    def variant(self, config: JudgeConfig, **fields: Any) -> ServeJudge:
        """A judge on the same engine whose method, rotations or budgets differ from the engine's `config`."""
        other = JudgeConfig(**(config.model_dump(exclude_none=True) | fields))
        return ServeJudge(self._handle, other.fingerprint, self.patience, fields)

    async def scores(self, applicant: Candidate, jobs: Sequence[Job]) -> list[float]:
        """Raw `likelihood` scores, NaN where a pair cannot be scored. Raises JudgeError."""
        return cast(list[float], await self._retried(lambda: self._call("scores", applicant, jobs)))

    async def orders(self, applicant: Candidate, jobs: Sequence[Job]) -> list[list[tuple[float, ...]]]:
        """Per job, the `choice` distribution under each of the four orders of the options. Raises JudgeError."""
        return cast(list[list[tuple[float, ...]]], await self._retried(lambda: self._call("orders", applicant, jobs)))

    @property
    def fingerprint(self) -> str:
        """The judge's key in the ledger, as reported by the deployment."""
        return self._fingerprint

    async def _ask(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        return cast(list[Judgement], await self._call("judge", applicant, jobs))

    async def _call(self, method: str, applicant: Candidate, jobs: Sequence[Job]) -> Any:
        import ray
        from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

        # The router hashes the session id, so that an applicant's calls reach the replica that cached the profile.
        handle = self._handle.options(method_name=method, session_id=applicant.id)
        response = handle.remote(applicant, list(jobs), self._variant)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()  # otherwise the replica would continue
            raise
        except BackPressureError as error:
            raise JudgeBusy("the judge's queue is full; try again") from error
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, JudgeError):
                raise error.cause from None
            raise JudgeError(f"the judge failed on applicant {applicant.id!r}: {error.cause!r}") from error
        except (ray.exceptions.RayActorError, DeploymentUnavailableError) as error:
            raise JudgeUnavailable("the judge's replica died and is being replaced; try again") from error


class HttpJudge(RewardClient):
    """A judge over HTTP, through the API of `reward_service.api`.

    Args:
        url: address of the service, e.g. http://127.0.0.1:8000.
        api_key: bearer token; None reads $DYNAQ_API_KEY.
        timeout: seconds for one attempt.
        patience: seconds during which a busy or unavailable judge is retried.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout: float = 300.0, patience: float = 180.0
    ) -> None:
        super().__init__(patience)
        self.url = url.rstrip("/")
        key = api_key or os.environ.get("DYNAQ_API_KEY")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout = timeout
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()
        self._fingerprint: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        key = self._headers.get("Authorization", "").removeprefix("Bearer ") or None
        return partial(HttpJudge, api_key=key, timeout=self._timeout, patience=self.patience), (self.url,)

    @property
    def fingerprint(self) -> str:
        """The judge's key in the ledger, requested from the service once. Raises JudgeError when it does not answer."""
        if self._fingerprint is None:
            answer = self._run(self._retried(lambda: self._request("GET", "/v1/judge")))
            self._fingerprint = str(answer["judge"])
        return self._fingerprint

    async def _ask(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        plain = applicant.model_dump(mode="json", exclude={"history"})
        body: dict[str, Any] = {"applicant": plain, "jobs": [job.model_dump(mode="json") for job in jobs]}
        if history := history_of(applicant):
            body["history"] = [event.model_dump(mode="json") for event in history]
        answer = await self._request("POST", "/v1/judgements", body)
        judgements = [_judgement(applicant.id, item) for item in answer["judgements"]]
        check_answers(judgements, applicant.id, [job.id for job in jobs], f"the judge at {self.url}")
        return judgements

    async def _request(self, method: str, path: str, body: Any = None) -> Any:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:  # a connection is bound to the event loop in which it was opened
            self._clients[loop] = httpx.AsyncClient(
                base_url=self.url,
                headers=self._headers,
                timeout=httpx.Timeout(self._timeout, connect=10.0),
                limits=httpx.Limits(max_connections=256, max_keepalive_connections=64),
            )
        try:
            response = await self._clients[loop].request(method, path, json=body)
        except httpx.TimeoutException as error:
            raise JudgeError(f"the judge at {self.url} did not answer within {self._timeout:g} s") from error
        except httpx.TransportError as error:
            raise JudgeUnavailable(f"no judge answers at {self.url} ({error or type(error).__name__})") from error
        return checked(response, f"the judge at {self.url}")


def checked(response: httpx.Response, who: str, secret: str | None = None) -> Any:
    """The JSON of a successful response.

    who: names the server in messages. secret: a key that the server may repeat and no message may show.
    Raises JudgeBusy on 429, JudgeUnavailable on 500, 502, 503 and 504, JudgeError on other errors. 500 is retried
    because Serve's proxy answers it when the process behind it died, and repeating a judgement does no harm.
    """
    if response.is_success:
        try:
            return response.json()
        except ValueError as error:
            raise JudgeError(f"{who} answered {response.status_code} with something that is no JSON") from error
    message = f"{who} answered {response.status_code}: {problem(response)}"
    if secret:
        message = message.replace(secret, "***")
    wait = _retry_after(response)
    if wait is not None:
        message += f" (it asks to wait {wait:.0f} s)"
    if response.status_code == 429 and OUT_OF_CREDIT not in response.text:
        raise JudgeBusy(message, 1.0 if wait is None else wait)
    if response.status_code in (500, 502, 503, 504):
        raise JudgeUnavailable(message, wait or 0.0)
    raise JudgeError(message)


def problem(response: httpx.Response) -> str:
    """What a failed response says: FastAPI's `detail`, OpenAI's `error.message`, else the start of its text."""
    try:
        body = response.json()
        error = body.get("error")
        said = body.get("detail") or (error.get("message") if isinstance(error, dict) else error)
    except (ValueError, AttributeError):
        said = None
    return str(said or response.text or response.reason_phrase)[:300]


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of the Retry-After header, which holds a number or an HTTP date (RFC 9110, 10.2.3); None without one."""
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    try:
        wait = float(value)
    except ValueError:
        try:
            wait = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, wait) if math.isfinite(wait) else None


def _judgement(applicant_id: str, item: dict[str, Any]) -> Judgement:
    fields: dict[str, Any] = {"applicant_id": applicant_id, **item}
    for name in ("p_apply", "p_save", "p_click", "p_ignore"):  # JSON has no NaN
        fields[name] = math.nan if item[name] is None else item[name]
    return Judgement(**fields)
