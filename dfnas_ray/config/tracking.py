"""Services that track searches and sweeps, and collect the curves of many runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from dfnas_ray.errors import ConfigError


class MlflowConfig(BaseModel):
    """MLflow: a run for each trial. Needs the extra ``mlflow``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tracking_uri: str | None = Field(
        None, description="Server or store, such as http://host:5000; by default that of MLFLOW_TRACKING_URI."
    )
    experiment: str | None = Field(None, description="Name of the experiment; by default that of this file.")


class WandbConfig(BaseModel):
    """Weights & Biases: a run for each trial. Needs the extra ``wandb``, and an API key in WANDB_API_KEY."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: str = Field("dfnas-ray", description="Name of the project.")
    entity: str | None = Field(None, description="User or team.")
    mode: Literal["online", "offline"] = Field(
        "online", description="offline: write files that `wandb sync` sends later."
    )


class TrackingConfig(BaseModel):
    """Trackers besides TensorBoard: Ray Tune reports trials of searches and sweeps. No result depends on them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mlflow: MlflowConfig | None = None
    wandb: WandbConfig | None = None

    @property
    def is_on(self) -> bool:
        """Whether there is any tracker."""
        return self.mlflow is not None or self.wandb is not None

    def check_lasting(self, local_run_dir: bool, environment: Mapping[str, str] | None = None) -> None:
        """Make sure that a submitted job leaves nothing of the trackers in its working directory, which is deleted.

        Args:
            local_run_dir: Whether the run directory is a folder, not in an object store.
            environment: The environment variables of the job; None before it is sent, when they are not known.

        Raises:
            ConfigError: something would be lost.
        """
        known: Mapping[str, str] = environment or {}
        lost = []
        if self.mlflow is not None:
            name, store = "tracking.mlflow.tracking_uri", self.mlflow.tracking_uri
            if store is None and environment is not None:
                name, store = "MLFLOW_TRACKING_URI of the cluster", known.get("MLFLOW_TRACKING_URI", "")
            if store is not None and _is_relative(store):
                given = f"{name} ({store}) is relative" if store else "no MLflow server is named"
                lost.append(
                    f"{given}: set tracking.mlflow.tracking_uri, or MLFLOW_TRACKING_URI on the cluster's head, to a server "
                    "(http://HOST:5000) or an absolute path on shared storage"
                )
        has_place = local_run_dir or Path(known.get("WANDB_DIR", "")).is_absolute()
        if self.wandb is not None and self.wandb.mode == "offline" and not has_place:
            lost.append(
                "tracking.wandb.mode is offline, and its files cannot be written to an object store: set it to online, or "
                "run_dir to the absolute path of a shared folder"
            )
        if lost:
            raise ConfigError(
                "Data of trackers would be in the job's working directory, which is deleted after the job: "
                f"{'; '.join(lost)}."
            )


def _is_relative(store: str) -> bool:
    """Whether an MLflow store is a file or folder below the current directory."""
    scheme, _, path, *_ = urlsplit(store)
    if scheme.partition("+")[0] == "sqlite":  # sqlite:///relative.db, sqlite:////absolute.db
        return not path.removeprefix("/").startswith("/")
    if scheme in ("", "file"):
        return not path.startswith("/") and path not in ("databricks", "databricks-uc", "uc")
    return False
