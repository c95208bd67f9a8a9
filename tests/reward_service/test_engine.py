"""What the engine reads from vLLM's answers."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import pytest

from reward_service import engine as engine_module
from reward_service.config import JudgeConfig
from reward_service.engine import VllmEngine, _set_environment, executor

BEFORE, AFTER = [1, 2, 3, 4], [5, 6]
CACHED = 2


def answer(given: list[float | None]) -> Any:
    """vLLM's flat form: one value per position, none for a prompt's first token."""
    values = [value for value in given if value is not None]
    starts = [sum(value is not None for value in given[:i]) for i in range(len(given))]
    return SimpleNamespace(
        num_cached_tokens=CACHED, prompt_logprobs=SimpleNamespace(logprobs=values, start_indices=starts)
    )


@pytest.mark.parametrize(
    "given",
    [[None, 0.0, 0.0, -3.0, -5.0, -6.0], [None, -3.0, -5.0, -6.0]],
    ids=["cached tokens have undefined values", "cached tokens are left out"],
)
def test_the_continuation_is_read_whatever_a_model_runner_does_with_cached_tokens(
    given: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def score(ids: list[int], start: int, skip_cache: bool) -> Any:
        return answer(given)

    engine = VllmEngine.__new__(VllmEngine)
    engine._reads_cache, engine._asked = True, {}  # type: ignore[assignment]
    monkeypatch.setattr(engine, "_score", score)
    assert asyncio.run(engine._logprobs(BEFORE, AFTER)) == [-5.0, -6.0]


@pytest.mark.parametrize(("replicas", "threads"), [(1, "8"), (2, "4"), (16, "1")])
def test_the_engines_of_a_machine_share_its_cores_whatever_ray_allows_a_replica(
    replicas: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_on_cpu", lambda: True)
    monkeypatch.setattr(engine_module.joblib, "cpu_count", lambda only_physical_cores: 8)
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "1"})  # as Ray sets it
    _set_environment(JudgeConfig(replicas=replicas))
    assert os.environ["OMP_NUM_THREADS"] == threads


@pytest.mark.parametrize(
    ("on_cpu", "workers", "chosen"),
    [(True, 1, "UniProcExecutor"), (True, 2, "mp"), (False, 1, "None"), (False, 2, "mp")],
)
def test_only_several_workers_get_processes_of_their_own(
    on_cpu: bool, workers: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_on_cpu", lambda: on_cpu)
    assert str(executor(JudgeConfig(tensor_parallel_size=workers))).endswith(chosen)
