"""Ray Serve over HTTP: starting it, explaining a failed start, and access control.

A service on loopback may go without an API key; on any other address it needs one.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import time

import ray
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.context import _get_global_client

from cluster.ports import refuse_taken_port
from dynaq.errors import DynaqError, InputError

HEAD = "node:__internal_head__"  # Ray's resource that only the head node has
PROXY_SECONDS = 15.0
QUIET = {"log_level": "WARNING", "enable_access_log": False}


def start_serve(http: HTTPOptions) -> None:
    """Start Serve on the connected Ray, or use the instance that already runs there.

    Raises DynaqError when HTTP is wanted and that instance has none, or another address: Serve cannot change it later.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options=http, logging_config=QUIET)
    if http.location == ProxyLocation.Disabled:
        return
    client = _get_global_client()
    assert client is not None  # Serve has just been started
    running = client.http_config
    if running.location != ProxyLocation.Disabled and (running.host, running.port) != (http.host, http.port):
        raise DynaqError(
            f"Ray Serve already runs here and listens on {running.host}, port {running.port}; give these as --host and "
            "--port, or end what uses it and run `serve shutdown`"
        )
    deadline = time.monotonic() + PROXY_SECONDS
    while not serve.status().proxies:
        if time.monotonic() > deadline:
            raise DynaqError(
                "Ray Serve already runs here without HTTP; end what uses it, run `serve shutdown` and start again"
            )
        time.sleep(0.2)


def check_head_port(host: str, port: int) -> None:
    """Check that the connected cluster's head node can listen there, unless its Serve already does.

    Raises InputError as `cluster.ports.held_port` does.
    """
    if _get_global_client(raise_if_no_controller_running=False) is not None:
        return
    check = ray.remote(num_cpus=0, resources={HEAD: 0.001})(refuse_taken_port)
    try:
        ray.get(check.remote(host, port))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None
        raise


def refuse_running(name: str, what: str) -> None:
    """Raises DynaqError when an application of this name runs on the connected cluster. what: its name in the error."""
    application = serve.status().applications.get(name)
    if application is not None and application.status in ("DEPLOYING", "RUNNING", "UNHEALTHY"):
        raise DynaqError(f"{what} runs on this cluster already; end it before you start it anew")


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
