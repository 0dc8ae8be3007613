"""Tables of true accuracies: one architecture per row, in the notation of its search space."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from dfnas_ray.errors import ConfigError, DatasetError, GenotypeError, StorageError, shortened
from dfnas_ray.ranking.config import BenchmarkConfig
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import numpy_generator
from dfnas_ray.storage.bounded import TooLargeError, read_columns
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import fingerprint

_PARQUET_MAGIC = b"PAR1"
_DEFAULT_ACCURACY = "accuracy"


@dataclass(frozen=True)
class BenchmarkTable:
    """Architectures and their true accuracies.

    Attributes:
        architectures: The genotypes, all different, in the order of the rows.
        accuracies: float64 (N,), in the table's own units; finite.
        accuracy_column: The name of the column of accuracies.
    """

    architectures: tuple[Genotype, ...]
    accuracies: np.ndarray[Any, np.dtype[np.float64]]
    accuracy_column: str

    def __len__(self) -> int:
        return len(self.architectures)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the content, independent of the file."""
        return fingerprint([self.architectures, self.accuracies.tolist()])

    def take(self, rows: np.ndarray[Any, Any]) -> BenchmarkTable:
        """Return these rows, in the order given."""
        return BenchmarkTable(
            tuple(self.architectures[row] for row in rows), self.accuracies[rows], self.accuracy_column
        )

    def sample(self, config: BenchmarkConfig, seed: int) -> BenchmarkTable:
        """Return all usable rows, or ``benchmark.architectures`` of them, drawn without replacement.

        A larger sample with the same rows and seed contains the smaller one, so measurements can be reused.

        Raises:
            ConfigError: the table has too few rows.
        """
        first, end = config.rows or (0, len(self))
        if end > len(self):
            raise ConfigError(
                f"benchmark.rows [{first}, {end}] ends beyond the table, which has {len(self):,} rows. Set the end to "
                f"{len(self)} at most."
            )
        available = np.arange(first, end)
        count = config.architectures or len(available)
        if len(available) < 3:
            where = f"benchmark.rows [{first}, {end}] holds" if config.rows else f"The table {config.table} has"
            raise ConfigError(f"{where} {len(available)} row(s), but a ranking needs at least three.")
        if not 3 <= count <= len(available):
            where = f"benchmark.rows [{first}, {end}] holds" if config.rows else "the table has"
            raise ConfigError(
                f"benchmark.architectures ({count:,}) must be between 3 and the {len(available):,} rows that {where}."
            )
        drawn = numpy_generator(seed, "benchmark-sample").permutation(available)[:count]
        sample = self.take(np.sort(drawn))
        if np.ptp(sample.accuracies) == 0:
            raise ConfigError(
                f"benchmark: the {count:,} architectures drawn all have the same value ({sample.accuracies[0]:g}) in the column "
                f"{self.accuracy_column!r} of {config.table}: there is no order to agree with. Draw more with "
                "benchmark.architectures, or name another column with benchmark.accuracy_column."
            )
        return sample


def read_table(config: BenchmarkConfig, space: SearchSpace) -> BenchmarkTable:
    """Read the table that the settings name, and check all of it.

    Args:
        config: The settings with the names of the file and its columns.
        space: The space of the architectures; its input shape and number of classes do not matter.

    Raises:
        ConfigError: no table is set, a column does not exist, or the accuracy column is ambiguous.
        DatasetError: the file cannot be read, or a row has no architecture, no accuracy, a foreign architecture or one
            that occurs twice. The message gives the row, counted from 0.
    """
    table = _load(config)
    columns = table.column_names
    if config.architecture_column not in columns:
        raise ConfigError(
            f"benchmark.architecture_column ({config.architecture_column!r}) is not in the table {config.table}, whose "
            f"columns are {', '.join(columns)}."
        )
    if table.num_rows == 0:
        raise DatasetError(f"The table {config.table} has no rows.")
    texts = table[config.architecture_column]
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise DatasetError(
            f"The column {config.architecture_column} of the table {config.table} does not hold text, but {texts.type}. "
            "Architectures must be written as text."
        )
    name = _accuracy_column(table, config)
    return BenchmarkTable(_genotypes(texts.to_pylist(), space, config), _accuracies(table[name], name, config), name)


def table_uri(config: BenchmarkConfig) -> str:
    """Return the path or URI of the table.

    Raises:
        ConfigError: ``benchmark.table`` is not set.
    """
    if config.table is None:
        raise ConfigError(
            "benchmark.table is not set. Give a CSV or Parquet file with true accuracies: --table FILE, or "
            "--set benchmark.table=FILE."
        )
    return config.table


