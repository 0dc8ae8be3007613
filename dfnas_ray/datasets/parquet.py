"""Parquet files in the usual image layout: ``image: struct<bytes, path>``, ``label: integer``."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from PIL import Image
from pydantic import Field

from dfnas_ray.datasets.base import EVALUATION, DatasetSourceConfig, ImageDataset
from dfnas_ray.datasets.numbering import Numbering, listed
from dfnas_ray.errors import DatasetError, printable
from dfnas_ray.storage.location import user_path
from dfnas_ray.storage.pictures import PictureError, decode_picture
from dfnas_ray.storage.run_dir import fingerprint

_LAYOUT = (
    "It must be a Parquet file, or a folder of them, with the columns image: struct<bytes, path> and label: integer; "
    "image_column and label_column name others."
)
_SPLITS = {"training": "train", "valid": "validation", "val": "validation", "dev": "validation"}
_SPLIT = re.compile(r"(?:^|[/._-])(train|training|test|valid|val|validation|dev)(?=[./_-])")
_DAMAGED = (OSError, ValueError, LookupError, MemoryError, pa.ArrowException)
_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
_FORMAT = pyarrow.dataset.ParquetFileFormat(
    default_fragment_scan_options=pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
)
"""Compares the checksums of pages where a file has them."""


class _Parquet:
    def __init__(self, config: ParquetConfig, dataset: pyarrow.dataset.Dataset, setting: str):
        self.description = f"Parquet dataset {printable(config.path)}"
        self.config, self.dataset, self.setting = config, dataset, setting
        self.names = _names_of(dataset.schema, config.label_column)
        given = config.classes
        self.numbering = None if given is None and self.names is None else Numbering(given or self.names or ())
        self._class_of = None if given is None else self._classes_of_labels(given)
        self.num_rows: int = dataset.count_rows()

    @cached_property
    def columns(self) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """Encoded images and labels, read when the first image is asked for."""
        image, label = self.config.image_column, self.config.label_column
        table = self._read([image, label])
        # Chunked on purpose: a combined binary column would overflow its 32-bit offsets beyond 2 GiB.
        return pc.struct_field(table[image], "bytes"), table[label]

    @cached_property
    def fingerprint(self) -> str:
        """See `ImageDataset`; the labels are compared, too: others may well take as many bytes."""
        files = [(info.base_name, info.size) for info in self.dataset.filesystem.get_file_info(self.dataset.files)]
        column = self.config.label_column
        return fingerprint([files, self._read([column])[column].to_pylist()])

    def _classes_of_labels(self, given: tuple[str, ...]) -> dict[int, int]:
        """Return the class of each label, by the names that are given in the teacher's order.

        Raises:
            DatasetError: a label's name is none of them.
        """
        names = self.names or tuple(map(str, range(len(given))))
        if strangers := [name for name in names if name not in given]:
            raise DatasetError(
                f"{self.setting}.classes: {listed(strangers)} of {self.description} are none of the {len(given):,} classes that "
                "are given."
            )
        return {label: given.index(name) for label, name in enumerate(names)}

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
            if self._class_of is not None:
                if label not in self._class_of:
                    raise PictureError(f"its label {label} is none of the {len(self._class_of)} classes")
                label = self._class_of[label]
            return decode_picture(images[index].as_py()), label
        except PictureError as error:
            raise PictureError(f"{self._place(index)}: {error}") from error


def _names_of(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Return the names of classes that Hugging Face's `datasets` wrote into the schema, if they are there and make sense."""
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        names = feature["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    sound = isinstance(names, list) and 0 < len(names) == len(set(map(str, names)))
    return tuple(map(str, names)) if sound else None


class ParquetConfig(DatasetSourceConfig):
    """A Parquet file or a folder of them, as Hugging Face datasets publish images."""

    kind: Literal["parquet"]
    path: str = Field(description="File or folder, local or s3://, gs://; columns image{bytes, path} and label.")
    image_column: str = Field("image", description="Name of the column of images.")
    label_column: str = Field("label", description="Name of the column of labels.")
    split: str | None = Field(
        None, description="Of a folder with files of several splits, the one to read, such as test."
    )
    classes: tuple[str, ...] | None = Field(
        None,
        description="Names of the classes in the order of the teacher's outputs, where the file's labels have another.",
    )

    def open(self, setting: str = EVALUATION) -> ImageDataset:
        """Check the columns; images are read when the first one is asked for, and decoded one by one."""
        where = f"{setting}.path ({printable(self.path)})"
        try:
            path = self.path if "://" in self.path else str(user_path(self.path))
            dataset = self._of_split(pa.dataset.dataset(path, format=_FORMAT), where)
            opened = _Parquet(self, dataset, setting)
            schema = dataset.schema
            names = schema.names
            image = schema.field(self.image_column).type if self.image_column in names else pa.null()
            members = [member.name for member in image] if pa.types.is_struct(image) else []
            kind = image.field("bytes").type if "bytes" in members else pa.null()
            label = schema.field(self.label_column).type if self.label_column in names else pa.null()
        except FileNotFoundError as error:
            raise DatasetError(f"{where} does not exist. {_LAYOUT}") from error
        except _DAMAGED as error:
            raise DatasetError(f"{where} cannot be read: {printable(error)}. {_LAYOUT}") from error
        if not dataset.files:
            raise DatasetError(f"{where} holds no Parquet file. {_LAYOUT}")
        if "bytes" not in members:
            raise DatasetError(
                f"{where} has no column {self.image_column}: struct<bytes, path>; its columns are {listed(names)}. {_LAYOUT}"
            )
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not any(holds(kind) for holds in _BINARY):
            raise DatasetError(f"{where} has image.bytes of type {kind}, not binary. {_LAYOUT}")
        if not pa.types.is_integer(label):
            raise DatasetError(
                f"{where} has no integer column {self.label_column}; its columns are {listed(names)}. {_LAYOUT}"
            )
        return opened

    def _of_split(self, dataset: pyarrow.dataset.Dataset, where: str) -> pyarrow.dataset.Dataset:
        """Return the files of one split: those of several are never read as one set.

        Raises:
            DatasetError: there are several, and none was chosen, or none of its name.
        """
        by_split: dict[str, list[str]] = {}
        for file in dataset.files:
            found = _SPLIT.findall(file.removeprefix(self.path).lower())
            by_split.setdefault(_SPLITS.get(found[-1], found[-1]) if found else "", []).append(file)
        wanted = None if self.split is None else _SPLITS.get(self.split.lower(), self.split.lower())
        if wanted is None and len(by_split) < 2:
            return dataset
        if wanted not in by_split:
            held = ", ".join(f"{name or 'none'} ({len(files)})" for name, files in sorted(by_split.items()))
            raise DatasetError(
                f"{where} holds files of these splits: {held}. Choose one with split, such as split: test."
            )
        return pa.dataset.dataset(by_split[wanted], format=_FORMAT, filesystem=dataset.filesystem)
