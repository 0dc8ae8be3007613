"""Settings of where the work runs. With few exceptions they change no result and are not part of a stage's fingerprint.

``cpus`` is the number of threads of one worker. It is part of fingerprints, because sums over threads differ in their
last bits. The results of a GPU differ from those of a CPU in their last bits, too. On Ray, timing decides which
candidates of a multi-fidelity search and which trials of a sweep are stopped early. With ``address: inline`` their
order decides.
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
"""The address that means no cluster: this process does the work."""


class WorkerResources(BaseModel):
    """The resources of one worker of a stage, in Ray's terms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: int = Field(1, gt=0, le=SEVERAL, description="CPUs of one worker; also its number of threads.")
    gpus: float = Field(0, ge=0, description="GPUs of one worker; with a fraction, several workers share a GPU.")
    memory: ByteSize | None = Field(
        None, gt=0, description="Memory that the scheduler sets aside for one worker, such as 8GB."
    )
    custom: dict[str, float] = Field(
        default_factory=dict, description="Custom resources of one worker, by the names that the cluster gives them."
    )
    placement: Placement = Field(
        "PACK",
        description="Nodes of workers that start together. PACK: few; SPREAD: many; STRICT_PACK: one; STRICT_SPREAD: "
        "one for each worker.",
    )
    attempts: int = Field(
        3, gt=0, le=SEVERAL, description="How often failing work is tried before the command gives up."
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
        """Return the amounts by Ray's names, in the form of placement groups and Ray Train."""
        amounts = {"CPU": float(self.cpus), "GPU": self.gpus, "memory": float(self.memory or 0), **self.custom}
        return {name: amount for name, amount in amounts.items() if amount}

    def options(self) -> dict[str, Any]:
        """Return the same amounts as options of a Ray task or actor."""
        options: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        if self.memory:
            options["memory"] = int(self.memory)
        if self.custom:
            options["resources"] = dict(self.custom)
        return options

    def setting(self, name: str) -> str:
        """Return the setting of a stage that gives an amount of `bundle`."""
        return {"CPU": "cpus", "GPU": "gpus", "memory": "memory"}.get(name, f"custom.{name}")


class SynthesisResources(WorkerResources):
    """The resources of one synthesis actor, and the number of actors."""

    actors: int | None = Field(
        None, gt=0, le=SEVERAL, description="Number of actors; by default as many as the cluster has room for."
    )
    placement: Literal["PACK", "SPREAD"] = Field(
        "PACK", description="PACK: fill one node first; SPREAD: fill all nodes evenly."
    )


class SearchResources(WorkerResources):
    """The resources of one search trial."""

    scoring_workers: int = Field(
        0,
        ge=0,
        le=SEVERAL,
        description="Further workers of the same size that score a trial's candidates; 0: only the trial's own.",
    )


class RetrainingResources(WorkerResources):
    """The resources of one training worker."""


class ClusterConfig(BaseModel):
    """The Ray cluster, and the resources of each stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(
        "local",
        description="local: start a Ray cluster; auto: use the one running here; or host:port, or ray://host:port. "
        "inline: no Ray, all work in this process, on the GPU if torch finds one (CUDA_VISIBLE_DEVICES= keeps it "
        "on the CPU).",
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
        description="GPUs that an autoscaling cluster may grow to; without max_cpus, GPU nodes are taken to have "
        "enough CPUs for their workers.",
    )
    synthesis: SynthesisResources = SynthesisResources()
    search: SearchResources = SearchResources()
    retraining: RetrainingResources = RetrainingResources()

    def of(self, stage: ClusterStage) -> WorkerResources:
        """Return the resources of one worker of a stage."""
        resources: WorkerResources = getattr(self, stage)
        return resources

    @property
    def is_inline(self) -> bool:
        """Whether this process does the work."""
        return self.address == INLINE

    @property
    def ray_client(self) -> str | None:
        """The address of Ray Client if the cluster is joined through it, else None. For auto, Ray reads RAY_ADDRESS."""
        address = os.environ.get("RAY_ADDRESS", "") if self.address == "auto" else self.address
        return address if address.startswith("ray://") else None
