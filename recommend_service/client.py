"""The recommendation API's client."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any
from urllib.parse import quote

import httpx

from dynaq.errors import DynaqError, InputError
from recommend_service.problems import MEDIA_TYPE

PATIENCE_SECONDS = 60.0  # longest that one call keeps retrying
LOST_SECONDS = 0.2  # until a call whose replica was lost is sent to another
PAGE_SIZE = 500  # applicants per request


class Api:
    """The recommendation API's client.

    Retries after `Retry-After` when the service is busy, and at once when a replica or the way to it was lost: what is
    sent again under the same key is stored once.

    waited: number of retries. seconds: name of a call → its durations.
    """

    def __init__(self, url: str, key: str | None = None, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._transport = transport
        self.waited = 0
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    async def __aenter__(self) -> Api:
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=self._headers,
            timeout=60.0,
            limits=httpx.Limits(max_connections=256),
            transport=self._transport,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def applicants(self, count: int) -> list[str]:
        """The first `count` applicant ids. Raises InputError when no recommendation service answers."""
        found: list[str] = []
        after: str | None = ""
        while after is not None and len(found) < count:
            params = {"after": after, "limit": min(PAGE_SIZE, count - len(found))}
            try:
                page = await self._call("applicants", "GET", "/v1/applicants", params=params)
                found += [one["id"] for one in page["applicants"]]
                after = page["next"]
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                reason = str(error) or type(error).__name__
                raise InputError(f"no recommendation service answers at {self.url} ({reason})") from error
        return found

    async def recommendations(self, applicant_id: str, k: int) -> dict[str, Any]:
        """An applicant's list of k jobs. Raises httpx.HTTPError."""
        path = f"/v1/applicants/{quote(applicant_id, safe='')}/recommendations"
        return await self._call("recommendations", "GET", path, params={"k": k})

    async def feedback(self, events: list[dict[str, str]], key: str) -> dict[str, Any]:
        """Send events under an idempotency key. Raises httpx.HTTPError."""
        headers = {"Idempotency-Key": key}
        return await self._call("feedback", "POST", "/v1/feedback", json={"events": events}, headers=headers)

    async def forget(self, applicant_id: str) -> dict[str, int]:
        """Erase an applicant from the service's store, caches and served runs. Returns how many rows of each table.

        Raises DynaqError with the service's own message when it did not.
        """
        try:
            found = await self._call("forget", "DELETE", f"/v1/applicants/{quote(applicant_id, safe='')}")
        except httpx.HTTPError as error:
            raise DynaqError(f"the service at {self.url} did not erase the applicant ({error})") from error
        rows: dict[str, int] = found["rows"]
        return rows

    async def _call(self, name: str, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The JSON of a response. Raises httpx.HTTPError, with the service's own message if it gave one."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            began = time.perf_counter()
            try:
                answer = await self._http.request(method, path, **options)
            except httpx.TransportError:
                if not self.seconds or time.monotonic() + LOST_SECONDS > deadline:  # nothing has ever answered there
                    raise
                pause = LOST_SECONDS
            else:
                self.seconds[name].append(time.perf_counter() - began)
                lost = _came_from_a_proxy(answer)
                pause = LOST_SECONDS if lost else _seconds(answer.headers.get("Retry-After"))
                if not (lost or answer.status_code in (429, 503)) or time.monotonic() + pause > deadline:
                    break
            self.waited += 1
            await asyncio.sleep(pause)
        if answer.is_error or answer.is_redirect:
            problem = answer.json().get("detail", "") if "json" in answer.headers.get("content-type", "") else ""
            text = f"{answer.status_code} {problem or answer.reason_phrase}"
            raise httpx.HTTPStatusError(text, request=answer.request, response=answer)
        body: dict[str, Any] = answer.json()
        return body


def _came_from_a_proxy(answer: httpx.Response) -> bool:
    """Whether an error was made on the way to a replica: the service's own are problem+json."""
    return answer.is_server_error and MEDIA_TYPE not in answer.headers.get("content-type", "")


def _seconds(text: str | None) -> float:
    try:
        return max(0.1, float(text or 1.0))
    except ValueError:
        return 1.0
