"""The network that maps noise to images.

Source: the DCGAN-like decoder of Fang et al. 2022, arXiv:2112.06253. Written from its description.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import scipy  # its modules are imported when they are first used
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfnas_ray.ops.regions import center_crop

_FEWEST_CHANNELS = 4
_NATURAL, _REACHED = 0.97, 0.8  # shares of the largest standard deviation that pixels with a given mean can have
_SMALLEST = 4
_LARGEST = 9
"""Shorter side of the map where doublings begin: 4 to 9 pixels, whichever leads to the canvas with the fewest doublings."""


class ImageGenerator(nn.Module):
    """A linear layer to a small map, then doublings of its size, each with a convolution.

    Where doublings end above the size of an image, the last convolution sees only the middle of the map.
    From 32 pixels on, the channels are halved whenever the size doubles. So even images of 224 pixels are affordable.
    The last BatchNorm has no parameters: the pixels have the mean and the spread of the teacher's input statistics,
    whatever the earlier layers do.

    Args:
        latent_dim: Dimensions of the noise.
        size: (H', W') of an image; see `start_size`.
        width: Channels of a map of 32 pixels; smaller maps have twice as many.
        mean: Mean of the teacher's training images, per channel, of pixels in [0, 1].
        std: Standard deviation of the same pixels, per channel.
    """

    def __init__(self, latent_dim: int, size: tuple[int, int], width: int, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.size = size
        (height, width_of_start), doublings = start_size(size)
        self.is_cropped = not is_reached(*size)
        widths = [channels_of(min(height, width_of_start) * 2**number, width) for number in range(doublings + 1)]
        self.start = (widths[0], height, width_of_start)
        self.linear = nn.Linear(latent_dim, widths[0] * height * width_of_start)
        self.norm = nn.BatchNorm2d(widths[0])
        self.doublings = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.LeakyReLU(0.2))
            for before, after in pairwise(widths)
        )
        self.last = nn.Sequential(
            nn.Conv2d(widths[-1], len(mean), 3, padding=1), nn.BatchNorm2d(len(mean), affine=False)
        )
        shift, scale = zip(*map(logit_moments, mean, std), strict=True)
        self.register_buffer("shift", torch.tensor(shift).view(1, -1, 1, 1))
        self.register_buffer("scale", torch.tensor(scale).view(1, -1, 1, 1))

    def forward(self, noise: Tensor) -> Tensor:
        """Map (B, latent_dim) to images (B, C, H', W') in [0, 1], float32."""
        x = self.norm(self.linear(noise).view(-1, *self.start))
        for doubling in self.doublings:
            x = doubling(F.interpolate(x, scale_factor=2.0))
        if self.is_cropped:  # before the last BatchNorm, whose statistics are then those of the pixels
            x = center_crop(x, self.size)
        return torch.sigmoid(self.shift + self.scale * self.last(x).float())


def logit_moments(mean: float, std: float) -> tuple[float, float]:
    """Return mean and standard deviation of a normal variable whose sigmoid has the given ones.

    Many teachers have round numbers instead of the statistics of their images. Values that natural images cannot have
    are taken to be such. Then the normal variable is the standard one, and pixels spread around the middle of their
    range.
    """
    largest = math.sqrt(mean * (1 - mean)) if 0 < mean < 1 else 0.0  # if every pixel were 0 or 1
    if not 0 < std < _NATURAL * largest:
        return 0.0, 1.0
    std = min(std, _REACHED * largest)  # above this, the gradient of the sigmoid would almost vanish
    quantiles = scipy.special.ndtri((np.arange(2000) + 0.5) / 2000)

    def distance(logits: np.ndarray[Any, Any]) -> list[float]:
        pixels = scipy.special.expit(logits[0] + logits[1] * quantiles)
        return [pixels.mean() - mean, pixels.std() - std]

    found = scipy.optimize.root(distance, [math.log(mean / (1 - mean)), 1.0])
    return float(found.x[0]), float(abs(found.x[1]))


def channels_of(side: int, width: int) -> int:
    """Return the channels of a hidden map of ``side`` pixels: ``width`` at 32, twice as many below, half at 64."""
    factor = 2.0 ** -max(-1, round(math.log2(side / 32)))
    return max(_FEWEST_CHANNELS, round(width * factor))


def start_size(size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Return the size of the map where doublings begin, and their number, for a canvas of (H', W').

    The doublings end at the canvas, or on either side at the next size above it.
    """
    doublings = 1
    while -(-min(size) // 2**doublings) > _LARGEST:
        doublings += 1
    height, width = (max(_SMALLEST, -(-side // 2**doublings)) for side in size)
    return (height, width), doublings


def is_reached(height: int, width: int) -> bool:
    """Return whether doublings end at exactly this canvas."""
    start, doublings = start_size((height, width))
    return (height, width) == (start[0] * 2**doublings, start[1] * 2**doublings)
