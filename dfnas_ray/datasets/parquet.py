"""Parquet files in the usual image layout: ``image: struct<bytes, path>``, ``label: integer``."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from PIL import Image
from pydantic import Field

from dfnas_ray.datasets.base import EVALUATION, DatasetSourceConfig, ImageDataset
from dfnas_ray.errors import DatasetError, printable
from dfnas_ray.storage.pictures import PictureError, decode_picture
from dfnas_ray.storage.run_dir import fingerprint

_LAYOUT = (
    "It must be a Parquet file, or a folder of them, with the columns image: struct<bytes, path> and label: integer."
)
_DAMAGED = (OSError, ValueError, LookupError, MemoryError, pa.ArrowException)
_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
_FORMAT = pyarrow.dataset.ParquetFileFormat(
    default_fragment_scan_options=pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
)
"""Compares the checksums of pages where a file has them."""


class _Parquet:
    def __init__(self, path: str, dataset: pyarrow.dataset.Dataset, setting: str):
        self.description = f"Parquet dataset {printable(path)}"
        self.dataset, self.setting = dataset, setting
        self.num_rows: int = dataset.count_rows()

    @cached_property
    def columns(self) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """Encoded images and labels, read when the first image is asked for."""
        table = self._read(["image", "label"])
        # Chunked on purpose: a combined binary column would overflow its 32-bit offsets beyond 2 GiB.
        return pc.struct_field(table["image"], "bytes"), table["label"]

    @cached_property
    def fingerprint(self) -> str:
        """See `ImageDataset`; the labels are compared, too: others may well take as many bytes."""
        files = [(info.base_name, info.size) for info in self.dataset.filesystem.get_file_info(self.dataset.files)]
        return fingerprint([files, self._read(["label"])["label"].to_pylist()])

    def _read(self, columns: list[str]) -> pa.Table:
        try:
            return self.dataset.to_table(columns=columns)
        except _DAMAGED as error:
            place = self._damaged_rows(columns)
            raise DatasetError(
                f"{self.setting}: {self.description} cannot be read{place}: {printable(error)}. {_LAYOUT}"
            ) from error

    def _damaged_rows(self, columns: list[str]) -> str:
        """Return which rows of which file cannot be read."""
        for fragment in self.dataset.get_fragments():
            place = printable(fragment.path)
            try:
                first, groups = 0, fragment.split_by_row_group()
                for group in groups:
                    rows = group.row_groups[0].num_rows
                    place = f"{printable(fragment.path)}, rows {first} to {first + rows - 1}"
                    group.to_table(columns=columns, schema=self.dataset.schema)
                    first += rows
            except _DAMAGED:
                return f" ({place})"
        return ""

    def _place(self, index: int) -> str:
        for fragment in self.dataset.get_fragments():
            if index < (rows := fragment.count_rows()):
                return f"{printable(fragment.path)}, row {index}"
            index -= rows
        raise IndexError(index)

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        images, labels = self.columns
        try:
            if (label := labels[index].as_py()) is None:
                raise PictureError("it has no label")
            return decode_picture(images[index].as_py()), label
        except PictureError as error:
            raise PictureError(f"{self._place(index)}: {error}") from error


class ParquetConfig(DatasetSourceConfig):
    """A Parquet file or a folder of them, as Hugging Face datasets publish images."""

    kind: Literal["parquet"]
    path: str = Field(description="File or folder, local or s3://, gs://; columns image{bytes, path} and label.")

    def open(self, setting: str = EVALUATION) -> ImageDataset:
        """Check the columns; images are read when the first one is asked for, and decoded one by one."""
        where = f"{setting}.path ({printable(self.path)})"
        try:
            path = self.path if "://" in self.path else str(Path(self.path).expanduser())
            dataset = pa.dataset.dataset(path, format=_FORMAT)
            opened = _Parquet(self.path, dataset, setting)
            schema = dataset.schema
            names = schema.names
            image = schema.field("image").type if "image" in names else pa.null()
            members = [member.name for member in image] if pa.types.is_struct(image) else []
            kind = image.field("bytes").type if "bytes" in members else pa.null()
            label = schema.field("label").type if "label" in names else pa.null()
        except FileNotFoundError as error:
            raise DatasetError(f"{where} does not exist. {_LAYOUT}") from error
        except _DAMAGED as error:
            raise DatasetError(f"{where} cannot be read: {printable(error)}. {_LAYOUT}") from error
        if not dataset.files:
            raise DatasetError(f"{where} holds no Parquet file. {_LAYOUT}")
        if "bytes" not in members:
            raise DatasetError(f"{where} has no column image: struct<bytes, path>; its columns are {names}. {_LAYOUT}")
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not any(holds(kind) for holds in _BINARY):
            raise DatasetError(f"{where} has image.bytes of type {kind}, not binary. {_LAYOUT}")
        if not pa.types.is_integer(label):
            raise DatasetError(f"{where} has no integer column label; its columns are {names}. {_LAYOUT}")
        return opened
