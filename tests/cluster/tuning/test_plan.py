"""The scheduler ends settings that lag behind others of their strategy, and no strategy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ray.tune.schedulers import TrialScheduler

from cluster.tuning.plan import PROGRESS, SCORE, PerStrategy, Plan
from cluster.tuning.space import Space


@dataclass
class Trial:
    trial_id: str
    config: dict[str, Any]
    status: str = "RUNNING"
    last_result: dict[str, Any] = field(default_factory=dict)


def decisions(scores: dict[tuple[str, float], float]) -> dict[tuple[str, float], str]:
    """What becomes of trials (strategy, gamma) that report these scores halfway, one after another."""
    plan = Plan(("llm", "cosine"), (0,), Space({"gamma": [0.1, 0.2, 0.3, 0.4]}), scheduler="asha")
    scheduler = PerStrategy(plan)
    scheduler.set_search_properties(SCORE, "max")
    found = {}
    for (strategy, gamma), score in scores.items():
        trial = Trial(f"{strategy}{gamma}", {"strategy": strategy, "seed": 0, "gamma": gamma})
        scheduler.on_trial_add(None, trial)
        found[strategy, gamma] = scheduler.on_trial_result(None, trial, {SCORE: score, PROGRESS: 50.0})
    return found


def test_a_lagging_setting_is_ended_and_a_lagging_strategy_is_not() -> None:
    found = decisions({("llm", 0.1): 0.9, ("llm", 0.2): 0.8, ("llm", 0.3): 0.2, ("cosine", 0.1): 0.1})
    assert found["llm", 0.1] == TrialScheduler.CONTINUE
    assert found["llm", 0.3] == TrialScheduler.STOP
    assert found["cosine", 0.1] == TrialScheduler.CONTINUE


def test_an_unknown_score_ends_nothing() -> None:
    found = decisions({("llm", 0.1): 0.9, ("llm", 0.2): float("nan")})
    assert found["llm", 0.2] == TrialScheduler.CONTINUE
