"""Random resized crops and colour jitter, the usual augmentation for photographs.

Source of the crops: Szegedy et al. 2015, arXiv:1409.4842, Sec. 6. Colour augmentation goes back to Krizhevsky et al.
2012; it is done here as in torchvision's `ColorJitter`, in a fixed order.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_ASPECTS = (3 / 4, 4 / 3)  # width to height
_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601


def crop_areas(
    images: Tensor,
    size: tuple[int, int],
    shares: tuple[float, float],
    flip_probability: float,
    generator: torch.Generator,
) -> Tensor:
    """Return a crop of each image, (B, C, H', W') to (B, C, H, W), resized bilinearly.

    Args:
        images: uint8 or float; the result is float32 on the same scale.
        size: (H, W).
        shares: The smallest and the largest share of the area H' W' that a crop covers; the share is drawn uniformly.
        flip_probability: The probability that an image is mirrored.
        generator: The random number generator, on the CPU.
    """
    number, height, width = len(images), images.shape[-2], images.shape[-1]
    low, high = shares
    area = (low + (high - low) * torch.rand(number, generator=generator)) * height * width
    narrowest, widest = area / height**2, width**2 / area  # aspects that fit into the image
    least, most = narrowest.clamp(min=_ASPECTS[0]), widest.clamp(max=_ASPECTS[1])
    nearest = torch.where(narrowest > most, narrowest, widest)  # for an image beyond the range of aspects
    least, most = (torch.where(least > most, nearest, bound) for bound in (least, most))
    aspect = least * (most / least) ** torch.rand(number, generator=generator)
    across = (area * aspect).sqrt().clamp(max=width) / width  # as a share of the width, for the affine map
    down = (area / aspect).sqrt().clamp(max=height) / height
    left, top = ((1 - part) * (2 * torch.rand(number, generator=generator) - 1) for part in (across, down))
    mirrored = torch.rand(number, generator=generator) < flip_probability
    maps = torch.zeros(number, 2, 3)
    maps[:, 0, 0], maps[:, 0, 2] = torch.where(mirrored, -across, across), left
    maps[:, 1, 1], maps[:, 1, 2] = down, top
    grid = functional.affine_grid(maps.to(images.device), [number, images.shape[1], *size], align_corners=False)
    return functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def jitter_colors(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Return the images with brightness, contrast and saturation changed by factors of 1 - strength to 1 + strength.

    Args:
        images: (B, C, H, W) in [0, 255], uint8 or float; saturation changes only if C is 3.
        strength: In [0, 1].
        generator: The random number generator, on the CPU.
    """
    factors = 1 + strength * (2 * torch.rand((3, len(images), 1, 1, 1), generator=generator) - 1)
    brightness, contrast, saturation = factors.to(images.device)
    images = (images.float() * brightness).clamp(0, 255)
    images = _blend(images, _gray(images).mean((1, 2, 3), keepdim=True), contrast)
    return _blend(images, _gray(images), saturation) if images.shape[1] == 3 else images


def _gray(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = (share * images[:, channel : channel + 1] for channel, share in enumerate(_LUMA))
    return red + green + blue


def _blend(images: Tensor, others: Tensor, share: Tensor) -> Tensor:
    return (share * images + (1 - share) * others).clamp(0, 255)
