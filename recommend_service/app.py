"""The recommendation service as a Ray Serve application, whose replicas Serve replaces when they die.

On MongoDB there may be any number of replicas, which share events, new applicants, limits and runs through the store. A
folder store allows one writer of feedback and so one replica. A replica answers hundreds of lists a second.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, HTTPOptions
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

logger = logging.getLogger(__name__)
STORE_URI = "DYNAQ_STORE"  # environment variable
APPLICATION = "recommend"  # name in Ray Serve
BUSY = 8.0  # requests at once per replica above which there should be more: a replica works on them one at a time


@serve.ingress()
class RecommendReplica:
    """Loads the store and the run, then serves the API."""

    async def __init__(self, config: RecommendConfig) -> None:  # type: ignore[misc]
        # Async, so that Serve runs it in the event loop that answers the requests.
        refuse_open_address(config.with_secrets().api_key, served_host(), "the recommender")
        self._service = Recommender(config)
        await self._service.start()  # here, so that Serve reports a failure; the application stops it

    def check_health(self) -> None:
        """Called by Serve, which replaces the replica if this raises."""
        self._service.check_health()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_app(self._service)


def recommend_application(config: RecommendConfig) -> serve.Application:
    """The application, bound to its configuration, for `serve.run`."""
    deployment: Any = serve.deployment(
        name="recommender",
        max_ongoing_requests=512,
        ray_actor_options={"num_cpus": 1},
        health_check_period_s=2,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=30,
        graceful_shutdown_wait_loop_s=0.5,
        **_scaling(config),
    )(RecommendReplica)
    application: serve.Application = deployment.bind(config.with_secrets())
    return application


def _scaling(config: RecommendConfig) -> dict[str, Any]:
    if config.one_replica is not None:
        logger.warning(config.one_replica)
        return {"num_replicas": 1}
    if config.most_replicas == config.replicas:
        return {"num_replicas": config.replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=config.replicas, max_replicas=config.most_replicas, target_ongoing_requests=BUSY
        )
    }


def build(args: dict[str, Any]) -> serve.Application:
    """For `serve run` and serve_config.yaml: the fields of RecommendConfig, or `config: FILE` and overriding fields.

    $DYNAQ_STORE takes the place of a `store` that is not given, as its URI may hold a password.
    """
    args = {"store": os.environ.get(STORE_URI)} | args
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
