"""Regional update: in each step, a random region of the canvas, mirrored half of the time, goes through the teacher.

Source: Liu et al. 2022, arXiv:2112.02086, Sec. 3.2 (diversity). Only the region receives a gradient, so different crops
of one canvas must all have the target's semantics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Region(NamedTuple):
    """The position of a crop in the canvas, in pixels, and whether it is mirrored."""

    top: int
    left: int
    mirrored: bool


def draw_region(
    canvas: tuple[int, int], size: tuple[int, int], flip_probability: float, generator: torch.Generator
) -> Region:
    """Draw a region of ``size`` (H, W) uniformly inside a canvas (H', W'), with a CPU generator."""
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
    """The rows (H,) and columns (W,) of a canvas that form a region, in order; for many regions (N, H) and (N, W)."""

    rows: Tensor
    columns: Tensor


def lines(regions: Sequence[Region], size: tuple[int, int]) -> Lines:
    """Return the rows and columns of N regions of ``size`` (H, W)."""
    height, width = (torch.arange(length) for length in size)
    columns = [region.left + (width.flip(0) if region.mirrored else width) for region in regions]
    return Lines(torch.stack([region.top + height for region in regions]), torch.stack(columns))


def crop_lines(canvas: Tensor, region: Lines) -> Tensor:
    """Return one region of (B, C, H', W') as (B, C, H, W), like `crop`, for steps that a GPU records."""
    return canvas.index_select(-2, region.rows).index_select(-1, region.columns)


def center_crop(canvas: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the middle of (B, C, H', W') as (B, C, H, W): the view that stored labels describe."""
    height, width = size
    top, left = (canvas.shape[-2] - height) // 2, (canvas.shape[-1] - width) // 2
    return canvas[..., top : top + height, left : left + width]


class Places(NamedTuple):
    """The positions of one region per canvas of a batch, in pixels (B,), and whether each is mirrored (B,)."""

    top: Tensor
    left: Tensor
    mirrored: Tensor


def draw_places(
    count: int, canvas: tuple[int, int], size: tuple[int, int], flip_probability: float, generator: torch.Generator
) -> Places:
    """Draw a region of ``size`` (H, W) for each of ``count`` canvases (H', W'), with a CPU generator."""
    top, left = (
        torch.randint(0, outer - inner + 1, (count,), generator=generator)
        for outer, inner in zip(canvas, size, strict=True)
    )
    return Places(top, left, torch.rand(count, generator=generator) < flip_probability)


def crop_each(canvases: Tensor, places: Places, size: tuple[int, int]) -> Tensor:
    """Return each canvas's own region, (B, C, H', W') to (B, C, H, W); gradients reach only these regions."""
    top, left, mirrored = (values[:, None] for values in places)
    images, down, right = (torch.arange(count, device=canvases.device) for count in (len(canvases), *size))
    rows, columns = top + down, left + right
    columns = torch.where(mirrored, columns.flip(1), columns)
    # Indexing gives (B, H, W, C). The result is a view of it, in channels_last, which convolutions prefer.
    picked = canvases.permute(0, 2, 3, 1)[images[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
