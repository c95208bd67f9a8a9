"""Ray Serve over HTTP: starting it, explaining a failed start, and access control.

A service on loopback may go without an API key; on any other address it needs one.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import time

from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.context import _get_global_client

from dynaq.errors import DynaqError, InputError

PROXY_SECONDS = 15.0
QUIET = {"log_level": "WARNING", "enable_access_log": False}


def start_serve(http: HTTPOptions) -> None:
    """Start Serve on the connected Ray, or use the instance that already runs there.

    Raises DynaqError when HTTP is wanted and that instance has none: Serve cannot add it later.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options=http, logging_config=QUIET)
    if http.location == ProxyLocation.Disabled:
        return
    deadline = time.monotonic() + PROXY_SECONDS
    while not serve.status().proxies:
        if time.monotonic() > deadline:
            raise DynaqError(
                "Ray Serve already runs here without HTTP; end what uses it, run `serve shutdown` and start again"
            )
        time.sleep(0.2)


def startup_failure(name: str) -> str:
    """The last line of a failed replica's error message; empty when there is none."""
    try:
        application = serve.status().applications[name]
    except (KeyError, DynaqError, RuntimeError):
        return ""
    messages = [d.message for d in application.deployments.values() if d.message] or [application.message]
    lines = [line for line in messages[0].splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refuse_open_address(api_key: str | None, host: str, what: str) -> None:
    """Raises InputError when anyone on the network could use the service. what: its name in the message."""
    if api_key is None and not is_loopback(host):
        raise InputError(
            f"{what} would answer anyone on {host}; set an API key (api_key or $DYNAQ_API_KEY) or use 127.0.0.1"
        )


def served_host() -> str:
    """The address on which this cluster's Serve listens; `serve deploy` takes it from its YAML, not from our config."""
    client = _get_global_client()
    return "127.0.0.1" if client is None else str(client.http_config.host)


def key_matches(given: str | None, key: str) -> bool:
    """Whether a bearer token is the key, compared in constant time."""
    return given is not None and hmac.compare_digest(given.encode(), key.encode())


def shown_address(host: str, port: int) -> str:
    """HTTP URL of an address; IPv6 addresses get their brackets."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
