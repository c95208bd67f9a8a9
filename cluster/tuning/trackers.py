"""Experiment trackers, through Ray Tune's own callbacks. Users install their packages themselves."""

from __future__ import annotations

import importlib.util
import logging

from ray.tune import Callback

from dynaq.errors import InputError


def trackers(mlflow: str | None, wandb: str | None, experiment: str) -> list[Callback]:
    """Callbacks for MLflow's tracking URI and for a project of Weights & Biases.

    Raises InputError when the package of a requested tracker is not installed.
    """
    found: list[Callback] = []
    if mlflow:
        _need("mlflow", "--mlflow")
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        found.append(MLflowLoggerCallback(tracking_uri=mlflow, experiment_name=experiment, save_artifact=False))
    if wandb:
        _need("wandb", "--wandb")
        from ray.air.integrations.wandb import WandbLoggerCallback

        # Training reports once a round; wandb's own messages would break into the live table.
        logging.getLogger("wandb").setLevel(logging.ERROR)
        found.append(WandbLoggerCallback(project=wandb, group=experiment))
    return found


def _need(package: str, option: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise InputError(f"{option} needs the package {package}, which is not installed: pip install {package}")
