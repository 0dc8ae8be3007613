"""Gaussian noise, to see what a search finds without any image: the noise from which synthesis by inversion starts."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field

from dfnas_ray.limits import MANY
from dfnas_ray.seeding import torch_generator
from dfnas_ray.sources.base import Canvases, Drawer, Drawn, DrawnSource, SetSize
from dfnas_ray.storage.location import JsonObject
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.units import ImageUnits

_BATCH_SIZE = 250


class NoiseSource(DrawnSource):
    """Gaussian noise in the standard scores of pixels (see `ImageUnits`), clamped to valid pixels."""

    kind: Literal["noise"] = "noise"
    num_images: int | None = Field(
        None, gt=0, le=MANY, description="Number of images; by default as many as synthesis makes."
    )

    def size(self, like: SetSize, setting: str) -> SetSize:
        """See `DrawnSource`."""
        return like if self.num_images is None else like.of(self.num_images)

    def inputs(self, teacher: Teacher, setting: str) -> JsonObject:
        """See `DrawnSource`."""
        is_natural = ImageUnits(teacher, torch.device("cpu")).are_the_teachers
        return {} if is_natural else {"units": "photographs"}  # older versions drew other noise for such teachers

    def drawer(self, teacher: Teacher, size: SetSize, seed: int, setting: str) -> Drawer:
        """See `DrawnSource`."""
        return lambda shard: Drawn(noise_canvases(teacher, size, seed, shard))


def noise_canvases(teacher: Teacher, size: SetSize, seed: int, shard: int) -> Canvases:
    """Return the noise of one shard, rounded to uint8."""
    generator = torch_generator(seed, "noise-images", shard)
    units = ImageUnits(teacher, generator.device)
    canvases = np.empty((size.rows_of(shard), *size.canvas), np.uint8)
    for start in range(0, len(canvases), _BATCH_SIZE):
        part = canvases[start : start + _BATCH_SIZE]
        part[:] = teacher.denormalize(units.to_teacher(torch.randn(part.shape, generator=generator))).numpy()
    return canvases
