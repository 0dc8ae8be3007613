"""Settings of where the work runs. They change no result, and are no part of a stage's fingerprint, with few exceptions.

``cpus`` is the number of threads of one worker, and sums over threads differ in their last bits: it is part of fingerprints. A
GPU computes other last bits than a CPU. What depends on timing on Ray, which candidates of a multi-fidelity search and which
trials of a sweep are stopped early, is decided in order where ``address`` is inline.
"""

from __future__ import annotations

import os
from typing import Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ByteSize, ConfigDict, Field, field_validator

from dfnas_ray.limits import SEVERAL

Placement = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]

ClusterStage: TypeAlias = Literal["synthesis", "search", "retraining"]
"""The stages whose workers have settings of their own, in their order."""

CLUSTER_STAGES: tuple[ClusterStage, ...] = get_args(ClusterStage)

INLINE = "inline"
"""The address of no cluster: this process does the work."""


class WorkerResources(BaseModel):
    """What one worker of a stage holds while it is at work, in Ray's terms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: int = Field(1, gt=0, le=SEVERAL, description="CPUs of one worker, and its threads.")
    gpus: float = Field(0, ge=0, description="GPUs of one worker; a fraction shares one.")
    memory: ByteSize | None = Field(
        None, gt=0, description="Memory that the scheduler sets aside for one worker, such as 8GB."
    )
    custom: dict[str, float] = Field(
        default_factory=dict, description="Further resources of the nodes, by the names the cluster gives them."
    )
    placement: Placement = Field(
        "PACK",
        description="Of workers that start together: on few nodes or on many; STRICT_PACK: on one, STRICT_SPREAD: each on "
        "its own.",
    )
    attempts: int = Field(
        3, gt=0, le=SEVERAL, description="How often work is tried that breaks off, before it is given up."
    )

    @field_validator("custom")
    @classmethod
    def _names_and_amounts(cls, custom: dict[str, float]) -> dict[str, float]:
        for name, amount in custom.items():
            if name in ("CPU", "GPU", "memory", "object_store_memory"):
                raise ValueError(f"{name} has a setting of its own: cpus, gpus or memory.")
            if amount <= 0:
                raise ValueError(f"The amount of {name} must be above 0.")
        return custom

    def bundle(self) -> dict[str, float]:
        """Return amounts by Ray's names, as placement groups and Ray Train take them."""
        amounts = {"CPU": float(self.cpus), "GPU": self.gpus, "memory": float(self.memory or 0), **self.custom}
        return {name: amount for name, amount in amounts.items() if amount}

    def options(self) -> dict[str, Any]:
        """Return the same as options of a Ray task or actor."""
        options: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        if self.memory:
            options["memory"] = int(self.memory)
        if self.custom:
            options["resources"] = dict(self.custom)
        return options

    def setting(self, name: str) -> str:
        """Return what the user calls an amount of `bundle`, below the stage's settings."""
        return {"CPU": "cpus", "GPU": "gpus", "memory": "memory"}.get(name, f"custom.{name}")


class SynthesisResources(WorkerResources):
    """What one synthesis actor holds, and how many there are."""

    actors: int | None = Field(
        None, gt=0, le=SEVERAL, description="Actors at work; by default as many as the cluster has room for."
    )
    placement: Literal["PACK", "SPREAD"] = Field("PACK", description="Fill one node first, or all alike.")


class SearchResources(WorkerResources):
    """What one search trial holds."""

    scoring_workers: int = Field(
        0,
        ge=0,
        le=SEVERAL,
        description="Further places of the same size, where a trial's candidates are scored; 0: its own.",
    )


class RetrainingResources(WorkerResources):
    """What one training worker holds."""


class ClusterConfig(BaseModel):
    """Which Ray cluster, and what each stage takes of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(
        "local",
        description="local: a Ray cluster of its own; auto: the one running here; host:port; ray://host:port. "
        "inline: no Ray, all in this process, on its GPU if torch finds one (CUDA_VISIBLE_DEVICES= keeps it on the CPU).",
    )
    num_cpus: int | None = Field(
        None, gt=0, le=SEVERAL, description="CPUs of a local cluster; by default the machine's."
    )
    num_gpus: int | None = Field(
        None, ge=0, le=SEVERAL, description="GPUs of a local cluster; by default the machine's."
    )
    max_cpus: int | None = Field(None, gt=0, le=SEVERAL, description="CPUs that an autoscaling cluster may grow to.")
    max_gpus: int | None = Field(
        None,
        gt=0,
        le=SEVERAL,
        description="GPUs that an autoscaling cluster may grow to; without max_cpus, their nodes have as many CPUs as their "
        "workers need.",
    )
    synthesis: SynthesisResources = SynthesisResources()
    search: SearchResources = SearchResources()
    retraining: RetrainingResources = RetrainingResources()

    def of(self, stage: ClusterStage) -> WorkerResources:
        """Return what a worker of a stage holds."""
        resources: WorkerResources = getattr(self, stage)
        return resources

    @property
    def is_inline(self) -> bool:
        """Whether this process does the work."""
        return self.address == INLINE

    @property
    def ray_client(self) -> str | None:
        """The address of Ray Client, if that is how the cluster is joined: for auto, Ray looks into RAY_ADDRESS."""
        address = os.environ.get("RAY_ADDRESS", "") if self.address == "auto" else self.address
        return address if address.startswith("ray://") else None
