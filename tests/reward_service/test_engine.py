"""What the engine reads from vLLM's answers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from reward_service.engine import VllmEngine

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
