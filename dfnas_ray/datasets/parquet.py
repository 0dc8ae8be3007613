"""Parquet files in the usual image layout: ``image: struct<bytes, path>``, ``label: integer``."""

from __future__ import annotations

from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from PIL import Image
from pydantic import Field

from dfnas_ray.datasets.base import EVALUATION, DatasetSourceConfig, ImageDataset
from dfnas_ray.errors import DatasetError
from dfnas_ray.storage.run_dir import fingerprint

_LAYOUT = (
    "It must be a Parquet file, or a folder of them, with the columns image: struct<bytes, path> and label: integer."
)


class _Parquet:
    def __init__(self, path: str, dataset: pyarrow.dataset.Dataset, setting: str):
        self.description = f"Parquet dataset {path}"
        self.dataset, self.setting = dataset, setting
        self.num_rows: int = dataset.count_rows()

    @cached_property
    def columns(self) -> tuple[pa.ChunkedArray, np.ndarray[Any, Any]]:
        """Encoded images and labels, read when the first image is asked for."""
        try:
            table = self.dataset.to_table(columns=["image", "label"])
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{self.setting}: {self.description} cannot be read: {error}. {_LAYOUT}") from error
        # Chunked on purpose: a combined binary column would overflow its 32-bit offsets beyond 2 GiB.
        return pc.struct_field(table["image"], "bytes"), table["label"].to_numpy()

    @cached_property
    def fingerprint(self) -> str:
        """See `ImageDataset`; the labels are compared, too: others may well take as many bytes."""
        files = [(info.base_name, info.size) for info in self.dataset.filesystem.get_file_info(self.dataset.files)]
        return fingerprint([files, self.dataset.to_table(columns=["label"])["label"].to_pylist()])

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        images, labels = self.columns
        return Image.open(BytesIO(images[index].as_py())), int(labels[index])


class ParquetConfig(DatasetSourceConfig):
    """A Parquet file or a folder of them, as Hugging Face datasets publish images."""

    kind: Literal["parquet"]
    path: str = Field(description="File or folder, local or s3://, gs://; columns image{bytes, path} and label.")

    def open(self, setting: str = EVALUATION) -> ImageDataset:
        """Check the columns; images are read when the first one is asked for, and decoded one by one."""
        where = f"{setting}.path ({self.path})"
        try:
            path = self.path if "://" in self.path else str(Path(self.path).expanduser())
            dataset = pa.dataset.dataset(path, format="parquet")
            opened = _Parquet(self.path, dataset, setting)
        except FileNotFoundError as error:
            raise DatasetError(f"{where} does not exist. {_LAYOUT}") from error
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{where} cannot be read: {error}. {_LAYOUT}") from error
        if not dataset.files:
            raise DatasetError(f"{where} holds no Parquet file. {_LAYOUT}")
        schema = dataset.schema
        image = schema.field("image").type if "image" in schema.names else None
        if image is None or not pa.types.is_struct(image) or "bytes" not in [f.name for f in image]:
            raise DatasetError(
                f"{where} has no column image: struct<bytes, path>; its columns are {schema.names}. {_LAYOUT}"
            )
        if "label" not in schema.names or not pa.types.is_integer(schema.field("label").type):
            raise DatasetError(f"{where} has no integer column label; its columns are {schema.names}. {_LAYOUT}")
        return opened
