"""Batches for networks that only look at images: few at once if the images are large."""

from __future__ import annotations

from math import prod

import torch

_BYTES = {"cpu": 2**23}
_BYTES_ELSEWHERE = 2**26
"""The most bytes of a batch as float32. On a CPU, more only makes the system hand out and take back large blocks of memory."""


def batch_size_for(image_shape: tuple[int, ...], most: int, device: torch.device) -> int:
    """Return the batch size for images (C, H, W): ``most``, or less if they are large."""
    return max(1, min(most, _BYTES.get(device.type, _BYTES_ELSEWHERE) // (4 * prod(image_shape))))
