"""Settings of image synthesis. The defaults are the published ones for ImageNet (method: arXiv:2112.02086)."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dfnas_ray.ops.precision import Precision
from dfnas_ray.synthesis.regularizers import RegularizersConfig


class ScaleConfig(BaseModel):
    """One resolution of the multi-resolution schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: int = Field(gt=0, description="The canvas is average-pooled by this factor: 2 is half resolution.")
    steps: int = Field(gt=0, description="Adam steps at this resolution.")


class SynthesisConfig(BaseModel):
    """Image synthesis by model inversion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_shards: int = Field(10, gt=0, description="Shard files; each is made by one actor, on its own.")
    images_per_shard: int = Field(1_000, gt=0, description="Images of one round in one shard.")
    batch_size: int = Field(50, gt=0, description="Images optimised together on one device.")
    rounds: int = Field(2, gt=0, description="Rounds of recursive label calibration, the one-hot round included.")
    keep: Literal["all", "last"] = Field("all", description="Which rounds' images go into the shard.")
    tau: float = Field(1.0, gt=0, description="Temperature of calibrated labels: softmax(logits / tau).")
    stages: tuple[ScaleConfig, ...] = Field(
        (ScaleConfig(scale=2, steps=2000), ScaleConfig(scale=1, steps=3000)),
        min_length=1,
        description="Resolutions from coarse to fine; the last must be at full size.",
    )
    canvas_margin: int | None = Field(
        None, ge=0, description="Pixels by which a canvas is larger than the input; by default a seventh (224: 32)."
    )
    flip_probability: float = Field(0.5, ge=0, le=1, description="Mirrored crops; 0 where mirroring changes the class.")
    lr: float = Field(0.25, gt=0, description="Adam step size, in normalised pixel units.")
    warmup_steps: int = Field(100, ge=0, description="Linear warm-up at each scale, before the cosine.")
    regularizers: RegularizersConfig = RegularizersConfig()
    precision: Precision = Field(
        "auto", description="Of the teacher's convolutions; auto takes bfloat16 where the hardware has it."
    )
    compile: bool = Field(True, description="torch.compile the teacher; worth its minute from some 10^5 image steps.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.images_per_shard % self.batch_size:
            following = -(-self.images_per_shard // self.batch_size) * self.batch_size
            raise ValueError(
                f"images_per_shard ({self.images_per_shard}) must be a multiple of batch_size ({self.batch_size}), so "
                f"that every batch has the same BatchNorm statistics. Next multiple: {following}."
            )
        if self.stages[-1].scale != 1:
            raise ValueError(f"stages must end at scale 1, the teacher's own size, not {self.stages[-1].scale}.")
        shortest = min(scale.steps for scale in self.stages)
        if self.warmup_steps >= shortest:
            raise ValueError(
                f"warmup_steps ({self.warmup_steps}) must be less than the steps of every scale ({shortest} the fewest)."
            )
        return self

    @property
    def rows_per_shard(self) -> int:
        """Images that a shard keeps."""
        return self.images_per_shard * (self.rounds if self.keep == "all" else 1)

    @property
    def images_in_total(self) -> int:
        """Rows of the finished set."""
        return self.num_shards * self.rows_per_shard

    @property
    def image_steps_per_shard(self) -> int:
        """Images times optimiser steps: the work in one shard."""
        return self.images_per_shard * self.rounds * sum(scale.steps for scale in self.stages)

    def canvas_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a canvas for inputs of this size.

        Raises:
            ValueError: the canvas or the input cannot be divided by a scale.
        """
        multiple = math.lcm(*(scale.scale for scale in self.stages))
        if height % multiple or width % multiple:
            raise ValueError(
                f"synthesis.stages: the input {height}x{width} cannot be divided by all scales "
                f"{[scale.scale for scale in self.stages]}. Use a single stage of scale 1: "
                "--set 'synthesis.stages=[{scale: 1, steps: 5000}]'."
            )
        margin = min(height, width) // (7 * multiple) * multiple if self.canvas_margin is None else self.canvas_margin
        if margin % multiple:
            raise ValueError(
                f"synthesis.canvas_margin ({margin}) must be a multiple of {multiple}, so that every scale of "
                f"synthesis.stages divides the canvas. Next multiple: {-(-margin // multiple) * multiple}."
            )
        return height + margin, width + margin
