"""The judge as a Ray Serve application: one engine per replica, batching left to the engine.

One call carries many pairs and becomes as many concurrent requests to the engine; `serve.batch` would wait for the
slowest one of each batch. Calls for one applicant go to the same replica (consistent hashing on the applicant's id),
whose prefix cache holds the profile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, HTTPOptions, ProxyLocation
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.serve import refuse_open_address, refuse_running, shown_address, start_serve, startup_failure
from dynaq.errors import JudgeError
from dynaq.judging.history import without_memory
from dynaq.judging.judgement import Judgement
from dynaq.records import Candidate, Job
from reward_service.api import JudgeApi
from reward_service.client import ServeJudge
from reward_service.config import JudgeConfig
from reward_service.engine import Engine, VllmEngine
from reward_service.errors import JudgeBusy
from reward_service.judge_metrics import ReplicaMetrics
from reward_service.llm_judge import LLMJudge
from reward_service.model import resolve_model
from reward_service.openai_engine import PATIENCE, OpenAIEngine
from reward_service.paid_judge import judge_on

_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


class JudgeReplica:
    """One engine and the judge in front of it."""

    async def __init__(self, config: JudgeConfig) -> None:  # type: ignore[misc]
        # Async, so that Serve runs it in the event loop of the methods: the engine's output handler starts there.
        self._config = config
        self._judge = judge_on(config, await make_engine(config))
        self._variants: dict[str, LLMJudge] = {}
        self._pending = 0
        self._judged = 0
        self._metrics = ReplicaMetrics()

    async def judge(
        self, applicant: Candidate, jobs: Sequence[Job], variant: Mapping[str, Any] | None = None
    ) -> list[Judgement]:
        """One judgement per job. Raises JudgeBusy above `max_pending_pairs`, JudgeUnavailable if the engine died."""
        judge, began = self._of(variant), time.monotonic()
        with self._held(len(jobs)):
            judgements = await judge.judge_async(applicant, jobs)
        self._judged += len(jobs)
        self._metrics.answered(judge.fingerprint, judgements, time.monotonic() - began)
        return judgements

    async def scores(
        self, applicant: Candidate, jobs: Sequence[Job], variant: Mapping[str, Any] | None = None
    ) -> list[float]:
        """Raw `likelihood` scores, for calibration. Raises as `judge`."""
        with self._held(len(jobs)):
            return await self._of(variant).scores(applicant, jobs)

    async def orders(
        self, applicant: Candidate, jobs: Sequence[Job], variant: Mapping[str, Any] | None = None
    ) -> list[list[tuple[float, ...]]]:
        """`choice` under each order of the options, for `dynaq judge --check`. Raises as `judge`."""
        with self._held(len(jobs)):
            return await self._of(variant).orders(applicant, jobs)

    @contextmanager
    def _held(self, pairs: int) -> Iterator[None]:
        limit = self._config.max_pending_pairs
        if self._pending and self._pending + pairs > limit:
            raise JudgeBusy(f"the judge holds {self._pending} pairs and takes at most {limit}; try again")
        self._pending += pairs
        self._metrics.pending(self._pending)
        try:
            yield
        finally:
            self._pending -= pairs
            self._metrics.pending(self._pending)

    def _of(self, variant: Mapping[str, Any] | None) -> LLMJudge:
        """The judge with some configuration fields of the method replaced, on the same engine."""
        if not variant:
            return self._judge
        key = repr(sorted(variant.items()))
        if key not in self._variants:
            config = JudgeConfig(**(self._config.model_dump(exclude_none=True) | dict(variant)))
            self._variants[key] = judge_on(config, self._judge.engine)
        return self._variants[key]

    async def fingerprint(self) -> str:
        """The judge's key in the ledger."""
        return self._judge.fingerprint

    async def status(self) -> dict[str, Any]:
        """Counters of this replica."""
        return {"pending_pairs": self._pending, "judged_pairs": self._judged, "process": os.getpid()}

    async def check_health(self) -> None:
        """Called by Serve, which replaces the replica if this raises."""
        await self._judge.engine.check_health()


async def make_engine(config: JudgeConfig) -> Engine:
    """The configured engine, in the running event loop."""
    if config.endpoint is not None:
        endpoint = OpenAIEngine(config, patience=PATIENCE)
        await endpoint.probe()
        return endpoint
    engine = VllmEngine(config)
    await engine.warm_up()
    return engine


