"""The network that maps noise to images.

Source: the DCGAN-like decoder of Fang et al. 2022, arXiv:2112.06253. Written from its description.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn, sigmoid

_FEWEST_CHANNELS = 4
_SMALLEST = 4
_LARGEST = 9
"""Where doublings begin: from 4 pixels to 9, as many as give the canvas."""


class ImageGenerator(nn.Module):
    """A linear layer to a small map, then doublings of its size, each with a convolution.

    From 32 pixels on the channels are halved whenever the size doubles: every doubling costs as much as the one before, and
    images of 224 pixels are within reach. The last BatchNorm has no parameters: pixels spread around the middle of their range
    whatever the layers before it do.

    Args:
        latent_dim: Dimensions of the noise.
        channels: Of an image.
        size: (H', W') of an image; see `start_size`.
        width: Channels of a map of 32 pixels; of smaller ones twice as many.
    """

    def __init__(self, latent_dim: int, channels: int, size: tuple[int, int], width: int):
        super().__init__()
        (height, width_of_start), doublings = start_size(size)
        widths = [channels_of(min(height, width_of_start) * 2**number, width) for number in range(doublings + 1)]
        self.start = (widths[0], height, width_of_start)
        self.linear = nn.Linear(latent_dim, widths[0] * height * width_of_start)
        self.norm = nn.BatchNorm2d(widths[0])
        self.doublings = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.LeakyReLU(0.2))
            for before, after in pairwise(widths)
        )
        self.last = nn.Sequential(nn.Conv2d(widths[-1], channels, 3, padding=1), nn.BatchNorm2d(channels, affine=False))

    def forward(self, noise: Tensor) -> Tensor:
        """Map (B, latent_dim) to images (B, C, H', W') in [0, 1], float32."""
        x = self.norm(self.linear(noise).view(-1, *self.start))
        for doubling in self.doublings:
            x = doubling(F.interpolate(x, scale_factor=2.0))
        return sigmoid(self.last(x).float())


def channels_of(side: int, width: int) -> int:
    """Return the channels of a hidden map of so many pixels: ``width`` at 32, twice as many below, half as many at 64."""
    factor = 2.0 ** -max(-1, round(math.log2(side / 32)))
    return max(_FEWEST_CHANNELS, round(width * factor))


def start_size(size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Return the map where doublings begin and their number, for a canvas of (H', W').

    Raises:
        ValueError: doublings do not lead there; says which sizes are near.
    """
    found = _start_size(*size)
    if found is None:
        side = max(size)
        near = [
            next((other for other in sides if _start_size(other, other)), None)
            for sides in (range(side, 0, -1), range(side, 4 * side))
        ]
        raise ValueError(
            f"a canvas of {size[0]}x{size[1]} cannot be reached by doubling a map of {_SMALLEST} to {_LARGEST} pixels; sizes "
            f"near it that can: {', '.join(str(other) for other in near if other)}"
        )
    return found


def _start_size(height: int, width: int) -> tuple[tuple[int, int], int] | None:
    doublings = 0
    while doublings == 0 or min(height, width) > _LARGEST:
        if height % 2 or width % 2:
            return None
        height, width, doublings = height // 2, width // 2, doublings + 1
    return ((height, width), doublings) if min(height, width) >= _SMALLEST else None
