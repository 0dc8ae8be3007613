"""A folder with one sub-folder of images per class."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

from PIL import Image
from pydantic import Field

from dfnas_ray.datasets.base import EVALUATION, DatasetSourceConfig, ImageDataset
from dfnas_ray.datasets.numbering import ClassNames, listed, number_names
from dfnas_ray.errors import DatasetError, printable, shortened
from dfnas_ray.storage.location import user_path
from dfnas_ray.storage.pictures import PictureError, decode_picture, is_picture
from dfnas_ray.storage.run_dir import fingerprint

logger = logging.getLogger(__name__)

_LAYOUT = "It must be a folder with one sub-folder of images per class."
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class _Folder:
    def __init__(self, path: Path, setting: str, given: tuple[str, ...] | None):
        self.path, self.description = path, f"image folder {printable(path)}"
        self.samples: list[tuple[str, int]] = []
        self.sizes: list[int] = []
        try:
            classes = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not _is_hidden(entry.name))
            left_out: list[str] = []
            found = [sorted(_image_files(path, name, left_out)) for name in classes]
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{setting}.path ({printable(path)}) cannot be used: {printable(error)}. {_LAYOUT}"
            ) from error
        if lacking := [printable(name) for name, files in zip(classes, found, strict=True) if not files]:
            raise DatasetError(
                f"{setting}.path ({printable(path)}) cannot be used: there are no images for the "
                f"classes {', '.join(lacking)}. {_LAYOUT}"
            )
        if not classes:
            raise DatasetError(f"{setting}.path ({printable(path)}) cannot be used: it has no sub-folder. {_LAYOUT}")
        if left_out:
            logger.warning("%s: files that are not images are left out: %s.", self.description, listed(left_out))
        labels, self.numbering = number_names(classes, given, f"{setting}.path ({printable(path)})")
        for label, files in zip(labels, found, strict=True):
            self.samples += [(os.path.join(*place), label) for *place, _ in files]  # noqa: PTH118 - a million of them
            self.sizes += [size for *_, size in files]

    @cached_property
    def fingerprint(self) -> str:
        """See `ImageDataset`."""
        names = (str(Path(file).relative_to(self.path)) for file, _ in self.samples)
        files = list(zip(names, self.sizes, strict=True))
        return fingerprint([self.numbering.names, files] if self.numbering.by == "number" else files)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.samples[index]
        try:
            return decode_picture(Path(path)), label
        except PictureError as error:
            raise PictureError(f"{printable(path)}: {error}") from error


def _is_hidden(name: str) -> bool:
    """Return whether a name begins with a dot, as names of files from systems and editors do."""
    return name.startswith(".")


def _image_files(root: Path, name: str, left_out: list[str]) -> Iterator[tuple[str, str, int]]:
    """Yield folder, name and size of each image of a class; links to folders are followed.

    Args:
        root: Folder of the dataset.
        name: Name of the class.
        left_out: A list to which the names of other files are added.

    Raises:
        OSError: a folder or file cannot be read, such as a link to nowhere.
        ValueError: a file is not a regular file, or a folder is reached twice, as in a loop of links.
    """
    seen = {os.path.realpath(root)}
    for folder, folders, names in os.walk(root / name, followlinks=True, onerror=_raise):
        folders[:] = [each for each in folders if not _is_hidden(each)]
        if (real := os.path.realpath(folder)) in seen:
            raise ValueError(f"{folder} is reached twice through symbolic links")
        seen.add(real)
        for file in names:
            if _is_hidden(file):
                continue
            path = Path(folder) / file
            if not file.lower().endswith(_EXTENSIONS) and not _begins_like_a_picture(path):
                left_out.append(f"{name}/{file}")
                continue
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{folder}/{file} is not a regular file")
            yield folder, file, status.st_size


def _begins_like_a_picture(file: Path) -> bool:
    try:
        return file.is_file() and is_picture(file)
    except OSError:  # neither its name nor its content shows that it is an image
        return False


def _raise(error: OSError) -> None:
    raise error


class ImageFolderConfig(DatasetSourceConfig):
    """Images in PATH/CLASS/*.png|jpg|...

    Folders called 0, 1, 2 are the classes of these numbers. Others are numbered in alphabetical order.
    """

    kind: Literal["image_folder"]
    path: Path = Field(description="The folder that holds one sub-folder per class.")
    classes: ClassNames = Field(
        None, description="Names of the sub-folders, in the order of the teacher's outputs. A class may have no folder."
    )

    def open(self, setting: str = EVALUATION) -> ImageDataset:
        """List the files; images are decoded when they are needed."""
        path = user_path(self.path)
        try:
            found = "" if path.is_dir() else "is a file, not a folder" if path.exists() else "does not exist"
        except (OSError, ValueError) as error:  # a name that no filesystem takes
            found = f"is not a valid path: {getattr(error, 'strerror', None) or error}"
        if found:
            raise DatasetError(f"{setting}.path ({shortened(str(path), 200)}) {found}. {_LAYOUT}")
        return _Folder(path, setting, self.classes)
