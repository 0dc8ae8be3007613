"""Parquet files in the usual image layout: ``image: struct<bytes, path>``, ``label: integer``."""

from __future__ import annotations

import json
import logging
import re
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq
from PIL import Image
from pyarrow import fs
from pydantic import Field

from dfnas_ray.datasets.base import EVALUATION, DatasetSourceConfig, ImageDataset
from dfnas_ray.datasets.numbering import ClassNames, Numbering, classes_of_labels, listed, number_names
from dfnas_ray.errors import DatasetError, printable
from dfnas_ray.storage.bounded import TooLargeError, read_columns
from dfnas_ray.storage.location import user_path
from dfnas_ray.storage.pictures import PictureError, decode_picture
from dfnas_ray.storage.run_dir import fingerprint
from dfnas_ray.storage.uri import is_uri

if TYPE_CHECKING:
    import pyarrow.dataset

logger = logging.getLogger(__name__)

_LAYOUT = (
    "It must be a Parquet file, or a folder of them, with the columns image: struct<bytes, path> and label: numbers or names; "
    "image_column and label_column name others."
)
_MAGIC = b"PAR1"
_SPLITS = {"training": "train", "valid": "validation", "val": "validation", "dev": "validation"}
_SPLIT = re.compile(r"(?:^|[/._-])(train|training|test|valid|val|validation|dev)(?=[./_-])")
_DAMAGED = (OSError, ValueError, LookupError, MemoryError, pa.ArrowException)
_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


class _Parquet:
    def __init__(self, config: ParquetConfig, dataset: pyarrow.dataset.Dataset, setting: str):
        self.description = f"Parquet dataset {printable(config.path)}"
        self.config, self.dataset, self.setting = config, dataset, setting
        self.num_rows = self._count_rows()
        self.names = _names_of(dataset.schema, config.label_column)
        self.numbering: Numbering | None = None
        self._class_of: dict[Any, int] | None = None
        given, kind = config.classes, dataset.schema.field(config.label_column).type
        if any(is_text(kind.value_type if pa.types.is_dictionary(kind) else kind) for is_text in _TEXT):
            self._take_names(given)
        elif given is not None:
            self._class_of, self.numbering = classes_of_labels(self.names, given), Numbering(given, is_given=True)
            known = set(given)
            if strangers := [name for name in self.names or () if name not in known]:
                raise DatasetError(
                    f"{setting}.classes: {listed(strangers)} of {self.description} are none of the {len(given):,} classes that "
                    "are given."
                )
        elif self.names is not None:
            self.numbering = Numbering(self.names)

    def _count_rows(self) -> int:
        """Return the number of rows that the footers of all files state.

        Raises:
            DatasetError: a footer states a number that cannot be.
        """
        total = 0
        for fragment in self.dataset.get_fragments():
            rows = fragment.count_rows()
            total += rows
            if rows < 0 or total > sys.maxsize:
                raise DatasetError(
                    f"{self.setting}: {self.description} cannot be read ({printable(fragment.path)}): it states {rows:,} rows. "
                    f"{_LAYOUT}"
                )
        return total

    def _take_names(self, given: tuple[str, ...] | None) -> None:
        """Number labels that are names, in the same way as the folders of an image folder.

        Raises:
            DatasetError: a label is not among the given names.
        """
        column = self.config.label_column
        names = [name for name in self._read([column])[column].unique().to_pylist() if name is not None]
        where = f"{self.setting}.path ({printable(self.config.path)})"
        labels, self.numbering = number_names(names, given, where, "labels")
        self._class_of = dict(zip(names, labels, strict=True))

    @cached_property
    def columns(self) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """Encoded images and labels, read at the first access."""
        image, label = self.config.image_column, self.config.label_column
        table = self._read([image, label])
        # Chunked on purpose: a combined binary column would overflow its 32-bit offsets beyond 2 GiB.
        pictures = table[image]
        return pc.struct_field(pictures, "bytes") if pa.types.is_struct(pictures.type) else pictures, table[label]

    @cached_property
    def fingerprint(self) -> str:
        """See `ImageDataset`. It includes the labels, because a file with other labels may have the same size."""
        files = [(info.base_name, info.size) for info in self._files()]
        column = self.config.label_column
        return fingerprint([files, self._read([column])[column].to_pylist()])

    def _read(self, columns: list[str]) -> pa.Table:
        schema = pa.schema([self.dataset.schema.field(name) for name in columns])
        try:
            parts = [self._of_file(info.path, info.size, schema) for info in self._files()]
            table = pa.concat_tables(parts) if parts else schema.empty_table()
            if len(table) != self.num_rows:
                raise ValueError(f"it states {self.num_rows:,} rows and has {len(table):,}")
            return table
        except TooLargeError as error:
            raise DatasetError(f"{self.setting}: {self.description} cannot be read: {error}. {_LAYOUT}") from error
        except _DAMAGED as error:
            place = self._damaged_rows(columns)
            raise DatasetError(
                f"{self.setting}: {self.description} cannot be read{place}: {printable(error)}. {_LAYOUT}"
            ) from error

    def _files(self) -> list[fs.FileInfo]:
        infos: list[fs.FileInfo] = self.dataset.filesystem.get_file_info(self.dataset.files)
        return infos

    def _of_file(self, path: str, size: int, schema: pa.Schema) -> pa.Table:
        with self.dataset.filesystem.open_input_file(path) as source:
            file = pq.ParquetFile(source, page_checksum_verification=True)
            batches = read_columns(file, schema.names, size)
            table = pa.Table.from_batches(batches) if batches else file.schema_arrow.empty_table()
            table = table.select(schema.names)
            return table if table.schema.equals(schema) else table.cast(schema)

    def _damaged_rows(self, columns: list[str]) -> str:
        """Return the file and rows that cannot be read, for a message."""
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
            if isinstance(label, float) and label.is_integer():
                label = int(label)
            if self._class_of is not None:
                if label not in self._class_of:
                    raise PictureError(f"its label {label} is none of the {len(self._class_of)} classes")
                label = self._class_of[label]
            if not isinstance(label, int):
                raise PictureError(f"its label {label} is not a whole number")
            return decode_picture(images[index].as_py()), int(label)
        except PictureError as error:
            raise PictureError(f"{self._place(index)}: {error}") from error


