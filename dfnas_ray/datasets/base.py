"""The contract of a labelled dataset, and the conversion of its images to a teacher's input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dfnas_ray.config.member import MemberConfig
from dfnas_ray.config.registry import describe, is_built_in
from dfnas_ray.datasets.class_order import compare_names
from dfnas_ray.datasets.numbering import Numbering
from dfnas_ray.datasets.resizing import Resizing
from dfnas_ray.errors import DatasetError, DfnasError, first_line

EVALUATION = "evaluation.dataset"
"""The setting of the evaluation's labelled images: the default name of a dataset in errors."""

_MEMBERS_OF_A_DATASET = ("__len__", "__getitem__", "description", "fingerprint")

_LARGEST_16_BITS = 65535


class ImageDataset(Protocol):
    """Real images with labels. ``dataset[i]`` is ``(PIL image, class index)``.

    A dataset that knows the names of its classes may also have ``numbering``, a
    `dfnas_ray.datasets.numbering.Numbering`.
    """

    description: str

    @property
    def fingerprint(self) -> str:
        """Identifies the files by their names and sizes. Results with another fingerprint are stale."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...


class DatasetSourceConfig(MemberConfig):
    """The common settings of all datasets.

    Attributes:
        kind: The name of this type of dataset in experiment files. Each type defines its own, as a field.
    """

    if TYPE_CHECKING:
        kind: str

    @abstractmethod
    def open(self, setting: str = EVALUATION) -> ImageDataset:
        """Return the dataset. Its files are looked up now; images are read when they are needed.

        Args:
            setting: The name of the dataset in errors.

        Raises:
            DatasetError: it is missing or cannot be used.
        """


def open_dataset(config: DatasetSourceConfig, setting: str = EVALUATION) -> ImageDataset:
    """Return the dataset of these settings.

    Args:
        config: The settings of the dataset.
        setting: The name of the dataset in errors.

    Raises:
        DatasetError: it cannot be opened. If a dataset of another package breaks the contract, the error names package,
            member and rule.
    """
    if is_built_in(type(config)):
        return config.open(setting)
    try:
        dataset: object = config.open(setting)
    except DfnasError:
        raise
    except Exception as error:  # code of another package may raise anything
        raise DatasetError(
            f"{setting}: the dataset {describe(type(config))} fails in open(): {type(error).__name__}: {first_line(error)}"
        ) from error
    missing = [name for name in _MEMBERS_OF_A_DATASET if name not in dir(dataset)]
    if missing:
        raise DatasetError(
            f"{setting}: the dataset {describe(type(config))} breaks its contract: open() must return an object with "
            f"{', '.join(_MEMBERS_OF_A_DATASET)}; {type(dataset).__name__} lacks {', '.join(missing)}."
        )
    return cast(ImageDataset, dataset)


def numbering_of(dataset: ImageDataset) -> Numbering | None:
    """Return the classes of a dataset in the order of their labels; None if it does not know them."""
    numbering = getattr(dataset, "numbering", None)
    return numbering if isinstance(numbering, Numbering) else None


def check_classes(
    dataset: ImageDataset, num_classes: int, setting: str = EVALUATION, class_names: Sequence[str] | None = None
) -> None:
    """Make sure that the classes of a dataset fit a teacher's, before an image is read.

    Args:
        dataset: The dataset.
        num_classes: The number of the teacher's classes.
        setting: The name of the dataset in errors.
        class_names: Names of the teacher's classes, if they are known.

    Raises:
        DatasetError: there are too many, or too few; see `Numbering.check`. Or their order differs; see `compare_names`.
    """
    if (numbering := numbering_of(dataset)) is not None:
        numbering.check(num_classes, setting, dataset.description)
        if class_names is not None:
            compare_names(numbering, class_names, setting, dataset.description)


def to_uint8(
    image: Image.Image, image_shape: tuple[int, int, int], where: str, resizing: Resizing | None = None
) -> Tensor:
    """Return the image as uint8 (C, H, W).

    Grey images become RGB if the teacher takes three channels, as with torchvision's loaders.

    Args:
        image: The image.
        image_shape: (C, H, W) of the teacher's input.
        where: The name of the image in errors.
        resizing: What happens to an image of another size; by default that of `Resizing`.

    Raises:
        DatasetError: the image has colours and the teacher takes one channel, its pixels have no known range, or it
            would be too large when resized.
    """
    channels, height, width = image_shape
    mode = {1: "L", 3: "RGB"}.get(channels)
    if mode is None:
        raise DatasetError(f"{where}: the teacher takes {channels} channels; image files have 1 or 3.")
    if mode == "L" and image.mode not in ("L", "1", "I;16", "I;16B", "I", "F"):
        image = _without_colour(image)
    if mode == "L" and image.mode == "RGB":
        raise DatasetError(
            f"{where}: the image has colours, and the teacher takes 1 channel. Give a dataset of grey "
            "images, or the teacher that was trained on colour."
        )
    if image.mode == "F":
        raise DatasetError(
            f"{where}: floating-point pixels (mode F) have no known range. Save the images with 8 or 16 bits."
        )
    if image.mode.startswith("I"):  # 16 bits: PIL would clip them instead of scaling
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > _LARGEST_16_BITS:
            raise DatasetError(
                f"{where}: whole numbers from {pixels.min()} to {pixels.max()} have no known range. Save the images with 8 or 16 "
                "bits."
            )
        scaled = np.divide(pixels, 257, dtype=np.float32)  # float32 suffices: no 16-bit value is near a tie
        image = Image.fromarray(scaled.round(out=scaled).clip(0, 255, out=scaled).astype(np.uint8))
    image = image.convert(mode)
    image = (resizing or Resizing()).apply(image, (height, width), where)
    array = np.array(image, dtype=np.uint8).reshape(height, width, channels)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def as_input(
    image: Image.Image, image_shape: tuple[int, int, int], where: str, dataset: ImageDataset, resizing: Resizing
) -> Tensor:
    """Return an image of a dataset as `to_uint8` does. The first one that is resized is said once."""
    size = image_shape[1], image_shape[2]
    if (image.height, image.width) != size:
        resizing.say(dataset.description, size)
    return to_uint8(image, image_shape, where, resizing)


def _without_colour(image: Image.Image) -> Image.Image:
    """Return an image without colours as one channel, however it is stored. Return any other image as RGB."""
    colours = image.convert("RGB")
    red, green, blue = colours.split()
    return red if red.tobytes() == green.tobytes() == blue.tobytes() else colours


def read_image(dataset: ImageDataset, index: int, setting: str) -> tuple[Image.Image, int, str]:
    """Return an image with its pixels decoded, its label, and its name in errors.

    Raises:
        DatasetError: it cannot be read.
    """
    where = f"{setting}: {dataset.description}, image {index}"
    try:
        item: Any = dataset[index]  # code of another package may return anything
        image, label = item
        if not (isinstance(image, Image.Image) and isinstance(label, int)):
            got = ", ".join(type(part).__name__ for part in item)
            raise DatasetError(f"{where}: an item must be (PIL image, int), not ({got}).")
        image.load()  # datasets of other packages may return images that Pillow has not decoded yet
    except DfnasError:
        raise
    except Exception as error:  # of any kind, because datasets and decoders differ
        raise DatasetError(f"{where} cannot be read: {error}") from error
    return image, label, where


def check_label(label: int, num_classes: int, where: str) -> None:
    """Make sure that a label is one of a teacher's classes.

    Raises:
        DatasetError: it is not.
    """
    if not 0 <= label < num_classes:
        raise DatasetError(
            f"{where}: label {label}, but the teacher has {num_classes} classes (0 to {num_classes - 1}). "
            "The dataset and the teacher must number the same classes from 0 on"
            + (
                ". If the labels begin at 1, name them in the teacher's order: classes: [1, 2, ...]."
                if label == num_classes
                else "."
            )
        )


class _Decoded(Dataset[tuple[Tensor, int]]):
    def __init__(self, dataset: ImageDataset, image_shape: tuple[int, int, int], num_classes: int, resizing: Resizing):
        self.dataset, self.image_shape, self.num_classes, self.resizing = dataset, image_shape, num_classes, resizing

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label, where = read_image(self.dataset, index, EVALUATION)
        check_label(label, self.num_classes, where)
        return as_input(image, self.image_shape, where, self.dataset, self.resizing), label


def iterate_batches(
    dataset: ImageDataset,
    image_shape: tuple[int, int, int],
    num_classes: int,
    batch_size: int = 256,
    class_names: Sequence[str] | None = None,
    resizing: Resizing | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (uint8 images (B, C, H, W), int64 labels (B,)) in the dataset's order. Batches are decoded when needed.

    Args:
        dataset: Real images with labels.
        image_shape: (C, H, W) of the teacher's input.
        num_classes: The number of the teacher's classes.
        batch_size: The number of images in a batch.
        class_names: Names of the teacher's classes, if they are known.
        resizing: What happens to images of another size; by default that of `Resizing`.

    Raises:
        DatasetError: the dataset is empty, an image cannot be read, or a label, a channel or the order of the classes does
            not fit the teacher.
    """
    if len(dataset) == 0:
        raise DatasetError(
            f"evaluation.dataset: {dataset.description} holds no images. Give one with at least one labelled image."
        )
    check_classes(dataset, num_classes, class_names=class_names)
    decoded = _Decoded(dataset, image_shape, num_classes, resizing or Resizing())
    yield from DataLoader(decoded, batch_size=batch_size, shuffle=False)
