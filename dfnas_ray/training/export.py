"""The finished network as files for other tools: weights, programs with the preprocessing inside, and a description."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, RootModel, model_validator
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from dfnas_ray.datasets.resizing import Resizing
from dfnas_ray.errors import DfnasError, StorageError, first_line
from dfnas_ray.ops.networks import copy_network, evaluation_mode
from dfnas_ray.search_spaces import make_space
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.altered import Say, is_intact
from dfnas_ray.storage.location import REMEDY, JsonObject, Location
from dfnas_ray.teachers.base import Classes, ImageShape, Side, Teacher
from dfnas_ray.training.classifier import ImageClassifier
from dfnas_ray.training.programs import Pixels, check_onnx, to_onnx, to_pt2
from dfnas_ray.training.retraining import EpochFigures
from dfnas_ray.version import __version__

_DESCRIPTION = "network.json"
_WEIGHTS = "weights.safetensors"
_HISTORY = "history.json"


class History(RootModel[tuple[EpochFigures, ...]]):
    """The figures of each epoch: ``history.json``."""

    @classmethod
    def read(cls, folder: Location) -> tuple[EpochFigures, ...]:
        """Return the figures of each epoch from a trained network's folder; none if the file does not exist.

        Raises:
            StorageError: the file was written by another version, or was altered.
        """
        file = folder / _HISTORY
        return file.read_model(cls).root if file.exists() else ()

    def write(self, folder: Location) -> None:
        """Write the figures into a network's folder."""
        (folder / _HISTORY).write_model(self)


Format: TypeAlias = Literal["onnx", "pt2", "safetensors"]
"""The format of an exported network: an ONNX model, a `torch.export` program, or weights that `load_network` reads."""

FORMATS: tuple[Format, ...] = ("safetensors", "pt2", "onnx")
FILES: dict[Format, str] = {"safetensors": _WEIGHTS, "pt2": "network.pt2", "onnx": "network.onnx"}


class NetworkDescription(BaseModel):
    """What is needed to build a network and to prepare its input: ``network.json``.

    Attributes:
        space: Settings of the search space.
        genotype: The genotype in the space's notation.
        image_shape: (C, H, W) of one input.
        mean: Mean per channel, of pixels in [0, 1]. The weights alone expect images normalised with it.
        std: Standard deviation per channel, used in the same way.
        canvas_size: (H', W'), the largest image size; programs use the centre of larger images.
        class_names: Class names in the order of the logits, if known.
        resizing: What happens to pictures of another size.
        teacher: The name of the teacher.
        teacher_sha256: The fingerprint of the teacher.
        program: The input of ``network.pt2`` and ``network.onnx``. Older versions wrote programs for normalised images.
        weights_sha256: The SHA-256 of ``weights.safetensors``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: JsonObject
    genotype: str
    image_shape: ImageShape
    num_classes: Classes
    mean: tuple[float, ...]
    std: tuple[float, ...]
    canvas_size: tuple[Side, Side] | None = None
    class_names: tuple[str, ...] | None = None
    resizing: Resizing = Resizing()
    teacher: str | None = None
    teacher_sha256: str | None = None
    program: Pixels | Literal["normalised"] = "normalised"
    weights_sha256: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        channels, *size = self.image_shape
        if not channels == len(self.mean) == len(self.std):
            raise ValueError(f"mean and std must have one number for each of {channels} channels")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names must be {self.num_classes}")
        if self.canvas_size is not None and any(high < low for low, high in zip(size, self.canvas_size, strict=True)):
            raise ValueError("canvas_size must not be smaller than image_shape")
        return self

    @classmethod
    def of(cls, architecture: Architecture, teacher: Teacher, canvas_size: tuple[int, int] | None = None) -> Self:
        """Return the description of a network that was trained for a teacher's images."""
        return cls(
            space=architecture.config,
            genotype=architecture.text,
            image_shape=teacher.image_shape,
            num_classes=teacher.num_classes,
            mean=teacher.mean,
            std=teacher.std,
            canvas_size=canvas_size,
            class_names=teacher.class_names,
            resizing=teacher.resizing,
            teacher=teacher.name,
            teacher_sha256=teacher.fingerprint,
            program="uint8",
        )

    def write(self, folder: Location) -> None:
        """Write the description into a network's folder."""
        (folder / _DESCRIPTION).write_model(self)

    @classmethod
    def read(cls, folder: Location) -> Self:
        """Return the description from a network's folder.

        Raises:
            StorageError: the file is missing, was written by another version, or was altered.
        """
        return (folder / _DESCRIPTION).read_model(cls)

    @classmethod
    def find(cls, folder: Location) -> Self | None:
        """Return the description from a network's folder; None if the file does not exist."""
        return cls.read(folder) if (folder / _DESCRIPTION).exists() else None

    @property
    def architecture(self) -> Architecture:
        """The architecture, from which the network can be built."""
        space = make_space(self.space, self.image_shape, self.num_classes)
        return Architecture(self.space, space, space.decode(self.genotype))

    def classifier(self, network: nn.Module) -> ImageClassifier:
        """Return a network with its preprocessing."""
        return ImageClassifier(network, self.image_shape, self.mean, self.std, self.canvas_size, self.class_names)

    def differs_from(self, other: NetworkDescription) -> bool:
        """Return whether another description has other contents, such as class names, or describes other weights."""
        known = self.weights_sha256 is not None and other.weights_sha256 is not None
        fields = {"canvas_size", "class_names", "resizing", "program", *(["weights_sha256"] if known else [])}
        return self.model_dump(include=fields) != other.model_dump(include=fields)

    @property
    def info(self) -> dict[str, object]:
        """The metadata of programs. They include mean and std, which the program applies itself."""
        known = self.model_dump(mode="json", exclude={"program"}, exclude_none=True)
        shape, canvas = self.image_shape, self.canvas_size or self.image_shape[1:]
        larger = f" to {(shape[0], *canvas)}, of which the centre is looked at" if canvas != shape[1:] else ""
        scale = "uint8, 0 to 255" if self.program == "uint8" else "float32, 0 to 1"
        return {
            **known,
            "input": f"images: (batch, {shape[0]}, {shape[1]}, {shape[2]}){larger}; {scale}; normalised inside",
            "output": f"logits: (batch, {self.num_classes}), float32",
            "dfnas_ray": __version__,
        }


