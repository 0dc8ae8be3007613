"""Parquet files in the usual image layout: ``image: struct<bytes, path>``, ``label: integer``."""

from __future__ import annotations

from io import BytesIO
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from dfnas_ray.datasets.base import ImageDataset
from dfnas_ray.errors import DatasetError


class _Parquet:
    def __init__(self, path: str, table: pa.Table):
        self.description = f"Parquet dataset {path}"
        # Chunked on purpose: a combined binary column would overflow its 32-bit offsets beyond 2 GiB.
        self.images = pc.struct_field(table["image"], "bytes")
        self.labels = table["label"].to_numpy()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.open(BytesIO(self.images[index].as_py())), int(self.labels[index])


class ParquetConfig(BaseModel):
    """A Parquet file or a folder of them, as Hugging Face datasets publish images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["parquet"]
    path: str = Field(description="File or folder, local or s3://, gs://; columns image{bytes, path} and label.")

    def open(self) -> ImageDataset:
        """Read the encoded images into memory; they are decoded when they are asked for."""
        where = f"Parquet dataset {self.path}"
        try:
            dataset = pa.dataset.dataset(self.path, format="parquet")
        except FileNotFoundError as error:
            raise DatasetError(f"{where} does not exist. Set its path in the dataset.") from error
        except (OSError, pa.ArrowInvalid) as error:
            raise DatasetError(f"{where} cannot be read: {error}") from error
        schema = dataset.schema
        image = schema.field("image").type if "image" in schema.names else None
        if image is None or not pa.types.is_struct(image) or "bytes" not in [f.name for f in image]:
            raise DatasetError(f"{where} has no column image: struct<bytes, path>; its columns are {schema.names}.")
        if "label" not in schema.names or not pa.types.is_integer(schema.field("label").type):
            raise DatasetError(f"{where} has no integer column label; its columns are {schema.names}.")
        try:
            return _Parquet(self.path, dataset.to_table(columns=["image", "label"]))
        except (OSError, pa.ArrowInvalid) as error:
            raise DatasetError(f"{where} cannot be read: {error}") from error
