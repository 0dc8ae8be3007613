"""Any classification dataset of torchvision, by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from dfnas_ray.datasets.base import EVALUATION, DatasetSourceConfig, ImageDataset
from dfnas_ray.datasets.numbering import ClassNames, Numbering, classes_of_labels
from dfnas_ray.errors import DatasetError
from dfnas_ray.storage.location import user_path
from dfnas_ray.storage.pictures import PictureError, chosen_formats_only


class _Torchvision:
    def __init__(self, dataset: Any, description: str, given: Sequence[str] | None = None):
        self.dataset, self.description = dataset, description
        names = getattr(dataset, "classes", None)
        self.numbering = Numbering(tuple(map(_name, names))) if isinstance(names, list | tuple) and names else None
        self._class_of: dict[int, int] | None = None
        if given is not None:
            self._class_of = classes_of_labels(self.numbering.names if self.numbering else None, given)
            self.numbering = Numbering(tuple(given), is_given=True)

    @property
    def fingerprint(self) -> str:
        """See `ImageDataset`. It is the number of images, because torchvision does not tell which files it reads."""
        return f"{len(self.dataset)} images"

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        with chosen_formats_only():  # else torchvision opens files of every format that Pillow knows
            image, label = self.dataset[index]
            image.load()
        if self._class_of is None:
            return image, int(label)
        if int(label) not in self._class_of:
            raise PictureError(f"its label {label} is none of the {len(self._class_of)} classes that are given")
        return image, self._class_of[int(label)]


def _name(name: Any) -> str:
    """Return the name of a class; ImageNet's classes have several each."""
    return ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)


class TorchvisionDatasetConfig(DatasetSourceConfig):
    """A dataset of ``torchvision.datasets``, e.g. ``{kind: torchvision, name: CIFAR10, arguments: {train: false}}``."""

    kind: Literal["torchvision"]
    name: str = Field(description="Class name in torchvision.datasets, e.g. CIFAR10, ImageNet, Flowers102.")
    root: Path = Field(Path("datasets"), description="Folder of the files, or for the download.")
    arguments: dict[str, str | int | bool] = Field(
        default_factory=dict, description="Further arguments, e.g. {train: false, download: true} or {split: val}."
    )
    classes: ClassNames = Field(
        None,
        description="Names of the dataset's classes in the order of the teacher's outputs. Other classes are an error.",
    )

    def open(self, setting: str = EVALUATION) -> ImageDataset:
        """Return the dataset. With ``download: true`` among the arguments, torchvision downloads it first."""
        import torchvision.datasets

        if self.name.startswith("_") or self.name not in torchvision.datasets.__all__:
            near = difflib.get_close_matches(self.name, torchvision.datasets.__all__, n=1)
            advice = f"Did you mean {near[0]}?" if near else "Its names are e.g. CIFAR10, ImageNet, Flowers102."
            raise DatasetError(f"{setting}.name ({self.name}) is not in torchvision.datasets. {advice}")
        try:
            dataset = getattr(torchvision.datasets, self.name)(root=str(user_path(self.root)), **self.arguments)
        except (TypeError, ValueError) as error:  # an unknown argument, or a wrong value such as split: vall
            raise DatasetError(
                f"{setting}.arguments ({self.arguments}) do not fit torchvision's {self.name}: {error} "
                f"They must be arguments of torchvision.datasets.{self.name}."
            ) from error
        except (OSError, RuntimeError) as error:
            raise DatasetError(
                f"torchvision's {self.name} cannot be opened at {setting}.root ({self.root}): {error} "
                f"Put its files there, or set {setting}.arguments.download=true on a machine with network access."
            ) from error
        return _Torchvision(dataset, f"torchvision dataset {self.name}", self.classes)
