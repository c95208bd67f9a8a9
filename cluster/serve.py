"""Ray Serve behind HTTP: starting it quietly, and finding out why an application did not come up."""

from __future__ import annotations

import logging
import time

from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation

from dynaq.errors import DynaqError

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
