"""A network with its preprocessing: cropping, scaling of pixels and normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dfnas_ray.errors import ConfigError
from dfnas_ray.ops.networks import evaluation_mode
from dfnas_ray.teachers.base import ImageShape
from dfnas_ray.teachers.class_names import ClassNames

_OUTSIDE = 2**40  # an index outside every image
_CLEARLY_BEYOND = 2.0  # pixels in [0, 1] may overshoot a little where images were resized


class ImageClassifier(nn.Module):
    """A network with its preprocessing: images in, logits out.

    Attributes:
        network: The network, which takes normalised images like the teacher.
        image_shape: (C, H, W) of the network's input.
        canvas_size: (H', W'), the largest image size; of larger images the centre is used. Synthetic images have this
            size.
        class_names: Class names in the order of the logits; None if unknown.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        image_shape: ImageShape,
        mean: Sequence[float],
        std: Sequence[float],
        canvas_size: tuple[int, int] | None = None,
        class_names: ClassNames | None = None,
    ):
        super().__init__()
        self.network, self.image_shape, self.class_names = network, image_shape, class_names
        self.canvas_size = image_shape[1:] if canvas_size is None else canvas_size
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        evaluation_mode(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images to logits (B, num_classes).

        Args:
            images: (B, C, H, W) to (B, C, H', W'), uint8 or floats in [0, 1]. Of images larger than (H, W) the centre
                is used.

        Raises:
            ConfigError: the images are too small or too large, of another type, or floats in [0, 255].
        """
        if not (torch.compiler.is_compiling() or torch.compiler.is_exporting()):
            self._check(images)
        pixels = images.to(self.mean.dtype)
        if images.dtype == torch.uint8:
            pixels = pixels / 255
        for dim, length, limit in zip((2, 3), self.image_shape[1:], self.canvas_size, strict=True):
            if limit > length:
                pixels = pixels.index_select(dim, _middle(images.shape[dim], length, limit, images.device))
        logits: Tensor = self.network((pixels - self.mean) / self.std)
        return logits

    def _check(self, images: Tensor) -> None:
        (channels, *size), limits = self.image_shape, self.canvas_size
        shape = tuple(images.shape)
        fits = len(shape) == 4 and shape[1] == channels
        if not fits or any(
            not low <= length <= high for length, low, high in zip(shape[2:], size, limits, strict=True)
        ):
            larger = f" to {_times((channels, *limits))}" if tuple(limits) != tuple(size) else ""
            raise ConfigError(
                f"These images are {_times(shape)}, and this network takes a batch of {_times((channels, *size))}{larger}. "
                "Resize and crop them to its input, as its training images were."
            )
        if images.dtype != torch.uint8 and not images.dtype.is_floating_point:
            raise ConfigError(f"These images are {images.dtype}. Give uint8, or floats in [0, 1].")
        if images.dtype != torch.uint8 and images.numel() and float(images.detach().amax()) > _CLEARLY_BEYOND:
            raise ConfigError(
                f"These images are floats up to {float(images.detach().amax()):.4g}, and this network takes floats in [0, 1]. "
                "Divide by 255, or give uint8; it normalises them itself."
            )


def _middle(size: int, length: int, limit: int, device: torch.device) -> Tensor:
    """Return the indices of the middle ``length`` of ``size`` rows; out of range unless length <= size <= limit.

    A program does not check dynamic sizes by itself. With indices out of range it fails instead of cropping a large
    image.
    """
    excess = torch.full((), size, dtype=torch.int64, device=device) - length
    stray = (excess < 0) | (excess > limit - length)
    return torch.arange(length, device=device) + torch.div(excess, 2, rounding_mode="floor") + stray * _OUTSIDE


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
