"""Settings of a set of images that hold for every synthesizer."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from dfnas_ray.limits import MANY
from dfnas_ray.ops.precision import Precision
from dfnas_ray.synthesis.regularizers import RegularizersConfig


class SetSettings(BaseModel):
    """How many images, how they are cropped, and what keeps them close to real ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_shards: int = Field(10, gt=0, le=MANY, description="Number of shard files.")
    images_per_shard: int = Field(
        1_000, gt=0, le=MANY, description="Images in one shard; for each round, if there are several."
    )
    canvas_margin: int | None = Field(
        None,
        ge=0,
        le=MANY,
        description="Pixels by which a canvas is larger than the input; by default a seventh of it (32 for 224).",
    )
    flip_probability: float = Field(
        0.5, ge=0, le=1, description="Probability of mirroring a crop; 0 where mirroring changes the class."
    )
    regularizers: RegularizersConfig = RegularizersConfig()
    precision: Precision = Field(
        "auto", description="Precision of the convolutions; auto takes bfloat16 where the hardware has it."
    )
    compile: bool = Field(
        True, description="Use torch.compile for the teacher. It takes a minute; worth it from some 10^5 image steps."
    )

    def margin(self, height: int, width: int, multiple: int = 1) -> int:
        """Return the pixels by which a canvas is larger than an input of this size.

        The default margin is a multiple of ``multiple``; one that is set is returned as it is.
        """
        if self.canvas_margin is None:
            return min(height, width) // (7 * multiple) * multiple
        return self.canvas_margin


def batch_within(per_shard: int, wanted: int) -> int:
    """Return the largest batch size, at most ``wanted``, that divides a shard."""
    return next(batch for batch in range(min(wanted, per_shard), 0, -1) if per_shard % batch == 0)