def encode_network(
    network: nn.Module, description: NetworkDescription, formats: Iterable[Format], weights: bytes | None = None
) -> tuple[NetworkDescription, dict[str, bytes]]:
    """Return the files of a network by their names, and its description with the digest of the weights.

    Args:
        network: The trained network; it is not changed or moved.
        description: The description of the network.
        formats: The formats of the files. Either all files are returned or none; nothing is written.
        weights: The bytes of the file of the network's weights, if it exists already.

    Raises:
        ConfigError: a package is missing; the message says how to install it.
        ExportError: the network cannot be exported, or the program disagrees with it.
    """
    wanted = list(formats)
    if "onnx" in wanted:
        check_onnx()  # first, because the other files take time
    network = evaluation_mode(copy_network(network).cpu())
    weights = weights or save({name: t.contiguous() for name, t in network.state_dict().items()})
    description = description.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    pixels: Pixels = "float32" if description.program == "float32" else "uint8"
    classifier, files = description.classifier(network), {}
    for name in wanted:
        if name == "safetensors":
            files[FILES[name]] = weights
        else:
            encode = to_pt2 if name == "pt2" else to_onnx
            files[FILES[name]] = encode(classifier, pixels, description.info)
    return description, files


def write_network(
    network: nn.Module,
    description: NetworkDescription,
    folder: Location,
    formats: Iterable[Format] = ("safetensors", "pt2"),
    weights: bytes | None = None,
) -> None:
    """Write a network's files and its description into a folder; see `encode_network`.

    Raises:
        ConfigError: a package is missing; nothing is written.
        ExportError: the network cannot be exported; nothing is written.
        StorageError: the folder cannot be written.
    """
    description, files = encode_network(network, description, formats, weights)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    description.write(folder)


def load_network(folder: Location) -> tuple[Architecture, nn.Module]:
    """Return the architecture and the trained network, in evaluation mode, from a folder written by `write_network`.

    Raises:
        StorageError: a file is missing, truncated, or was altered; the message says what to do.
    """
    architecture, weights = _read(folder)
    network = architecture.space.build(architecture.genotype)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise _damaged(folder / _WEIGHTS, error) from error
    return architecture, evaluation_mode(network)


def weights_file(folder: Location) -> Location:
    """Return the file of the weights in a network's folder."""
    return folder / _WEIGHTS


def check_network(folder: Location) -> None:
    """Make sure that a trained network's files exist, are complete, and can be read.

    Raises:
        StorageError: a file is not; the message names it.
    """
    _read(folder)
    (folder / _HISTORY).read_model(History)


def network_is_intact(folder: Location, say: Say) -> bool:
    """Return whether a trained network's files can be read; if they cannot, call ``say`` with the reason."""
    return is_intact(lambda: check_network(folder), say)


def _read(folder: Location) -> tuple[Architecture, dict[str, Tensor]]:
    description = NetworkDescription.read(folder)
    try:
        architecture = description.architecture
    except (DfnasError, ValueError) as error:
        raise _damaged(folder / _DESCRIPTION, error) from error
    file = folder / _WEIGHTS
    data = file.read_bytes()
    if description.weights_sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise StorageError(f"{file} is not the one that {folder / _DESCRIPTION} describes.{REMEDY}")
    try:
        return architecture, load(data)
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Location, error: Exception) -> StorageError:
    return StorageError(f"{file} is truncated, or was altered ({first_line(error)}). Delete it and run again.")
