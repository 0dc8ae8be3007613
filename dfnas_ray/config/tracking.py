"""Services that track searches and sweeps, and collect the curves of many runs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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
