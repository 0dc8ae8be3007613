"""The finished network as files that other tools load: safetensors weights and a `torch.export` program."""

from __future__ import annotations

from io import BytesIO
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, RootModel
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from dfnas_ray.errors import DfnasError, StorageError, first_line
from dfnas_ray.ops.networks import copy_network, evaluation_mode
from dfnas_ray.search_spaces import make_space
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.altered import Say, is_intact
from dfnas_ray.storage.location import JsonObject, Location
from dfnas_ray.teachers.base import ImageShape, Teacher
from dfnas_ray.training.retraining import EpochFigures

_DESCRIPTION = "network.json"
_WEIGHTS = "weights.safetensors"
_HISTORY = "history.json"


class History(RootModel[tuple[EpochFigures, ...]]):
    """What each epoch showed: ``history.json``."""

    @classmethod
    def read(cls, folder: Location) -> tuple[EpochFigures, ...]:
        """Return the epochs of a trained network's folder; none if the file is not there.

        Raises:
            StorageError: the file is of another version, or was altered.
        """
        file = folder / _HISTORY
        return file.read_model(cls).root if file.exists() else ()

    def write(self, folder: Location) -> None:
        """Write it into a network's folder."""
        (folder / _HISTORY).write_model(self)


class NetworkDescription(BaseModel):
    """What it takes to build a network, and to feed it: ``network.json``.

    Attributes:
        space: Settings of the search space.
        genotype: In the space's notation.
        image_shape: (C, H, W) of one input.
        mean: Per channel, of pixels in [0, 1]; they are to be normalised as for the teacher.
        std: Likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: JsonObject
    genotype: str
    image_shape: ImageShape
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, architecture: Architecture, teacher: Teacher) -> Self:
        """Describe a network that was trained for a teacher's images."""
        return cls(
            space=architecture.config,
            genotype=architecture.text,
            image_shape=teacher.image_shape,
            num_classes=teacher.num_classes,
            mean=teacher.mean,
            std=teacher.std,
        )

    def write(self, folder: Location) -> None:
        """Write it into a network's folder."""
        (folder / _DESCRIPTION).write_model(self)

    @classmethod
    def read(cls, folder: Location) -> Self:
        """Read it from a network's folder.

        Raises:
            StorageError: it is missing, of another version, or was altered.
        """
        return (folder / _DESCRIPTION).read_model(cls)

    @classmethod
    def find(cls, folder: Location) -> Self | None:
        """Read it from a network's folder, if it is there."""
        return cls.read(folder) if (folder / _DESCRIPTION).exists() else None

    @property
    def architecture(self) -> Architecture:
        """The architecture, which can be built."""
        space = make_space(self.space, self.image_shape, self.num_classes)
        return Architecture(self.space, space, space.decode(self.genotype))


def export_network(network: nn.Module, image_shape: tuple[int, int, int], folder: Location) -> None:
    """Write ``weights.safetensors`` and ``network.pt2`` (any batch size) into ``folder``."""
    network = evaluation_mode(copy_network(network).cpu())  # the caller's stays where it is
    (folder / _WEIGHTS).write_bytes(save({name: t.contiguous() for name, t in network.state_dict().items()}))
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network, (torch.zeros(2, *image_shape),), dynamic_shapes=({0: batch},))
    buffer = BytesIO()
    torch.export.save(program, buffer)
    (folder / "network.pt2").write_bytes(buffer.getvalue())


def load_network(folder: Location) -> tuple[Architecture, nn.Module]:
    """Return the architecture and the trained network, in evaluation mode, of a folder that `export_network` wrote to.

    Raises:
        StorageError: a file is missing, truncated, or was altered; says what to do.
    """
    architecture, weights = _read(folder)
    network = architecture.space.build(architecture.genotype)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise _damaged(folder / _WEIGHTS, error) from error
    return architecture, evaluation_mode(network)


def check_network(folder: Location) -> None:
    """Make sure that a trained network's files are there, whole, and can be read.

    Raises:
        StorageError: names the file that is not.
    """
    _read(folder)
    (folder / _HISTORY).read_model(History)


def network_is_intact(folder: Location, say: Say) -> bool:
    """Return whether a trained network's files can be read; if they cannot, say why."""
    return is_intact(lambda: check_network(folder), say)


def _read(folder: Location) -> tuple[Architecture, dict[str, Tensor]]:
    description = NetworkDescription.read(folder)
    try:
        architecture = description.architecture
    except (DfnasError, ValueError) as error:
        raise _damaged(folder / _DESCRIPTION, error) from error
    file = folder / _WEIGHTS
    data = file.read_bytes()
    try:
        return architecture, load(data)
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Location, error: Exception) -> StorageError:
    return StorageError(f"{file} is truncated, or was altered ({first_line(error)}). Delete it and run again.")
