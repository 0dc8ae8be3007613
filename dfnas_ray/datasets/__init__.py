"""Labelled real images, for evaluation and comparison. Synthesis, search and retraining never import from here.

To add a dataset, write a module with a config that has ``kind`` and ``open(setting) -> ImageDataset``. Then add a line
for it to `DATASETS`, or an entry point in a package of your own. ``setting`` is the name of the dataset in errors.
"""

from typing import Annotated

from dfnas_ray.config.registry import Family
from dfnas_ray.datasets.base import DatasetSourceConfig, ImageDataset
from dfnas_ray.datasets.digits import DigitsConfig
from dfnas_ray.datasets.hard_digits import HardDigitsConfig
from dfnas_ray.datasets.image_folder import ImageFolderConfig
from dfnas_ray.datasets.parquet import ParquetConfig
from dfnas_ray.datasets.torchvision_datasets import TorchvisionDatasetConfig

DATASETS: Family[DatasetSourceConfig] = Family(
    "dataset",
    DatasetSourceConfig,  # type: ignore[type-abstract]  # only its members are made
    {
        "digits": "dfnas_ray.datasets.digits:DigitsConfig",
        "hard_digits": "dfnas_ray.datasets.hard_digits:HardDigitsConfig",
        "image_folder": "dfnas_ray.datasets.image_folder:ImageFolderConfig",
        "parquet": "dfnas_ray.datasets.parquet:ParquetConfig",
        "torchvision": "dfnas_ray.datasets.torchvision_datasets:TorchvisionDatasetConfig",
    },
)
"""Every type of dataset by its kind."""

DatasetConfig = Annotated[DatasetSourceConfig, DATASETS]

__all__ = [
    "DATASETS",
    "DatasetConfig",
    "DatasetSourceConfig",
    "DigitsConfig",
    "HardDigitsConfig",
    "ImageDataset",
    "ImageFolderConfig",
    "ParquetConfig",
    "TorchvisionDatasetConfig",
]
