"""How many replicas the application gets."""

from __future__ import annotations

from typing import Any

import pytest

from dynaq.errors import InputError
from recommend_service.app import build, recommend_application
from recommend_service.config import RecommendConfig

MONGO = "mongodb://127.0.0.1/market"


def deployment(store: str, **settings: Any) -> Any:
    return recommend_application(RecommendConfig(store=store, run="r", **settings))._bound_deployment


def test_on_mongodb_there_are_as_many_replicas_as_asked_for() -> None:
    assert deployment(MONGO)._deployment_config.num_replicas == 1
    assert deployment(MONGO, replicas=3)._deployment_config.num_replicas == 3
    scaling = deployment(MONGO, replicas=2, max_replicas=8)._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 8)


@pytest.mark.parametrize("more", [{"replicas": 2}, {"max_replicas": 4}])
def test_a_folder_stays_at_one_replica_and_says_so(more: dict[str, int], caplog: pytest.LogCaptureFixture) -> None:
    made = deployment("data/store", **more)._deployment_config
    assert (made.num_replicas, made.autoscaling_config) == (1, None)
    said = f"a folder has one writer of feedback, so it gets one replica, not {max(more.values())}; use mongodb://"
    assert RecommendConfig(store="data/store", run="r", **more).one_replica == said
    assert said in caplog.text
    assert RecommendConfig(store="data/store", run="r").one_replica is None


def test_the_store_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNAQ_STORE", MONGO)
    assert build({"run": "r"})._bound_deployment.init_args[0].store == MONGO
    assert build({"run": "r", "store": "s"})._bound_deployment.init_args[0].store == "s"
    monkeypatch.delenv("DYNAQ_STORE")
    with pytest.raises(InputError, match="needs store"):
        build({"run": "r"})
