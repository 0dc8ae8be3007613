"""A folder with one sub-folder of images per class."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from PIL import Image
from pydantic import Field

from dfnas_ray.datasets.base import EVALUATION, DatasetSourceConfig, ImageDataset
from dfnas_ray.errors import DatasetError
from dfnas_ray.storage.run_dir import fingerprint

_LAYOUT = "It must be a folder with one sub-folder of images per class."


class _Folder:
    def __init__(self, path: Path, setting: str):
        from torchvision.datasets import ImageFolder

        self.path, self.description = path, f"image folder {path}"
        try:
            self.samples: list[tuple[str, int]] = ImageFolder(str(path)).samples
        except OSError as error:
            raise DatasetError(f"{setting}.path ({path}) cannot be used: {error} {_LAYOUT}") from error

    @cached_property
    def fingerprint(self) -> str:
        """See `ImageDataset`."""
        return fingerprint(
            [(str(Path(file).relative_to(self.path)), Path(file).stat().st_size) for file, _ in self.samples]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.samples[index]
        with Image.open(path) as image:
            return image.copy(), label


class ImageFolderConfig(DatasetSourceConfig):
    """Images in PATH/CLASS/*.png|jpg|...; classes are numbered in alphabetical order, as torchvision does."""

    kind: Literal["image_folder"]
    path: Path = Field(description="The folder that holds one sub-folder per class.")

    def open(self, setting: str = EVALUATION) -> ImageDataset:
        """List the files; images are decoded when they are asked for."""
        path = self.path.expanduser()
        if not path.is_dir():
            problem = "is a file, not a folder" if path.exists() else "does not exist"
            raise DatasetError(f"{setting}.path ({path}) {problem}. {_LAYOUT}")
        return _Folder(path, setting)
