"""Settings of where the work runs. None of them changes a result, and none is part of a stage's fingerprint.

The exception is ``cpus``: it is the number of threads of one worker, and sums over threads differ in their last bits.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SynthesisResources(BaseModel):
    """What one synthesis actor holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actors: int | None = Field(
        None, gt=0, description="Actors at work; by default as many as the cluster has room for."
    )
    cpus: int = Field(1, gt=0, description="CPUs of one actor, and its threads.")
    gpus: float = Field(0, ge=0, description="GPUs of one actor; a fraction shares one.")
    attempts: int = Field(3, gt=0, description="How often one shard is tried before it is given up.")


class SearchResources(BaseModel):
    """What one search trial holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: int = Field(1, gt=0, description="CPUs of one trial, and its threads.")
    gpus: float = Field(0, ge=0, description="GPUs of one trial.")
    scoring_workers: int = Field(
        0, ge=0, description="Further places of the same size, where a trial's candidates are scored; 0: its own."
    )
    attempts: int = Field(3, gt=0, description="How often one trial is tried; it goes on from its last epoch.")


class RetrainingResources(BaseModel):
    """What one training worker holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: int = Field(1, gt=0, description="CPUs of one worker, and its threads.")
    gpus: float = Field(0, ge=0, description="GPUs of one worker.")
    attempts: int = Field(3, gt=0, description="How often a broken group of workers is started again.")


class ClusterConfig(BaseModel):
    """Which Ray cluster, and what each stage takes of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field("local", description="local: a cluster of its own; auto: the one running here; host:port.")
    num_cpus: int | None = Field(None, gt=0, description="CPUs of a local cluster; by default the machine's.")
    num_gpus: int | None = Field(None, ge=0, description="GPUs of a local cluster; by default the machine's.")
    max_cpus: int | None = Field(None, gt=0, description="CPUs that an autoscaling cluster may grow to.")
    max_gpus: int | None = Field(None, gt=0, description="GPUs that an autoscaling cluster may grow to.")
    synthesis: SynthesisResources = SynthesisResources()
    search: SearchResources = SearchResources()
    retraining: RetrainingResources = RetrainingResources()
