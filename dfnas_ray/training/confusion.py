"""The classes that networks confuse, as a table that other tools can read: ``confusion.parquet``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfnas_ray.errors import StorageError, first_line
from dfnas_ray.storage.location import Location
from dfnas_ray.teachers.class_names import name_of
from dfnas_ray.training.evaluation import Confusion

_FILE = "confusion.parquet"
_SCHEMA = pa.schema(
    [
        ("network", pa.string()),
        ("label", pa.int64()),
        ("named", pa.int64()),
        ("images", pa.int64()),
        ("label_name", pa.string()),
        ("named_name", pa.string()),
    ]
)


class Mistake(NamedTuple):
    """A number of images of one class that a network takes for another class."""

    label: int
    named: int
    images: int


def write_confusion(folder: Location, confusion: Mapping[str, Confusion], names: Sequence[str] | None) -> None:
    """Write one row for each pair of a label and a class that a network predicts for it at least once.

    Args:
        folder: The folder of the evaluation.
        confusion: The confusion matrix of each network, by name.
        names: Names of the classes, if known.
    """
    rows = [
        (network, int(label), int(named), int(counts[label, named]))
        for network, counts in confusion.items()
        for label, named in np.argwhere(counts)
    ]
    named_rows = [(*row, name_of(row[1], names), name_of(row[2], names)) for row in rows]
    table = pa.Table.from_pylist([dict(zip(_SCHEMA.names, row, strict=True)) for row in named_rows], _SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    (folder / _FILE).write_bytes(memoryview(sink.getvalue()))


def worst_mistakes(folder: Location, network: str, at_most: int) -> list[Mistake]:
    """Return the most frequent mistakes of a network; none if an older version wrote the evaluation.

    Raises:
        StorageError: the file was altered.
    """
    file = folder / _FILE
    if not file.exists():
        return []
    try:
        with pq.ParquetFile(pa.BufferReader(file.read_bytes())) as parquet:
            table = parquet.read(["network", "label", "named", "images"])
        table = table.cast(pa.schema([_SCHEMA.field(name) for name in table.column_names]))
        wrong = pc.and_(pc.equal(table["network"], network), pc.not_equal(table["label"], table["named"]))
        table = table.filter(wrong).sort_by([("images", "descending"), ("label", "ascending"), ("named", "ascending")])
        rows = table.select(["label", "named", "images"]).slice(0, at_most).to_pylist()
        return [Mistake(int(row["label"]), int(row["named"]), int(row["images"])) for row in rows]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{file} does not hold a confusion table ({first_line(error)}). Run again.") from error
