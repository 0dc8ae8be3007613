"""Regional update: each step a random region of the canvas, half of the time mirrored, goes through the teacher.

Source: Liu et al. 2022, arXiv:2112.02086, Sec. 3.2 (diversity). Only the region receives gradient, so different crops
of one canvas must all carry the target's semantics.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Region(NamedTuple):
    """Where the crop lies in the canvas, in pixels, and whether it is mirrored."""

    top: int
    left: int
    mirrored: bool


def draw_region(
    canvas: tuple[int, int], size: tuple[int, int], flip_probability: float, generator: torch.Generator
) -> Region:
    """Draw a region of ``size`` (H, W) uniformly inside a canvas (H', W'); a CPU generator decides."""
    top, left = (
        int(torch.randint(0, outer - inner + 1, (), generator=generator))
        for outer, inner in zip(canvas, size, strict=True)
    )
    mirrored = bool(torch.rand((), generator=generator) < flip_probability)
    return Region(top, left, mirrored)


def crop(canvas: Tensor, region: Region, size: tuple[int, int]) -> Tensor:
    """Return the region of (B, C, H', W') as (B, C, H, W)."""
    height, width = size
    patch = canvas[..., region.top : region.top + height, region.left : region.left + width]
    return patch.flip(-1) if region.mirrored else patch


def center_crop(canvas: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the middle of (B, C, H', W') as (B, C, H, W): the view that stored labels describe."""
    height, width = size
    top, left = (canvas.shape[-2] - height) // 2, (canvas.shape[-1] - width) // 2
    return canvas[..., top : top + height, left : left + width]


def crop_each(canvases: Tensor, size: tuple[int, int], flip_probability: float, generator: torch.Generator) -> Tensor:
    """Return a region of each canvas of its own, (B, C, H', W') to (B, C, H, W); gradients reach these regions alone.

    Args:
        canvases: On any device.
        size: (H, W) of a region.
        flip_probability: With which a region is mirrored.
        generator: On the CPU; decides.
    """
    count, device = len(canvases), canvases.device
    top, left = (
        torch.randint(0, outer - inner + 1, (count, 1), generator=generator)
        for outer, inner in zip(canvases.shape[-2:], size, strict=True)
    )
    mirrored = torch.rand((count, 1), generator=generator) < flip_probability
    rows, columns = top + torch.arange(size[0]), left + torch.arange(size[1])
    columns = torch.where(mirrored, columns.flip(1), columns)
    images = torch.arange(count)[:, None, None]
    # (B, H, W, C) by indexing; as a view of it the result is in channels_last, as convolutions want it.
    picked = canvases.permute(0, 2, 3, 1)[
        tuple(index.to(device) for index in (images, rows[:, :, None], columns[:, None, :]))
    ]
    return picked.permute(0, 3, 1, 2)
