"""The units in which images are made, so that noise, step sizes and regularisers mean the same for every teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from dfnas_ray.teachers.base import Teacher

_NATURAL_MEANS, _NATURAL_STDS = (0.05, 0.95), (0.1, 0.6)
_MEAN, _STD = 0.5, 0.25
"""Statistics of the pixels of photographs. They are used where a teacher's statistics cannot be those of images."""


class ImageUnits:
    """Standard scores of pixels.

    They are the teacher's own where its input statistics can be those of images. A teacher may have round numbers
    instead (0 and 1, or 0 and 1/255 where it takes 0 to 255). In such units, noise would be black and white, or a step
    would change nothing.

    Args:
        teacher: The teacher, which takes images in its own units.
        device: The device of the images.

    Attributes:
        lowest: Black in these units, per channel (1, C, 1, 1).
        highest: White in these units, per channel (1, C, 1, 1).
        are_the_teachers: Whether these are the teacher's own units, so that nothing is converted.
    """

    def __init__(self, teacher: Teacher, device: torch.device):
        pairs = [image_units(*each) for each in zip(teacher.mean, teacher.std, strict=True)]
        mean, std, own_mean, own_std = (
            torch.tensor(values, device=device).view(1, -1, 1, 1)
            for values in (*zip(*pairs, strict=True), teacher.mean, teacher.std)
        )
        self.lowest, self.highest = (0 - mean) / std, (1 - mean) / std
        self.are_the_teachers = pairs == [*zip(teacher.mean, teacher.std, strict=True)]
        self._to_teacher = (std / own_std, (mean - own_mean) / own_std)
        self._from_teacher = (own_std / std, (own_mean - mean) / std)

    def to_teacher(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) of these units in the teacher's units."""
        return self._converted(images, *self._to_teacher)

    def from_teacher(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) of the teacher's units in these units."""
        return self._converted(images, *self._from_teacher)

    def _converted(self, images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return images if self.are_the_teachers else images * scale + shift


def image_units(mean: float, std: float) -> tuple[float, float]:
    """Return the mean and standard deviation if pixels of images can have them; those of photographs otherwise."""
    natural = _NATURAL_MEANS[0] <= mean <= _NATURAL_MEANS[1] and _NATURAL_STDS[0] <= std <= _NATURAL_STDS[1]
    return (mean, std) if natural else (_MEAN, _STD)
