"""Parquet files from strangers: a few bytes can say that one value is there a billion times."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


class TooLargeError(ValueError):
    """What is in a file would take more memory than such a file may; says so, as a part of a sentence."""


_EXPANSION, _ALWAYS = 100, 2**28
_ROWS = 256


def most_bytes(size: int) -> int:
    """Return how much what a file of so many bytes holds may take in memory: pictures are hardly compressed further."""
    return _EXPANSION * size + _ALWAYS


def _num_bytes(array: pa.Array) -> int:
    """Return what an array takes beside a dictionary, which all batches share."""
    if isinstance(array, pa.DictionaryArray):
        return int(array.indices.nbytes)
    if isinstance(array, pa.StructArray):
        return sum(_num_bytes(array.field(number)) for number in range(array.type.num_fields))
    return int(array.nbytes)


def read_columns(
    file: pq.ParquetFile, columns: Sequence[str], size: int, row_groups: Sequence[int] | None = None
) -> list[pa.RecordBatch]:
    """Return columns of a file in batches, decoded a few rows at a time so that it is noticed when they are too large.

    Args:
        file: Opened.
        columns: By their names.
        size: Bytes of the file.
        row_groups: Those to read; by default all.

    Raises:
        TooLargeError: they would take more memory than such a file may.
    """
    batches: list[pa.RecordBatch] = []
    held, most = 0, most_bytes(size)
    for batch in file.iter_batches(batch_size=_ROWS, row_groups=row_groups, columns=list(columns)):
        held += sum(map(_num_bytes, batch.columns))
        if held > most:
            raise TooLargeError(f"its {size:,} bytes expand to more than {most:,}")
        batches.append(batch)
    return batches
