"""Batches for networks that only look at images: few at once if the images are large."""

from __future__ import annotations

from math import prod

_BYTES = 2**25
"""The most bytes of a batch as float32. More only makes the system hand out and take back large blocks of memory."""


def batch_size_for(image_shape: tuple[int, ...], most: int) -> int:
    """Return the batch size for images (C, H, W): ``most``, or less if they are large."""
    return max(1, min(most, _BYTES // (4 * prod(image_shape))))