def judge_deployment(config: JudgeConfig) -> serve.Application:
    """The replicas, without HTTP."""
    config = config.with_secrets()
    scaling: dict[str, Any] = {"num_replicas": config.replicas}
    if config.max_replicas and config.max_replicas > config.replicas:
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=config.replicas,
                max_replicas=config.max_replicas,
                target_ongoing_requests=max(1.0, config.max_ongoing_requests / 2),
            )
        }
    deployment: Any = serve.deployment(  # Any, because only its decorator form has a useful type
        name="judge",
        max_ongoing_requests=config.max_ongoing_requests,
        max_queued_requests=config.max_queued_requests,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": _gpus(config)},
        health_check_period_s=2,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=120,
        graceful_shutdown_wait_loop_s=0.5,
        request_router_config={"request_router_class": _ROUTER},
        **scaling,
    )(JudgeReplica)
    application: serve.Application = deployment.bind(config)
    return application


def reward_application(config: JudgeConfig) -> serve.Application:
    """The replicas with the HTTP API in front."""
    config = config.with_secrets()
    ingress: Any = serve.deployment(
        name="api",
        max_ongoing_requests=4096,  # high, because the judge's own queue refuses excess calls, with 429
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=120,
        graceful_shutdown_wait_loop_s=0.5,
    )(JudgeApi)
    application: serve.Application = ingress.bind(config, judge_deployment(config))
    return application


def build(args: dict[str, Any]) -> serve.Application:
    """For `serve run` and serve_config.yaml: the fields of JudgeConfig, or `config: FILE` and overriding fields."""
    args = dict(args)
    return reward_application(JudgeConfig.load(args.pop("config", None), **args))


def start_judge(config: JudgeConfig, *, name: str = "judge") -> ServeJudge:
    """Start the judge, without HTTP, on the Ray cluster of this process; returns when it can answer.

    A judge that already runs under this name with the same fingerprint is reused, and so is the same judge with memory,
    which says the same when it is told no history. On CPU an engine takes about 45 s to start, most of it imports.
    Raises JudgeError when it does not start.
    """
    running = running_judge(name)
    if running is not None and config.fingerprint in (running.fingerprint, without_memory(running.fingerprint)):
        return ServeJudge(serve.get_deployment_handle("judge", name), config.fingerprint)
    start_serve(HTTPOptions(location=ProxyLocation.Disabled))
    _deploy(config, judge_deployment(config), name, route_prefix=None)
    return ServeJudge(serve.get_deployment_handle("judge", name), config.fingerprint)


def start_service(
    config: JudgeConfig, *, host: str = "127.0.0.1", port: int = 8000, name: str = "judge", route: str = "/"
) -> str:
    """Start the judge with its HTTP API below `route`; returns its URL when the engine can answer.

    Raises InputError for a non-loopback address without an API key, JudgeError when the judge does not start,
    DynaqError when its address or its name is taken.
    """
    refuse_open_address(config.with_secrets().api_key, host, "the judge")
    start_serve(HTTPOptions(host=host, port=port))
    refuse_running(name, "the judge")
    _deploy(config, reward_application(config), name, route_prefix=route)
    return shown_address(host, port) + route.rstrip("/")


def running_judge(name: str = "judge") -> ServeJudge | None:
    """The judge running under this name on this cluster, or None."""
    try:
        application = serve.status().applications.get(name)
        if application is None or application.status != "RUNNING" or "judge" not in application.deployments:
            return None
        handle: DeploymentHandle[Any] = serve.get_deployment_handle("judge", name)
        return ServeJudge(handle, handle.fingerprint.remote().result(timeout_s=30))
    except (RayServeException, TimeoutError):
        return None


def stop_judge(name: str = "judge") -> None:
    """Stop the judge and its engine after it has finished the calls it accepted."""
    serve.delete(name)


def _deploy(config: JudgeConfig, application: serve.Application, name: str, *, route_prefix: str | None) -> None:
    if config.endpoint is None:
        resolve_model(config.model)  # converts the packaged model here, so that a failure is reported to the user
    try:
        serve.run(application, name=name, route_prefix=route_prefix, logging_config={"log_level": "WARNING"})
    except (RuntimeError, RayServeException) as error:
        raise JudgeError(f"judge {name!r} did not start: {startup_failure(name) or error}") from error


def _gpus(config: JudgeConfig) -> float:
    """GPUs per replica if the cluster has GPUs, else 0."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if config.endpoint is not None or resources.get("GPU", 0) < 1:
        return 0
    return config.tensor_parallel_size if config.num_gpus is None else config.num_gpus
