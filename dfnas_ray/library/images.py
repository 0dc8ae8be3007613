"""A set of synthetic images as a Python object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dfnas_ray.errors import ConfigError, StorageError
from dfnas_ray.execution.base import Executor
from dfnas_ray.ops.regions import center_crop
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.storage.run_dir import RunDir, fingerprint
from dfnas_ray.storage.shard_sets import load_shards
from dfnas_ray.storage.shards import SyntheticImages, class_names_of, read_info, verify_entry
from dfnas_ray.storage.shared import Shared
from dfnas_ray.teachers.base import ImageShape, Teacher
from dfnas_ray.teachers.facts import TeacherDescription

_GRID = 100  # images of a grid by default
_PADDING = 2  # pixels between them


class Images:
    """Synthetic images with the teacher's logits. ``len(images)`` is their number.

    Attributes:
        data: Whole canvases, requested classes, rounds of calibration and the teacher's logits, as numpy arrays.
        teacher: The teacher that the images were made from.
    """

    name = "synthesis"  # the stage that made them

    def __init__(self, teacher: Teacher, folder: Location, manifest: Manifest, owned: object = None):
        """Read the images.

        Args:
            teacher: The teacher that the images were made from.
            folder: The folder with their shards, which `save` copies.
            manifest: The manifest of the folder.
            owned: An object that removes the folder at its own end; it lives as long as the images.
        """
        self.data, self.teacher = load_shards(folder, manifest), teacher
        self._folder, self._manifest, self._owned = folder, manifest, owned

    def __len__(self) -> int:
        return len(self.data)

    def pixels(self) -> Tensor:
        """Return what the teacher sees: the canvases' centres as uint8 (N, C, H, W)."""
        return self._centres(np.array(self.data.images))

    def _centres(self, canvases: np.ndarray[Any, Any]) -> Tensor:
        return center_crop(torch.from_numpy(canvases), self.teacher.image_shape[1:])

    def show(self, count: int = _GRID, columns: int | None = None) -> Image.Image:
        """Return a picture of a grid of images, evenly spread over the classes; a notebook shows it.

        Args:
            count: The largest number of images.
            columns: The number of columns; by default about as many as rows.
        """
        from torchvision.transforms.functional import to_pil_image
        from torchvision.utils import make_grid

        order = np.argsort(self.data.labels, kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]
        columns = columns or max(1, round(len(chosen) ** 0.5))
        pixels = self._centres(self.data.images[chosen])
        picture: Image.Image = to_pil_image(make_grid(pixels, columns, _PADDING, pad_value=255))
        return picture

    def dataset(self) -> Dataset[tuple[Tensor, Tensor]]:
        """Return the images as a dataset for `torch.utils.data.DataLoader`.

        Returns:
            Pairs of an image, float32 (C, H, W) in the teacher's normalisation, and its logits, float32 (num_classes,).
        """
        return _Pairs(self)

    def save(self, folder: str | Path) -> None:
        """Write Parquet shards and their manifest, for `load`, `load_images` and Hugging Face `datasets`.

        Args:
            folder: A path, or a URI such as s3://bucket/prefix.

        Raises:
            StorageError: the files that the images were loaded from are gone, or were altered.
        """
        target = Location.parse(folder, "folder").make_dir()
        for entry in self._manifest.shards:
            source = self._folder / entry.file
            if not source.exists():
                raise StorageError(f"The images were loaded from {source}, which is gone. Load or make them again.")
            data = source.read_bytes()
            verify_entry(data, entry, str(source))
            (target / entry.file).write_bytes(data)
        self._manifest.write(target)

    @classmethod
    def load(cls, folder: str | Path, teacher: Teacher) -> Self:
        """Return a set that `save` or the synthesis of a run has written.

        Args:
            folder: A path or a URI.
            teacher: The teacher that the images were made from.

        Raises:
            ConfigError: the images were made from another teacher.
            StorageError: the folder holds no set, or a shard was altered.
        """
        source = Location.parse(folder, "folder")
        manifest = Manifest.read(source)
        images = cls(teacher, source, manifest)
        channels, height, width = teacher.image_shape
        canvas, classes = images.data.images.shape[1:], images.data.logits.shape[1]
        if canvas[0] != channels or canvas[1] < height or canvas[2] < width or classes != teacher.num_classes:
            raise ConfigError(
                f"The images in {folder} are {canvas} with {classes} classes, and the teacher {teacher.name} takes "
                f"{teacher.image_shape} and knows {teacher.num_classes}. Give the teacher that they were made from."
            )
        for entry in manifest.shards[:1]:  # one shard is enough: all share one key, which includes the teacher
            _check_fingerprint(read_info(source / entry.file).teacher, teacher, f"The images in {folder}")
        return images

    # The interface that search and retraining use

    @property
    def key(self) -> str:
        """The fingerprint of the images."""
        return fingerprint([entry.sha256 for entry in self._manifest.shards])

    @property
    def canvas_size(self) -> tuple[int, int]:
        """Height and width of a stored image."""
        height, width = self.data.images.shape[2:]
        return height, width

    def check_teacher(self, teacher: Teacher) -> None:
        """Make sure that ``teacher`` is the one that the images were made from.

        Raises:
            ConfigError: it is another teacher.
        """
        _check_fingerprint(self.teacher.fingerprint, teacher, "The images")

    def images(self, executor: Executor) -> Shared[SyntheticImages]:
        """Return the images, shared with the workers of an executor."""
        return executor.share(self.data)


