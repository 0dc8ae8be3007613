"""Crops by area and changes of colour, each image in its own way."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from dfnas_ray.ops.area_crops import crop_areas, jitter_colors


def generator():
    return torch.Generator().manual_seed(0)


def ramp(number, height, width):
    """Images whose first channel is the column and whose second is the row, in pixels."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows]).to(torch.uint8).expand(number, 2, height, width).contiguous()


def extent(crops):
    """Width and height in pixels of the original that each crop of a ramp covers, and whether it is mirrored."""
    across = (crops[:, 0, :, -1] - crops[:, 0, :, 0]).mean(-1) / (crops.shape[-1] - 1) * crops.shape[-1]
    down = (crops[:, 1, -1] - crops[:, 1, 0]).mean(-1) / (crops.shape[-2] - 1) * crops.shape[-2]
    return across.abs(), down, across < 0


def test_crops_cover_the_share_of_the_area_that_was_asked_for():
    across, down, mirrored = extent(crop_areas(ramp(4000, 80, 80), (32, 32), (0.2, 0.6), 0.25, generator()))
    share = across * down / 6400
    assert 0.2 <= share.min() < 0.21
    assert 0.59 < share.max() <= 0.6001
    assert share.mean() == pytest.approx(0.4, abs=0.01)
    aspect = across / down
    assert aspect.min() == pytest.approx(3 / 4, abs=0.01)
    assert aspect.max() == pytest.approx(4 / 3, abs=0.01)
    assert mirrored.float().mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(("height", "width"), [(80, 80), (40, 160), (90, 60)])
@pytest.mark.parametrize("shares", [(0.9, 1), (0.5, 0.5)])
def test_crops_that_hardly_fit_have_their_share_all_the_same(height, width, shares):
    across, down, _ = extent(crop_areas(ramp(1000, height, width), (32, 32), shares, 0, generator()))
    share = across * down / (height * width)
    assert shares[0] - 0.005 <= share.min()
    assert share.max() <= shares[1] + 0.005


def test_crops_lie_anywhere_and_never_beyond_the_image():
    crops = crop_areas(ramp(4000, 60, 90), (16, 16), (0.3, 0.3), 0, generator())
    half = (crops[:, :, 1] - crops[:, :, 0])[:, 1].mean() / 2
    for channel, length in ((0, 90), (1, 60)):
        low, high = crops[:, channel].amin((1, 2)), crops[:, channel].amax((1, 2))
        assert 0 <= low.min() < 2 * half
        assert length - 1 - 2 * half < high.max() <= length - 1
        assert ((low + high) / 2).mean() == pytest.approx((length - 1) / 2, abs=1)


def test_the_whole_image_is_the_image():
    image = torch.randint(0, 256, (1, 3, 12, 12), dtype=torch.uint8)
    crops = crop_areas(image.expand(200, 3, 12, 12), (12, 12), (1, 1), 0, generator())
    assert (crops - image).abs().max() < 0.01
    assert crops.shape == (200, 3, 12, 12)
    assert crops.dtype == torch.float32


@pytest.mark.parametrize("channels", [3, 1])
def test_colours_change_as_torchvision_changes_them(channels):
    images = torch.randint(0, 256, (5, channels, 6, 6), dtype=torch.uint8)
    factors = 1 + 0.4 * (2 * torch.rand((3, 5), generator=generator()) - 1)
    changed = jitter_colors(images, 0.4, generator())
    for image, own, (brightness, contrast, saturation) in zip(images, changed, factors.T.tolist(), strict=True):
        expected = reference.adjust_brightness(image / 255, brightness)
        expected = reference.adjust_contrast(expected, contrast)
        expected = reference.adjust_saturation(expected, saturation)
        assert torch.allclose(own, expected * 255, atol=0.6)
