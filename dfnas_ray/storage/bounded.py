"""Limits for Parquet files from unknown sources, in which a few bytes can stand for a billion equal values."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


class TooLargeError(ValueError):
    """A file's content would take more memory than its size justifies. The message is a part of a sentence."""


_EXPANSION, _ALWAYS = 100, 2**28
_ROWS = 256


def most_bytes(size: int) -> int:
    """Return the bytes of memory that a file of ``size`` bytes may take when it is read. Pictures hardly compress."""
    return _EXPANSION * size + _ALWAYS


def _num_bytes(array: pa.Array) -> int:
    """Return the bytes of an array, without its dictionary, which all batches share."""
    if isinstance(array, pa.DictionaryArray):
        return int(array.indices.nbytes)
    if isinstance(array, pa.StructArray):
        return sum(_num_bytes(array.field(number)) for number in range(array.type.num_fields))
    return int(array.nbytes)


def read_columns(
    file: pq.ParquetFile, columns: Sequence[str], size: int, row_groups: Sequence[int] | None = None
) -> list[pa.RecordBatch]:
    """Return columns of a file in batches. Only a few rows are decoded at a time, so that the limit is checked early.

    Args:
        file: The open file.
        columns: The names of the columns.
        size: The size of the file in bytes.
        row_groups: The row groups to read; by default all.

    Raises:
        TooLargeError: the columns would take more memory than a file of this size may.
    """
    batches: list[pa.RecordBatch] = []
    held, most = 0, most_bytes(size)
    for batch in file.iter_batches(batch_size=_ROWS, row_groups=row_groups, columns=list(columns)):
        held += sum(map(_num_bytes, batch.columns))
        if held > most:
            raise TooLargeError(f"its {size:,} bytes expand to more than {most:,}")
        batches.append(batch)
    return batches