class LabelledImage(NamedTuple):
    """One synthetic image.

    Attributes:
        image: The centre of its canvas, which the teacher labelled, uint8 (C, H, W).
        label: The class that was asked for.
        logits: The logits of the teacher, float32 (num_classes,).
    """

    image: Tensor
    label: int
    logits: Tensor


class ImageSet(Dataset[LabelledImage]):
    """Synthetic images without their teacher, as a dataset for `torch.utils.data.DataLoader`.

    Attributes:
        data: Whole canvases, labels, rounds and logits, as numpy arrays.
        image_shape: The shape (C, H, W) of an image.
        class_names: The names of the classes; None in sets of older versions.
    """

    def __init__(self, data: SyntheticImages, image_shape: ImageShape, class_names: Sequence[str] | None):
        self.data, self.image_shape = data, image_shape
        self.class_names = None if class_names is None else tuple(class_names)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> LabelledImage:
        canvas = torch.from_numpy(np.array(self.data.images[index]))
        logits = torch.from_numpy(np.array(self.data.logits[index]))
        return LabelledImage(center_crop(canvas, self.image_shape[1:]), int(self.data.labels[index]), logits)


def load_images(run_dir: str | Path) -> ImageSet:
    """Return the synthetic images of a run directory, cropped to what the teacher sees.

    Those of a set that takes more than half of the free memory are kept in a temporary file.

    Args:
        run_dir: The path or URI of a run, or of a folder with shards, such as one written by `Images.save`.

    Raises:
        StorageError: there are no finished images, a shard was altered, or the set is of an older version without the
            size of an image.
    """
    place = Location.parse(run_dir)
    folder = place if (place / "manifest.json").exists() else RunDir(place).latest_stage("synthesis")
    if folder is None:
        raise StorageError(
            f"{place} holds no finished synthetic images. Run `dfnas synthesize FILE --run-dir {place}`, or give another folder."
        )
    manifest = Manifest.read(folder)
    data = load_shards(folder, manifest)
    first = folder / manifest.shards[0].file
    described, canvas = TeacherDescription.find(place), data.images.shape[1:]
    shape = read_info(first).image_shape or (list(described.image_shape) if described is not None else None)
    if shape is None or not _fits(shape, canvas):
        raise StorageError(
            f"{folder} does not say how large its images are within their canvases of {canvas}: it is of an older version. "
            "Load it with its teacher: dfnas_ray.Images.load(folder, teacher)."
        )
    return ImageSet(data, (shape[0], shape[1], shape[2]), class_names_of(first))


def _fits(shape: Sequence[int], canvas: Sequence[int]) -> bool:
    """Return whether a shape (C, H, W) fits into a canvas (C, H', W')."""
    return (
        len(shape) == len(canvas)
        and shape[0] == canvas[0]
        and all(0 < inner <= outer for inner, outer in zip(shape, canvas, strict=True))
    )


def _check_fingerprint(made_from: str, teacher: Teacher, what: str) -> None:
    if made_from != teacher.fingerprint:
        raise ConfigError(
            f"{what} were made from another teacher (sha256 {made_from[:12]}) than {teacher.name} "
            f"({teacher.fingerprint[:12]}). Give the teacher that they were made from, with the same weights, mean and std, "
            f"or make images from {teacher.name} with synthesize."
        )


class _Pairs(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, images: Images):
        self._data, self._teacher = images.data, images.teacher

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        centre = center_crop(torch.from_numpy(self._data.images[[index]]), self._teacher.image_shape[1:])
        return self._teacher.normalize(centre)[0], torch.from_numpy(np.array(self._data.logits[index]))
