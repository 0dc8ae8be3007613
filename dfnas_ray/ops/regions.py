"""Regional update: each step a random region of the canvas, half of the time mirrored, goes through the teacher.

Source: Liu et al. 2022, arXiv:2112.02086, Sec. 3.2 (diversity). Only the region receives gradient, so different crops
of one canvas must all carry the target's semantics.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Lines(NamedTuple):
    """Which rows (H,) and columns (W,) of a canvas a region is, in its own order; of many regions (N, H) and (N, W)."""

    rows: Tensor
    columns: Tensor


def lines(regions: Sequence[Region], size: tuple[int, int]) -> Lines:
    """Return the rows and columns of N regions of ``size`` (H, W)."""
    height, width = (torch.arange(length) for length in size)
    columns = [region.left + (width.flip(0) if region.mirrored else width) for region in regions]
    return Lines(torch.stack([region.top + height for region in regions]), torch.stack(columns))


def crop_lines(canvas: Tensor, region: Lines) -> Tensor:
    """Return one region of (B, C, H', W') as (B, C, H, W): `crop` for steps that a GPU records."""
    return canvas.index_select(-2, region.rows).index_select(-1, region.columns)


def center_crop(canvas: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the middle of (B, C, H', W') as (B, C, H, W): the view that stored labels describe."""
    height, width = size
    top, left = (canvas.shape[-2] - height) // 2, (canvas.shape[-1] - width) // 2
    return canvas[..., top : top + height, left : left + width]


class Places(NamedTuple):
    """Where the regions of a batch lie, each in its own canvas: pixels (B,), and whether each is mirrored (B,)."""

    top: Tensor
    left: Tensor
    mirrored: Tensor


def draw_places(
    count: int, canvas: tuple[int, int], size: tuple[int, int], flip_probability: float, generator: torch.Generator
) -> Places:
    """Draw a region of ``size`` (H, W) for each of so many canvases (H', W'); a CPU generator decides."""
    top, left = (
        torch.randint(0, outer - inner + 1, (count,), generator=generator)
        for outer, inner in zip(canvas, size, strict=True)
    )
    return Places(top, left, torch.rand(count, generator=generator) < flip_probability)


def crop_each(canvases: Tensor, places: Places, size: tuple[int, int]) -> Tensor:
    """Return a region of each canvas of its own, (B, C, H', W') to (B, C, H, W); gradients reach these regions alone."""
    top, left, mirrored = (values[:, None] for values in places)
    images, down, right = (torch.arange(count, device=canvases.device) for count in (len(canvases), *size))
    rows, columns = top + down, left + right
    columns = torch.where(mirrored, columns.flip(1), columns)
    # (B, H, W, C) by indexing; as a view of it the result is in channels_last, as convolutions want it.
    picked = canvases.permute(0, 2, 3, 1)[images[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
