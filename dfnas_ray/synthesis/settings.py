"""Settings of a set of images that every synthesizer is told."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from dfnas_ray.limits import MANY
from dfnas_ray.ops.precision import Precision
from dfnas_ray.synthesis.regularizers import RegularizersConfig


class SetSettings(BaseModel):
    """How many images, how they are cropped, and what keeps them close to real ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_shards: int = Field(10, gt=0, le=MANY, description="Shard files.")
    images_per_shard: int = Field(
        1_000, gt=0, le=MANY, description="Images in one shard; of one round, where there are rounds."
    )
    canvas_margin: int | None = Field(
        None,
        ge=0,
        le=MANY,
        description="Pixels by which a canvas is larger than the input; by default a seventh (224: 32).",
    )
    flip_probability: float = Field(0.5, ge=0, le=1, description="Mirrored crops; 0 where mirroring changes the class.")
    regularizers: RegularizersConfig = RegularizersConfig()
    precision: Precision = Field(
        "auto", description="Of the convolutions; auto takes bfloat16 where the hardware has it."
    )
    compile: bool = Field(True, description="torch.compile the teacher; worth its minute from some 10^5 image steps.")

    def margin(self, height: int, width: int, multiple: int = 1) -> int:
        """Return the pixels by which a canvas is larger than an input of this size: a multiple of ``multiple`` by default."""
        if self.canvas_margin is None:
            return min(height, width) // (7 * multiple) * multiple
        return self.canvas_margin
