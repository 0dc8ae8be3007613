"""Latency tables: the time of each option of a space on a device, measured once, saved and used again.

A network's latency is estimated as the sum over its parts, as ProxylessNAS does (Cai et al. 2019, arXiv:1812.00332,
Sec. 3.3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from dfnas_ray.errors import ConfigError
from dfnas_ray.ops.latency import device_name, measure_latency
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.storage.location import Location


class LatencyTable(BaseModel):
    """Seconds of each part of a space on one device.

    Attributes:
        space: The kind of the space.
        num_options: Number of options of each mixed operation.
        image_shape: (C, H, W).
        num_classes: Number of classes of the classifier.
        device: Name of the device.
        threads: Number of threads of a forward pass on a CPU.
        batch_size: Images per forward pass.
        parts: Names of all measured parts, in order; two spaces with equal names have equal parts.
        fixed: Seconds that every architecture takes.
        options: Seconds of each option, by mixed operation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: str
    num_options: tuple[int, ...]
    image_shape: tuple[int, int, int]
    num_classes: int
    device: str
    threads: int
    batch_size: int
    parts: tuple[str, ...]
    fixed: float
    options: tuple[tuple[float, ...], ...]

    def latency(self, space: SearchSpace, genotype: Genotype) -> float:
        """Return the estimated latency of an architecture, in seconds."""
        chosen = zip(self.options, space.choices(genotype), strict=True)
        return self.fixed + sum(row[choice] for row, choice in chosen if choice is not None)

    def save(self, file: str) -> None:
        """Write the table as JSON."""
        Location.parse(file).write_bytes(self.model_dump_json(indent=1).encode())


def measure_latency_table(
    space: SearchSpace,
    device: torch.device,
    batch_size: int = 1,
    min_seconds: float = 0.05,
    on_part: Callable[[int, int], None] = lambda done, total: None,
) -> LatencyTable:
    """Measure every different part of a space, and return the table.

    Args:
        space: The space; the parts of its stand-alone networks are measured.
        device: The device that the search is for.
        batch_size: Images per forward pass.
        min_seconds: Shortest measuring time of each part.
        on_part: Called after each part with the number of parts measured and the number of all parts.
    """
    parts = list(space.parts())
    distinct = {(part.key, part.input_shape): part for part in parts}
    seconds: dict[Hashable, float] = {}
    for key, part in distinct.items():
        seconds[key] = measure_latency(part.make(), part.input_shape, batch_size, device, min_seconds)
        on_part(len(seconds), len(distinct))
    fixed, options = 0.0, [[0.0] * count for count in space.num_options]
    for part in parts:
        value = seconds[part.key, part.input_shape]
        if part.option is None:
            fixed += value
        else:
            options[part.option[0]][part.option[1]] += value
    return LatencyTable(
        space=space.kind,
        num_options=space.num_options,
        image_shape=space.image_shape,
        num_classes=space.num_classes,
        device=device_name(device),
        threads=torch.get_num_threads(),
        batch_size=batch_size,
        parts=_names(space),
        fixed=fixed,
        options=tuple(map(tuple, options)),
    )


def load_latency_table(file: str, space: SearchSpace, device: str | None = None) -> LatencyTable:
    """Read a table and make sure that it belongs to this space and device.

    Args:
        file: A file written by `LatencyTable.save`.
        space: The space of the table, with the same sizes and shapes.
        device: The name of the target device; None for this machine's GPU, or its CPU if it has no GPU.

    Raises:
        ConfigError: the table cannot be read, or belongs to another space or device.
    """
    table = read_latency_table(file, space)
    target = device or device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if table.device != target:
        raise ConfigError(
            f"search.algorithm.cost.file ({file}) was measured on {table.device!r}, not on {target!r}. To search for "
            f"{table.device!r}, set search.algorithm.cost.device to it; otherwise measure a table on {target!r}."
        )
    return table


def read_latency_table(file: str, space: SearchSpace) -> LatencyTable:
    """Read a table of any device and make sure that it belongs to this space, with the same sizes and shapes.

    Raises:
        ConfigError: the table cannot be read, or belongs to another space.
    """
    setting = f"search.algorithm.cost.file ({file})"
    location = Location.parse(file)
    if not location.exists():
        raise ConfigError(f"{setting} is not there. Measure it with: dfnas space latency {space.kind} --out {file}")
    try:
        table = LatencyTable.model_validate_json(location.read_bytes())
    except ValidationError as error:
        raise ConfigError(
            f"{setting} is not a latency table ({error.error_count()} faults). Measure it again."
        ) from error
    if table.space != space.kind:
        raise ConfigError(f"{setting} is a table of {table.space}, not of {space.kind}. Measure one for {space.kind}.")
    same = (table.num_options, table.image_shape, table.num_classes, table.parts)
    if same != (space.num_options, space.image_shape, space.num_classes, _names(space)):
        raise ConfigError(
            f"{setting} is a table of {space.kind} in another size (images {table.image_shape}, {table.num_classes} "
            f"classes), not with images {space.image_shape}, {space.num_classes} classes and the widths of search.space. "
            "Measure one with the experiment's own settings."
        )
    return table


def _names(space: SearchSpace) -> tuple[str, ...]:
    return tuple(f"{part.option} {part.key} {part.input_shape}" for part in space.parts())
