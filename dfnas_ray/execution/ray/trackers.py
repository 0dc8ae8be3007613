"""Trackers (MLflow, Weights & Biases), through Ray Tune's callbacks for them."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from ray import tune

from dfnas_ray.config.tracking import TrackingConfig
from dfnas_ray.errors import ConfigError


def callbacks(tracking: TrackingConfig, name: str, folder: Path | None) -> list[tune.Callback]:
    """Return the callbacks of the trackers that the settings ask for. They must have passed `check_installed`.

    Args:
        tracking: The settings of the trackers.
        name: The name of the experiment.
        folder: The folder for the files of Weights & Biases; None for its default.
    """
    found: list[tune.Callback] = []
    if tracking.mlflow is not None:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        given = tracking.mlflow
        found.append(
            MLflowLoggerCallback(tracking_uri=given.tracking_uri, experiment_name=given.experiment or name, tags={})
        )
    if tracking.wandb is not None:
        from ray.air.integrations.wandb import WandbLoggerCallback

        if tracking.wandb.mode == "offline":
            os.environ["WANDB_MODE"] = "offline"  # Ray's callback asks for a key otherwise
        found.append(
            WandbLoggerCallback(
                project=tracking.wandb.project,
                group=name,
                entity=tracking.wandb.entity,
                mode=tracking.wandb.mode,
                **({} if folder is None else {"dir": str(folder)}),
            )
        )
    return found


def check_installed(tracking: TrackingConfig) -> None:
    """Make sure that the packages of the trackers are installed.

    Raises:
        ConfigError: a package is missing.
    """
    for setting, package in (("mlflow", "mlflow"), ("wandb", "wandb")):
        if getattr(tracking, setting) is not None and importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"tracking.{setting} needs {package}. Install it (pip install 'dfnas-ray[{setting}]'), or remove the setting."
            )
