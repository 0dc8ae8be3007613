"""A trained network in the user's hands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from dfnas_ray.errors import ConfigError
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.location import Location
from dfnas_ray.teachers.base import ImageShape, Teacher
from dfnas_ray.training.export import NetworkDescription, export_network, load_network
from dfnas_ray.training.retraining import EpochFigures


class TrainedNetwork(nn.Module):
    """A network with its preprocessing: images in, logits out.

    Attributes:
        network: Takes normalised images, as the teacher does.
        architecture: What it is.
        history: What each epoch of its training showed; empty for one that was loaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        architecture: Architecture,
        image_shape: ImageShape,
        mean: Sequence[float],
        std: Sequence[float],
        history: Sequence[EpochFigures] = (),
    ):
        super().__init__()
        self.network, self.architecture, self.history = network, architecture, list(history)
        self.image_shape = image_shape
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map images to logits (B, num_classes).

        Args:
            images: (B, C, H, W), uint8, or floats in [0, 1].
        """
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        logits: Tensor = self.network((pixels - self.mean) / self.std)
        return logits

    def check_teacher(self, teacher: Teacher, name: str = "This network") -> None:
        """Make sure that the network takes images as they are prepared for the teacher.

        Raises:
            ConfigError: it does not.
        """
        own: dict[str, Sequence[float]] = {
            "image_shape": self.image_shape,
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }
        for setting, value in own.items():
            expected: Sequence[float] = getattr(teacher, setting)
            if not np.array_equal(np.asarray(value, np.float32), np.asarray(expected, np.float32)):
                shown = ", ".join(f"{number:.6g}" for number in value)
                raise ConfigError(
                    f"{name} was trained on images of {setting} ({shown}), and those of the teacher {teacher.name} have "
                    f"{tuple(expected)}. Give the teacher that it learned from."
                )

    def save(self, folder: str | Path, teacher: Teacher) -> None:
        """Write ``weights.safetensors``, ``network.pt2`` (of the network without its preprocessing) and ``network.json``.

        The network stays as and where it is.

        Args:
            folder: A path, or a URI.
            teacher: Whose inputs it takes.

        Raises:
            ConfigError: it was trained on images prepared for another teacher.
        """
        self.check_teacher(teacher)
        target = Location.parse(folder, "folder").make_dir()
        export_network(self.network, self.image_shape, target)
        NetworkDescription.of(self.architecture, teacher).write(target)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a network that `save`, or a run's retraining, has written.

        Raises:
            StorageError: the folder holds no network.
        """
        source = Location.parse(folder, "folder")
        architecture, network = load_network(source)
        described = NetworkDescription.read(source)
        return cls(network, architecture, described.image_shape, described.mean, described.std)
