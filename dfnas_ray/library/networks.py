"""A trained network as a Python object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from torch import Tensor, nn

from dfnas_ray.datasets.base import to_uint8
from dfnas_ray.datasets.resizing import Resizing
from dfnas_ray.errors import ConfigError
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.pictures import PictureError, decode_picture
from dfnas_ray.teachers.base import ImageShape, Teacher
from dfnas_ray.teachers.class_names import ClassNames
from dfnas_ray.training.classifier import ImageClassifier
from dfnas_ray.training.export import Format, NetworkDescription, load_network, write_network
from dfnas_ray.training.retraining import EpochFigures


class TrainedNetwork(ImageClassifier):
    """A network with its preprocessing: images in, logits out.

    Attributes:
        network: The network without preprocessing; it takes normalised images, as the teacher does.
        architecture: The architecture of the network.
        history: The figures of each training epoch; empty for a network that was loaded.
        class_names: The names of the classes in the order of the logits; None if they are unknown.
        resizing: What `prepare` does to pictures of another size.
    """

    def __init__(
        self,
        network: nn.Module,
        architecture: Architecture,
        image_shape: ImageShape,
        mean: Sequence[float],
        std: Sequence[float],
        history: Sequence[EpochFigures] = (),
        canvas_size: tuple[int, int] | None = None,
        class_names: ClassNames | None = None,
        resizing: Resizing | None = None,
    ):
        super().__init__(network, image_shape, mean, std, canvas_size, class_names)
        self.resizing = resizing or Resizing()
        self.architecture, self.history = architecture, list(history)

    def prepare(self, picture: Image.Image | str | Path) -> Tensor:
        """Return a picture of any size as a batch of one, uint8 (1, C, H, W).

        It is resized and cropped as for the evaluation, in the teacher's way; see `resizing`.

        Args:
            picture: A picture of Pillow, or the path of a file.

        Raises:
            DatasetError: the picture is in colour and the network takes grey, or it cannot be resized.
            ConfigError: the file is not a picture.
        """
        if not isinstance(picture, Image.Image):
            try:
                picture = decode_picture(Path(picture))
            except PictureError as error:
                raise ConfigError(f"The picture {picture} cannot be read: {error}.") from error
        return to_uint8(picture, self.image_shape, "The picture", self.resizing)[None]

    def check_teacher(self, teacher: Teacher, name: str = "This network") -> None:
        """Make sure that the network takes images that are prepared as for the teacher.

        Raises:
            ConfigError: their shape, mean or std differ.
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

    def save(self, folder: str | Path, teacher: Teacher, formats: Iterable[Format] = ("safetensors", "pt2")) -> None:
        """Write ``weights.safetensors``, ``network.pt2`` (uint8 images in, logits out) and ``network.json``.

        The network itself is not changed, and stays on its device.

        Args:
            folder: A path or a URI.
            teacher: The teacher whose inputs the network takes; its class names are used if the network has none.
            formats: The formats to write; ``onnx`` writes ``network.onnx`` and needs the extra of this name.

        Raises:
            ConfigError: the network was trained on images prepared for another teacher, or a package is missing.
            ExportError: the network cannot be exported.
        """
        self.check_teacher(teacher)
        target = Location.parse(folder, "folder")
        canvas = (self.canvas_size[0], self.canvas_size[1])
        description = NetworkDescription.of(self.architecture, teacher, canvas)
        if self.class_names is not None:
            description = description.model_copy(update={"class_names": self.class_names})
        write_network(self.network, description, target.make_dir(), formats)

    @classmethod
    def load(cls, folder: str | Path | Location) -> Self:
        """Return a network that `save`, `dfnas export` or the retraining of a run has written.

        Raises:
            StorageError: the folder holds no network, or a file was altered.
        """
        source = Location.parse(folder, "folder")
        architecture, network = load_network(source)
        known = NetworkDescription.read(source)
        return cls(
            network, architecture, known.image_shape, known.mean, known.std,
            canvas_size=known.canvas_size, class_names=known.class_names, resizing=known.resizing,
        )  # fmt: skip
