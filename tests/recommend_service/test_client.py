"""The client repeats what a lost replica, or the way to it, left unanswered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from recommend_service import client as module
from recommend_service.client import Api
from recommend_service.problems import MEDIA_TYPE

Answer = Callable[[httpx.Request], httpx.Response]

DONE = {"accepted": 1, "keys": ["k"]}


def lost(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("connection reset", request=request)


def refused(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused", request=request)


def says(status: int, kind: str = MEDIA_TYPE) -> Answer:
    return lambda request: httpx.Response(status, json=DONE, headers={"content-type": kind, "Retry-After": "0.1"})


def send(monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> Api:
    """Sends one call to a service that answers so."""
    monkeypatch.setattr(module, "LOST_SECONDS", 0.0)
    waiting = [says(200), *answers]
    keys: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers.get("Idempotency-Key", ""))
        return waiting.pop(0)(request)

    async def run() -> Api:
        async with Api("http://service", transport=httpx.MockTransport(handle)) as api:
            await api.recommendations("a", 1)
            assert await api.feedback([], key="once") == DONE
            assert keys == ["", *["once"] * len(answers)]
            return api

    return asyncio.run(run())


def test_what_got_no_answer_is_sent_again_under_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    api = send(monkeypatch, lost, says(500, "text/plain"), refused, says(502, "text/html"), says(503), says(201))
    assert api.waited == 5


@pytest.mark.parametrize("status", [404, 422, 500])
def test_what_the_service_itself_refuses_is_not_sent_again(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    with pytest.raises(httpx.HTTPStatusError, match=str(status)):
        send(monkeypatch, says(status))


def test_an_address_at_which_nobody_has_ever_answered_is_an_error_at_once() -> None:
    async def run() -> None:
        async with Api("http://nowhere", transport=httpx.MockTransport(refused)) as api:
            await api.recommendations("a", 1)

    with pytest.raises(httpx.ConnectError):
        asyncio.run(run())
