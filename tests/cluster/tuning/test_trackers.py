"""Trackers come through Tune's own callbacks; a small module stands in for MLflow's client, which is not installed."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cluster.tuning.trackers import trackers
from dynaq.errors import InputError


@pytest.mark.parametrize(("mlflow", "wandb"), [("http://127.0.0.1:1", None), (None, "project")])
def test_a_tracker_without_its_package_is_an_input_error(mlflow: str | None, wandb: str | None) -> None:
    name = "mlflow" if mlflow else "wandb"
    with pytest.raises(InputError, match=f"--{name} needs the package {name}, which is not installed"):
        trackers(mlflow, wandb, "mine")


def test_nothing_is_tracked_unless_it_is_asked_for() -> None:
    assert trackers(None, None, "mine") == []


class Recorder(ModuleType):
    """A package that is there and notes how it is called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.calls: list[tuple[str, Any]] = []

    def set_tracking_uri(self, uri: str) -> None:
        self.calls.append(("tracking_uri", uri))

    def set_registry_uri(self, uri: str | None) -> None:
        self.calls.append(("registry_uri", uri))

    def get_experiment_by_name(self, name: str) -> Any:
        self.calls.append(("experiment", name))
        return SimpleNamespace(experiment_id="1")

    def set_experiment(self, experiment_id: str) -> None:
        self.calls.append(("set_experiment", experiment_id))


def test_mlflow_gets_the_tracking_uri_and_the_runs_name(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder("mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", recorder)
    [callback] = trackers("http://127.0.0.1:5000", None, "mine")
    callback.setup()
    assert ("tracking_uri", "http://127.0.0.1:5000") in recorder.calls
    assert ("experiment", "mine") in recorder.calls


def test_weights_and_biases_gets_project_and_group(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.air.integrations.wandb as integration

    monkeypatch.setitem(sys.modules, "wandb", Recorder("wandb"))
    monkeypatch.setattr(integration, "wandb", sys.modules["wandb"])
    [callback] = trackers(None, "jobs", "mine")
    assert isinstance(callback, integration.WandbLoggerCallback)
    assert (callback.project, callback.group) == ("jobs", "mine")