def _open(source: str | list[str], system: fs.FileSystem | None = None) -> pyarrow.dataset.Dataset:
    """Return a dataset of Parquet files, whose page checksums are verified if they have them."""
    import pyarrow.dataset as module  # imported late: it imports pandas, where that is installed

    options = module.ParquetFragmentScanOptions(page_checksum_verification=True)
    parquet = module.ParquetFileFormat(default_fragment_scan_options=options)
    if not source:
        return module.FileSystemDataset([], pa.schema([]), parquet)
    return module.dataset(source, format=parquet, filesystem=system)


def _dataset_at(path: str, where: str) -> tuple[pyarrow.dataset.Dataset, str]:
    """Return the dataset of a file, or of the Parquet files in a folder, and the root of their paths.

    Other files in a folder are left out.

    Raises:
        OSError: the file or folder does not exist.
    """
    system, place = (
        pa.fs.FileSystem.from_uri(path) if is_uri(path) else (pa.fs.LocalFileSystem(), str(Path(path).absolute()))
    )
    found = system.get_file_info(place)
    if found.type != pa.fs.FileType.Directory:
        return _open(path), path
    files: list[str] = []
    others: list[str] = []
    for info in system.get_file_info(pa.fs.FileSelector(place, recursive=True)):
        inner = info.path.removeprefix(place).strip("/")
        if info.type != pa.fs.FileType.File or any(part.startswith((".", "_")) for part in inner.split("/")):
            continue
        is_table = inner.lower().endswith((".parquet", ".pq")) or system.open_input_file(info.path).read(4) == _MAGIC
        (files if is_table else others).append(info.path if is_table else inner)
    if others and files:
        logger.warning("%s: files that are not Parquet are left out: %s.", where, listed(others))
    return _open(sorted(files), system), place


def _names_of(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Return the class names that Hugging Face's `datasets` wrote into the schema; None if there are no valid ones."""
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        names = feature["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    sound = isinstance(names, list) and 0 < len(names) == len(set(map(str, names)))
    return tuple(map(str, names)) if sound else None


class ParquetConfig(DatasetSourceConfig):
    """A Parquet file or a folder of them, in the layout of image datasets on Hugging Face."""

    kind: Literal["parquet"]
    path: str = Field(
        description="File or folder: local, s3:// or gs://. Its columns: image{bytes, path}, or bytes alone, and label."
    )
    image_column: str = Field("image", description="Name of the column of images.")
    label_column: str = Field("label", description="Name of the column of labels.")
    split: str | None = Field(
        None, description="The split to read, such as test, from a folder with files of several splits."
    )
    classes: ClassNames = Field(
        None,
        description="Names of the classes in the order of the teacher's outputs, if the file's labels have another "
        "order. The name of a label without a name is its number.",
    )

    def open(self, setting: str = EVALUATION) -> ImageDataset:
        """Check the columns. Images are read at the first access, and decoded one by one."""
        where = f"{setting}.path ({printable(self.path)})"
        try:
            path = self.path if is_uri(self.path) else str(user_path(self.path))
            dataset = self._of_split(*_dataset_at(path, where), where)
            schema = dataset.schema
            names = schema.names
            image = schema.field(self.image_column).type if self.image_column in names else pa.null()
            is_bare = any(holds(image) for holds in _BINARY)  # the bytes alone
            members = [member.name for member in image] if pa.types.is_struct(image) else ["bytes"] * is_bare
            kind = image if is_bare else image.field("bytes").type if "bytes" in members else pa.null()
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
        names_or_numbers = label.value_type if pa.types.is_dictionary(label) else label
        if not any(holds(names_or_numbers) for holds in (*_NUMBERS, *_TEXT)):
            raise DatasetError(
                f"{where} has no column {self.label_column} of numbers or names; its columns are {listed(names)}. {_LAYOUT}"
            )
        try:
            return _Parquet(self, dataset, setting)
        except _DAMAGED as error:
            raise DatasetError(f"{where} cannot be read: {printable(error)}. {_LAYOUT}") from error

    def _of_split(self, dataset: pyarrow.dataset.Dataset, root: str, where: str) -> pyarrow.dataset.Dataset:
        """Return the files of one split: files of several splits are never read as one set.

        Raises:
            DatasetError: there are several splits and none was chosen, or there is no split of this name.
        """
        by_split: dict[str, list[str]] = {}
        for file in dataset.files:
            found = _SPLIT.findall(file.removeprefix(root).lower())
            by_split.setdefault(_SPLITS.get(found[-1], found[-1]) if found else "", []).append(file)
        wanted = None if self.split is None else _SPLITS.get(self.split.lower(), self.split.lower())
        if wanted is None and len(by_split) < 2:
            return dataset
        if wanted not in by_split:
            held = ", ".join(f"{name or 'none'} ({len(files)})" for name, files in sorted(by_split.items()))
            raise DatasetError(
                f"{where} holds files of these splits: {held}. Choose one with split, such as split: test."
            )
        return _open(by_split[wanted], dataset.filesystem)
