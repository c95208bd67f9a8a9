"""Middleware of every request: checks its host and size, measures its time, and sets the response headers."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.serve import is_loopback
from recommend_service.access_log import AccessLog
from recommend_service.metrics import Metrics
from recommend_service.problems import Problem, problem_response

MAX_BODY = 2 << 20  # bytes
HEADERS = {
    # Only scripts and styles in files of this server, and no embedding in other sites' frames.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware around the whole app.

    loopback_only: refuse requests whose Host is not a loopback name. Without an API key this protects against DNS
        rebinding, in which a web site points its own name to this machine's address.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, loopback_only: bool, access_log: AccessLog) -> None:
        self._app, self._metrics, self._loopback_only = app, metrics, loopback_only
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            problem = self._problem(Headers(scope=scope))
            if problem is not None:
                await problem_response(problem)(scope, receive, answer)
            else:
                await self._app(scope, _bounded(receive), answer)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, status).inc()
            seconds = time.perf_counter() - began
            self._metrics.seconds.labels(route).observe(seconds)
            caller = scope.get("state", {}).get("caller")
            self._access_log.call(scope["method"], route, status, seconds, caller.scope if caller else "nobody")

    def _problem(self, headers: Headers) -> Problem | None:
        if self._loopback_only and not _names_loopback(headers.get("host", "")):
            return Problem(403, "wrong-host", "without an API key this service answers to 127.0.0.1 and localhost only")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return Problem(413, "too-large", f"a request may have at most {MAX_BODY} bytes")
        return None


def _names_loopback(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _bounded(receive: Receive) -> Receive:
    """Also limits a body sent without its length."""
    read = 0

    async def bounded() -> Any:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > MAX_BODY:
            raise HTTPException(413, f"a request may have at most {MAX_BODY} bytes")
        return message

    return bounded