def _load(config: BenchmarkConfig) -> pa.Table:
    where = f"benchmark.table ({config.table})"
    uri = table_uri(config)
    try:
        file = Location.parse(uri, "benchmark.table")
        if not file.exists():
            raise DatasetError(f"{where} does not exist.")
        data = file.read_bytes()
    except StorageError as error:
        raise DatasetError(f"{where} cannot be read: {error}") from error
    try:
        if data.startswith(_PARQUET_MAGIC):
            table = pq.ParquetFile(pa.BufferReader(data))
            batches = read_columns(table, table.schema_arrow.names, len(data))
            read = pa.Table.from_batches(batches) if batches else table.schema_arrow.empty_table()
            return _with_plain_columns(read, where)
        # Text that looks like a number, as genotypes may, must stay text.
        convert = pa.csv.ConvertOptions(
            column_types={config.architecture_column: pa.string()}, strings_can_be_null=True
        )
        return _with_plain_columns(pa.csv.read_csv(pa.BufferReader(data), convert_options=convert), where)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{where} cannot be read: it is not UTF-8. Save it as CSV in UTF-8, or as Parquet."
        ) from error
    except (pa.ArrowException, OSError, TooLargeError) as error:
        raise DatasetError(
            f"{where} cannot be read: {shortened(' '.join(str(error).split()))}. It must be a CSV file with a line of column "
            "names, or a Parquet file."
        ) from error


def _with_plain_columns(table: pa.Table, where: str) -> pa.Table:
    """Return the table, if the names of its columns are all different.

    Raises:
        DatasetError: a name occurs twice.
        UnicodeDecodeError: a name is not UTF-8.
    """
    names = table.column_names
    if twice := sorted(name for name, times in Counter(names).items() if times > 1):
        raise DatasetError(f"{where} has the column {shortened(twice[0], 60)} twice. Keep one.")
    return table


def _accuracy_column(table: pa.Table, config: BenchmarkConfig) -> str:
    columns = [name for name in table.column_names if name != config.architecture_column]
    numeric = [name for name in columns if _is_number(table.schema.field(name).type)]
    name = config.accuracy_column
    if name is None:
        name = _DEFAULT_ACCURACY if _DEFAULT_ACCURACY in columns else numeric[0] if len(numeric) == 1 else None
    if name is None:
        why = "several columns of numbers" if numeric else "no column of numbers"
        raise ConfigError(
            f"The table {config.table} has {why}. Name the column of accuracies with benchmark.accuracy_column; the columns "
            f"are {', '.join(table.column_names)}."
        )
    if name not in table.column_names:
        raise ConfigError(
            f"benchmark.accuracy_column ({name!r}) is not in the table {config.table}, whose columns are "
            f"{', '.join(table.column_names)}."
        )
    if name not in numeric:
        raise DatasetError(
            f"The column {name} of the table {config.table} does not hold numbers, but {table.schema.field(name).type}."
        )
    return name


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)


def _accuracies(column: pa.ChunkedArray, name: str, config: BenchmarkConfig) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = np.array([np.nan if value is None else float(value) for value in column.to_pylist()], dtype=np.float64)
    missing = np.flatnonzero(~np.isfinite(values))
    if len(missing):
        raise DatasetError(
            f"The table {config.table} has no finite value for {name} in {_rows(missing)}. Every architecture needs one."
        )
    return values


def _genotypes(texts: list[str | None], space: SearchSpace, config: BenchmarkConfig) -> tuple[Genotype, ...]:
    missing = np.flatnonzero([not text for text in texts])
    if len(missing):
        raise DatasetError(f"The table {config.table} names no architecture in {_rows(missing)}.")
    seen: dict[Genotype, int] = {}
    for row, text in enumerate(texts):
        assert text is not None
        try:
            genotype = space.decode(text)
        except GenotypeError as error:
            raise DatasetError(f"The table {config.table}, row {row}: {error}") from error
        if genotype in seen:
            raise DatasetError(
                f"The table {config.table} has the architecture {text} twice, in rows {seen[genotype]} and {row}. Keep one."
            )
        seen[genotype] = row
    return tuple(seen)


def _rows(rows: np.ndarray[Any, Any]) -> str:
    """Return rows as text: row 3 (counted from 0), or row 3 and 17 more (counted from 0)."""
    return f"row {rows[0]}" + (f" and {len(rows) - 1} more" if len(rows) > 1 else "") + " (counted from 0)"
