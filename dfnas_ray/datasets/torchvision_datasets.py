"""Any classification dataset of torchvision, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from dfnas_ray.datasets.base import ImageDataset
from dfnas_ray.errors import DatasetError


class _Torchvision:
    def __init__(self, dataset: Any, description: str):
        self.dataset, self.description = dataset, description

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image, label = self.dataset[index]
        return image, int(label)


class TorchvisionDatasetConfig(BaseModel):
    """A dataset of ``torchvision.datasets``, e.g. ``{kind: torchvision, name: CIFAR10, arguments: {train: false}}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["torchvision"]
    name: str = Field(description="Class name in torchvision.datasets, e.g. CIFAR10, ImageNet, Flowers102.")
    root: Path = Field(Path("datasets"), description="Where the files are, or are downloaded to.")
    arguments: dict[str, str | int | bool] = Field(
        default_factory=dict, description="Further arguments, e.g. {train: false, download: true} or {split: val}."
    )

    def open(self) -> ImageDataset:
        """Construct the dataset; with ``download: true`` among the arguments, torchvision fetches it first."""
        import torchvision.datasets

        where = f"torchvision dataset {self.name}"
        if self.name.startswith("_") or self.name not in torchvision.datasets.__all__:
            raise DatasetError(
                f"{where} does not exist. See torchvision.datasets for the names, e.g. CIFAR10, ImageNet."
            )
        try:
            dataset = getattr(torchvision.datasets, self.name)(root=str(self.root.expanduser()), **self.arguments)
        except TypeError as error:
            raise DatasetError(f"{where} does not take these arguments {self.arguments}: {error}") from error
        except (OSError, RuntimeError, ValueError) as error:
            raise DatasetError(
                f"{where} cannot be opened at {self.root}: {error} "
                "Put the files there, or set dataset.arguments.download=true on a machine with network access."
            ) from error
        return _Torchvision(dataset, where)
