"""The recommendation service as a Ray Serve application: one replica, which Serve replaces when it dies.

There is one replica because a folder store allows one writer of feedback, and because a job that an applicant has
declined must be missing from their very next list. A replica answers hundreds of lists a second.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.exceptions import RayServeException

from cluster.serve import (
    QUIET,
    refuse_open_address,
    refuse_running,
    served_host,
    shown_address,
    start_serve,
    startup_failure,
)
from dynaq.errors import DynaqError
from recommend_service.api import make_app
from recommend_service.config import RecommendConfig
from recommend_service.service import Recommender

APPLICATION = "recommend"  # name in Ray Serve


@serve.ingress()
class RecommendReplica:
    """Loads the store and the run, then serves the API."""

    async def __init__(self, config: RecommendConfig) -> None:  # type: ignore[misc]
        # Async, so that Serve runs it in the event loop that answers the requests.
        refuse_open_address(config.with_secrets().api_key, served_host(), "the recommender")
        self._service = Recommender(config)
        await self._service.start()  # here, so that Serve reports a failure; the application stops it

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_app(self._service)


def recommend_application(config: RecommendConfig) -> serve.Application:
    """The application, bound to its configuration, for `serve.run`."""
    deployment: Any = serve.deployment(
        name="recommender",
        num_replicas=1,
        max_ongoing_requests=512,
        ray_actor_options={"num_cpus": 1},
        health_check_period_s=2,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=30,
        graceful_shutdown_wait_loop_s=0.5,
    )(RecommendReplica)
    application: serve.Application = deployment.bind(config.with_secrets())
    return application


def build(args: dict[str, Any]) -> serve.Application:
    """For `serve run` and serve_config.yaml: the fields of RecommendConfig, or `config: FILE` and overriding fields."""
    args = dict(args)
    return recommend_application(RecommendConfig.load(args.pop("config", None), **args))


def start_recommender(config: RecommendConfig, *, host: str = "127.0.0.1", port: int = 8000) -> str:
    """Start the service on the Ray cluster of this process; returns its address when it answers.

    Raises InputError for a non-loopback address without an API key, DynaqError when the service does not start or its
    address or name is taken.
    """
    refuse_open_address(config.with_secrets().api_key, host, "the recommender")
    start_serve(HTTPOptions(host=host, port=port))
    refuse_running(APPLICATION, "the recommender")
    try:
        serve.run(recommend_application(config), name=APPLICATION, route_prefix="/", logging_config=QUIET)
    except (RuntimeError, RayServeException) as error:
        raise DynaqError(f"the recommender did not start: {startup_failure(APPLICATION) or error}") from error
    return shown_address(host, port)


def stop_recommender() -> None:
    """Stop the service after it has written what it accepted."""
    serve.delete(APPLICATION)
