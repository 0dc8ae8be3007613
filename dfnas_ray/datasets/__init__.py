"""Labelled real images, for evaluation and comparison. Synthesis, search and retraining never import from here.

A dataset's settings have ``open(setting)``; the argument is what errors call it.
"""

from typing import Annotated

from pydantic import Field

from dfnas_ray.datasets.base import ImageDataset
from dfnas_ray.datasets.digits import DigitsConfig
from dfnas_ray.datasets.image_folder import ImageFolderConfig
from dfnas_ray.datasets.parquet import ParquetConfig
from dfnas_ray.datasets.torchvision_datasets import TorchvisionDatasetConfig

DatasetConfig = Annotated[
    DigitsConfig | ImageFolderConfig | ParquetConfig | TorchvisionDatasetConfig, Field(discriminator="kind")
]

__all__ = [
    "DatasetConfig",
    "DigitsConfig",
    "ImageDataset",
    "ImageFolderConfig",
    "ParquetConfig",
    "TorchvisionDatasetConfig",
]
