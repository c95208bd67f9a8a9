"""The judge as a Ray Serve application: one engine per replica, batching left to the engine.

One call carries many pairs and becomes as many concurrent requests to the engine; `serve.batch` would wait for its
slowest item. Calls for one applicant go to the same replica (consistent hashing on the applicant's id), whose prefix
cache holds the profile.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle

from dynaq.errors import DynaqError, JudgeError
from dynaq.judge import Judgement
from dynaq.records import Candidate, Job
from reward_service.client import ServeJudge
from reward_service.config import JudgeConfig
from reward_service.engine import Engine, VllmEngine
from reward_service.errors import JudgeBusy
from reward_service.judging import LLMJudge
from reward_service.model import resolve_model

_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


class JudgeReplica:
    """One engine and the judge in front of it."""

    async def __init__(self, config: JudgeConfig) -> None:  # type: ignore[misc]
        # Async, so that Serve runs it in the event loop in which the engine's answers arrive.
        self._config = config
        self._judge = LLMJudge(config, make_engine(config))
        self._pending = 0
        self._judged = 0
        self._started = time.time()

    async def judge(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """Raises JudgeBusy past `max_pending_pairs`, JudgeUnavailable when the engine is gone."""
        if self._pending and self._pending + len(jobs) > self._config.max_pending_pairs:
            raise JudgeBusy(
                f"the judge holds {self._pending} pairs and takes at most {self._config.max_pending_pairs}; ask again"
            )
        self._pending += len(jobs)
        try:
            judgements = await self._judge.judge_async(applicant, jobs)
        finally:
            self._pending -= len(jobs)
        self._judged += len(jobs)
        return judgements

    async def status(self) -> dict[str, Any]:
        """Counters of this replica."""
        return {"pending_pairs": self._pending, "judged_pairs": self._judged, "started": self._started}

    async def check_health(self) -> None:
        """Called by Serve, which replaces the replica when this raises."""
        await self._judge.engine.check_health()


def make_engine(config: JudgeConfig) -> Engine:
    """The engine that the configuration names. Needs a running event loop."""
    return VllmEngine(config)


def judge_deployment(config: JudgeConfig) -> serve.Application:
    """The replicas, without HTTP."""
    scaling: dict[str, Any] = {"num_replicas": config.replicas}
    if config.max_replicas and config.max_replicas > config.replicas:
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=config.replicas,
                max_replicas=config.max_replicas,
                target_ongoing_requests=max(1.0, config.max_ongoing_requests / 2),
            )
        }
    deployment: Any = serve.deployment(  # plain keyword arguments: its decorator form has no useful type
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


def start_judge(config: JudgeConfig, *, name: str = "judge") -> ServeJudge:
    """Bring the judge up on the Ray this process is connected to, without HTTP; returns when it can answer.

    On CPU an engine takes about 45 s to start, most of it imports. Raises JudgeError when it does not come up.
    """
    if config.endpoint is None:
        resolve_model(config.model)  # converts the packaged model here, once, where a failure can be read
    serve.start(proxy_location="Disabled")
    try:
        handle: DeploymentHandle[Any] = serve.run(judge_deployment(config), name=name, route_prefix=None)
    except RuntimeError as error:
        raise JudgeError(f"judge {name!r} did not start: {startup_failure(name) or error}") from error
    return ServeJudge(handle, config.fingerprint)


def stop_judge(name: str = "judge") -> None:
    """Let the judge finish what it accepted and take it down, its engine with it."""
    serve.delete(name)


def startup_failure(name: str) -> str:
    """The last line of what a replica said when it failed to start, or nothing."""
    try:
        application = serve.status().applications[name]
    except (KeyError, DynaqError, RuntimeError):
        return ""
    messages = [d.message for d in application.deployments.values() if d.message] or [application.message]
    lines = [line for line in messages[0].splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _gpus(config: JudgeConfig) -> int:
    """GPUs for each replica: as many as the tensors are split over, where the cluster has any."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return config.tensor_parallel_size if resources.get("GPU", 0) >= 1 else 0
