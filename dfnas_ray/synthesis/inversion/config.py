"""Settings of model inversion. The defaults are the published ones for ImageNet (method: arXiv:2112.02086)."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dfnas_ray.limits import MANY, SEVERAL
from dfnas_ray.synthesis.base import Rehearsal, StepKind, SynthesizerConfig
from dfnas_ray.synthesis.inversion.checks import check_size
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.teachers.base import Teacher

_REHEARSED = 4
"""Steps of each scale that a rehearsal makes, to estimate the time of all; the first one is warm-up."""


class ScaleConfig(BaseModel):
    """One resolution of the multi-resolution schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: int = Field(
        gt=0, le=SEVERAL, description="The canvas is average-pooled by this factor: 2 is half resolution."
    )
    steps: int = Field(gt=0, le=MANY, description="Adam steps at this resolution.")


class InversionSettings(SynthesizerConfig):
    """Model inversion: every pixel is optimised, until noise becomes images that the teacher recognises."""

    kind: Literal["inversion"] = "inversion"

    batch_size: int = Field(50, gt=0, le=MANY, description="Images optimised together on one device.")
    rounds: int = Field(
        2, gt=0, le=SEVERAL, description="Rounds of recursive label calibration, including the one-hot round."
    )
    keep: Literal["all", "last"] = Field("all", description="Which rounds' images go into the shard.")
    tau: float = Field(1.0, gt=0, description="Temperature of calibrated labels: softmax(logits / tau).")
    scales: tuple[ScaleConfig, ...] = Field(
        (ScaleConfig(scale=2, steps=2000), ScaleConfig(scale=1, steps=3000)),
        min_length=1,
        description="Resolutions from coarse to fine; the last must be at full size.",
    )
    lr: float = Field(0.25, gt=0, description="Adam step size, in normalised pixel units.")
    warmup_steps: int = Field(100, ge=0, le=MANY, description="Linear warm-up at each scale, before the cosine.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scales[-1].scale != 1:
            raise ValueError(f"scales must end at scale 1, the teacher's own size, not {self.scales[-1].scale}.")
        shortest = min(scale.steps for scale in self.scales)
        if self.warmup_steps >= shortest:
            raise ValueError(
                f"warmup_steps ({self.warmup_steps}) must be less than the steps of every scale ({shortest} the fewest)."
            )
        return self

    @property
    def num_rounds(self) -> int:
        """See `SynthesizerConfig`."""
        return self.rounds

    @property
    def num_kept_rounds(self) -> int:
        """See `SynthesizerConfig`."""
        return self.rounds if self.keep == "all" else 1

    @property
    def scale_steps(self) -> tuple[int, ...]:
        """See `SynthesizerConfig`."""
        return tuple(scale.steps for scale in self.scales)

    @property
    def steps_per_image(self) -> int:
        """See `SynthesizerConfig`: the steps of all rounds."""
        return self.rounds * sum(self.scale_steps)

    def canvas_size(self, settings: SetSettings, height: int, width: int) -> tuple[int, int]:
        """See `SynthesizerConfig`: every scale divides it."""
        multiple = math.lcm(*(scale.scale for scale in self.scales))
        if height % multiple or width % multiple:
            raise ValueError(
                f"synthesis.method.scales: the input {height}x{width} cannot be divided by all scales "
                f"{[scale.scale for scale in self.scales]}. Use a single scale of 1: "
                "--set 'synthesis.method.scales=[{scale: 1, steps: 5000}]'."
            )
        margin = settings.margin(height, width, multiple)
        if margin % multiple:
            raise ValueError(
                f"synthesis.canvas_margin ({margin}) must be a multiple of {multiple}, so that every scale of "
                f"synthesis.method.scales divides the canvas. Next multiple: {-(-margin // multiple) * multiple}."
            )
        return height + margin, width + margin

    def rehearsal(self, settings: SetSettings, most: int) -> Rehearsal:
        """See `SynthesizerConfig`: a few steps at each resolution."""
        batch = min(self.batch_size, most)
        few = tuple(scale.model_copy(update={"steps": _REHEARSED}) for scale in self.scales)
        small = self.model_copy(update={"batch_size": batch, "scales": few, "rounds": 1, "warmup_steps": 0})
        batches = settings.num_shards * settings.images_per_shard / batch * self.rounds
        parts = tuple(
            StepKind(number * _REHEARSED + 1, (number + 1) * _REHEARSED, batches * scale.steps)
            for number, scale in enumerate(self.scales)
        )
        return Rehearsal(small, batch, parts)

    def check_teacher(self, teacher: Teacher, settings: SetSettings) -> None:
        """See `SynthesizerConfig`: the teacher must accept images of every scale."""
        _, height, width = teacher.image_shape
        for scale in {each.scale for each in self.scales}:
            check_size(teacher, (height // scale, width // scale), scale)
