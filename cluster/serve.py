"""Ray Serve behind HTTP: starting it quietly, why an application did not come up, and who may call it.

Anyone on loopback may call, elsewhere whoever has the API key.
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
    """Start Serve on the Ray this process is connected to; one that runs already is used as it is.

    Raises DynaqError when HTTP is asked for and the Serve that runs has none: that is settled by its first start.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options=http, logging_config=QUIET)
    if http.location == ProxyLocation.Disabled:
        return
    deadline = time.monotonic() + PROXY_SECONDS
    while not serve.status().proxies:
        if time.monotonic() > deadline:
            raise DynaqError(
                "Ray Serve runs on this Ray already, without HTTP; end what uses it, `serve shutdown`, and start again"
            )
        time.sleep(0.2)


def startup_failure(name: str) -> str:
    """The last line of what a replica said when it failed to start, or nothing."""
    try:
        application = serve.status().applications[name]
    except (KeyError, DynaqError, RuntimeError):
        return ""
    messages = [d.message for d in application.deployments.values() if d.message] or [application.message]
    lines = [line for line in messages[0].splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine reaches what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refuse_open_address(api_key: str | None, host: str, what: str) -> None:
    """Raises InputError when anyone on the network could use `what`."""
    if api_key is None and not is_loopback(host):
        raise InputError(
            f"{what} would answer anyone on {host}; set an API key (api_key or $DYNAQ_API_KEY) or use 127.0.0.1"
        )


def served_host() -> str:
    """The address on which this cluster's Serve listens: the YAML of `serve deploy` sets it outside of our reach."""
    client = _get_global_client()
    return "127.0.0.1" if client is None else str(client.http_config.host)


def key_matches(given: str | None, key: str) -> bool:
    """Whether a bearer token is the key; takes as long whatever it is."""
    return given is not None and hmac.compare_digest(given.encode(), key.encode())


def shown_address(host: str, port: int) -> str:
    """The URL of an address."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
