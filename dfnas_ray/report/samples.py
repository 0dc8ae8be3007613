"""Read a few of the synthetic images without loading the rest, and the loss curves of their synthesis.

A set may hold a million images of 1000 classes. The constants below bound what is read and what is shown.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import TypeAdapter

from dfnas_ray.errors import DfnasError
from dfnas_ray.storage.bounded import read_columns
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import Manifest, ManifestEntry
from dfnas_ray.storage.pictures import SHARD_FORMATS, PictureError, decode_picture
from dfnas_ray.storage.retries import with_retries
from dfnas_ray.storage.shards import read_info
from dfnas_ray.synthesis.base import LossPoint
from dfnas_ray.teachers.class_names import name_of

MAX_CLASSES = 12
MAX_ROUNDS = 4
MAX_IMAGES_PER_ROW = 16
_ROW_WIDTH = 920  # pixels of the page
MAX_SIDE = 96  # larger images are reduced to so many pixels, and compressed with a small loss
MAX_FOOTERS = 64  # shards whose loss curves are averaged
_MAX_SHARDS = 24  # shards searched for samples
_MAX_ROW_GROUPS = 48  # row groups, of at most 500 images each, that are decoded
_SMALL_SIDE = 64  # up to this size, pixels are shown as squares
_SHOWN_SIDE = 54  # least pixels that a small image takes on the page
_NUM_EXAMPLES, _TOP = 6, 5
_AGES = ("early", "late")

_T = TypeVar("_T")

Curve = list[tuple[int, dict[str, float]]]
"""Pairs of a step and its losses by term."""


@dataclass(frozen=True)
class Sample:
    """One synthetic image with the teacher's probabilities."""

    label: int
    round: int
    png: bytes
    probabilities: np.ndarray[Any, Any]

    @property
    def entropy(self) -> float:
        """The entropy of the teacher's probabilities, in nats."""
        p = self.probabilities
        return float(-(p * np.log(np.maximum(p, 1e-12))).sum())


@dataclass(frozen=True)
class Strip:
    """Images side by side in one picture, and the size at which the page shows it."""

    uri: str
    width: int
    height: int
    pixelated: bool
    alt: str


@dataclass(frozen=True)
class SoftLabel:
    """An image with the classes that the teacher finds most likely, as (name, probability)."""

    strip: Strip
    asked: str
    top: list[tuple[str, float]]
    rest: float


@dataclass(frozen=True)
class Samples:
    """The images that the page shows.

    Attributes:
        columns: Titles of the columns: rounds of calibration, or early and late shards.
        rows: For each class its name, and one strip per column (None if no image was found).
        examples: Images of the last column, from the one that the teacher is surest of to the least sure.
        reduced: Whether images are shown smaller than they are.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    columns: list[str]
    rows: list[tuple[str, list[Strip | None]]]
    examples: list[SoftLabel]
    classes_left_out: int
    rounds_left_out: list[int]
    reduced: bool


@dataclass
class ShardFacts:
    """The loss curves in the footers of the shards, and errors about those that could not be read."""

    curves: dict[int, Curve] = field(default_factory=dict)
    shards_averaged: int = 0
    problems: list[str] = field(default_factory=list)


def read_curves(folder: Location, manifest: Manifest) -> ShardFacts:
    """Return the loss curves by round, averaged over the shards, or over 64 evenly spaced ones."""
    facts = ShardFacts()
    collected: dict[int, dict[int, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for entry in spread(manifest.shards, MAX_FOOTERS):
        try:
            curves = _CURVES.validate_python(read_info(folder / entry.file).curves)
        except _UNREADABLE as error:
            problem = _first_line(error.__cause__ or error)  # the message of the cause does not repeat the path
            facts.problems.append(f"{entry.file}: {problem}")
            continue
        facts.shards_averaged += 1
        for round_index, curve in enumerate(curves):
            for point in curve:
                collected[round_index][point.step].append(point.losses)
    for round_index, steps in sorted(collected.items()):
        facts.curves[round_index] = [
            (step, {name: float(np.mean([p[name] for p in points if name in p])) for name in points[0]})
            for step, points in sorted(steps.items())
        ]
    return facts


def read_samples(
    folder: Location,
    manifest: Manifest,
    problems: list[str] | None = None,
    by_age: bool = False,
    names: Sequence[str] | None = None,
) -> Samples | None:
    """Return images of some evenly spaced classes and rounds; None if no shard can be read.

    Args:
        folder: The folder of the set.
        manifest: The manifest of the set.
        problems: A list to which errors about undecodable images are added.
        by_age: Whether columns are early and late shards instead of rounds; for shards that continue each other.
        names: The names of the classes.
    """
    by_age = by_age and len(manifest.shards) > 1
    index, num_classes = (
        _index_by_age(folder, manifest) if by_age else _index_rows(folder, spread(manifest.shards, _MAX_SHARDS))
    )
    if not index:
        return None
    classes = sorted({label for label, _ in index})
    rounds = sorted({round_index for _, round_index in index})
    shown_classes, shown_rounds = spread(classes, MAX_CLASSES), spread(rounds, MAX_ROUNDS)
    columns = dict(enumerate(_AGES)) if by_age else {number: f"round {number}" for number in rounds}
    per_cell = max(2, MAX_IMAGES_PER_ROW // len(shown_rounds))
    wanted = {
        (label, r): index[label, r][:per_cell] for label in shown_classes for r in shown_rounds if (label, r) in index
    }
    found = _read_rows(folder, wanted, [] if problems is None else problems)
    if not any(found.values()):
        return None

    first_png = next(samples[0].png for samples in found.values() if samples)
    shape = _shape(first_png)
    shown_side = make_strip([first_png], "").width + 4
    per_cell = max(2, min(per_cell, _ROW_WIDTH // (len(shown_rounds) * shown_side)))

    rows: list[tuple[str, list[Strip | None]]] = [
        (
            name_of(label, names),
            [
                make_strip(
                    [sample.png for sample in found[label, r][:per_cell]], f"{name_of(label, names)}, {columns[r]}"
                )
                if found.get((label, r))
                else None
                for r in shown_rounds
            ],
        )
        for label in shown_classes
    ]
    last = [
        sample for (_, r), samples in sorted(found.items()) for sample in samples[:per_cell] if r == shown_rounds[-1]
    ]
    return Samples(
        image_shape=shape,
        num_classes=num_classes,
        columns=[columns[r] for r in shown_rounds],
        rows=rows,
        examples=[_soft_label(sample, names) for sample in _examples(last)],
        classes_left_out=max(num_classes, len(classes)) - len(shown_classes),
        rounds_left_out=[r for r in rounds if r not in shown_rounds],
        reduced=max(shape[1:]) > MAX_SIDE,
    )


def make_strip(pngs: Sequence[bytes], alt: str) -> Strip:
    """Return images side by side, a few pixels apart. Small ones are lossless and enlarged by a whole factor."""
    images, side = [], 0
    for png in pngs:
        images.append(decode_picture(png, SHARD_FORMATS))
        side = max(side, *images[-1].size)
        images[-1].thumbnail((MAX_SIDE, MAX_SIDE))  # does not enlarge smaller ones
    small = side <= _SMALL_SIDE
    width, height = images[0].size
    gap = 1 if small else 4
    mode = "LA" if small and all(image.mode == "L" for image in images) else "RGBA"
    sheet = Image.new(mode, (len(images) * (width + gap) - gap, height))  # transparent between the images
    for position, image in enumerate(images):
        sheet.paste(image.convert(mode), (position * (width + gap), 0))
    buffer = BytesIO()
    if small:
        sheet.save(buffer, format="PNG", optimize=True)
    else:
        sheet.save(buffer, format="WEBP", quality=80)
    kind = "png" if small else "webp"
    factor = -(-_SHOWN_SIDE // side) if small else 1
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Strip(uri, sheet.width * factor, sheet.height * factor, small, alt)


def spread(items: Sequence[_T], at_most: int) -> list[_T]:
    """Return at most ``at_most`` evenly spaced items, including the first and the last."""
    if len(items) <= at_most:
        return list(items)
    positions = np.linspace(0, len(items) - 1, at_most).round().astype(int)
    return [items[position] for position in positions]


_CURVES = TypeAdapter(list[list[LossPoint]])
_UNREADABLE = (DfnasError, OSError, pa.ArrowException, KeyError, TypeError, ValueError)
_Place = tuple[str, int, int]  # file, row group, row in it


def _read(location: Location, reading: Callable[[pq.ParquetFile, int], _T]) -> _T:
    """Return the result of ``reading`` for an open shard and its size in bytes; retry while the storage fails."""

    def attempt() -> _T:
        with location.open_file() as source, pq.ParquetFile(source) as file:
            return reading(file, source.size())

    return with_retries(attempt, f"read {location}")


def _index_rows(folder: Location, shards: Sequence[ManifestEntry]) -> tuple[dict[tuple[int, int], list[_Place]], int]:
    """Return where the images of each (class, round) are, from two small columns, and the number of classes."""
    index: dict[tuple[int, int], list[_Place]] = defaultdict(list)
    num_classes = 0

    def small_columns(file: pq.ParquetFile, num_bytes: int) -> tuple[int, list[pa.Table]]:
        groups = range(file.num_row_groups)
        size: int = file.schema_arrow.field("logits").type.list_size
        return size, [_table(file, num_bytes, group, "label", "round") for group in groups]

    for entry in shards:
        try:
            num_classes, tables = _read(folder / entry.file, small_columns)
        except _UNREADABLE:
            continue  # `read_curves` reports it
        for group, table in enumerate(tables):
            labels, rounds = table["label"].to_pylist(), table["round"].to_pylist()
            for row, cell in enumerate(zip(labels, rounds, strict=True)):
                if len(index[cell]) < MAX_IMAGES_PER_ROW:
                    index[cell].append((entry.file, group, row))
    return dict(index), num_classes


def _index_by_age(folder: Location, manifest: Manifest) -> tuple[dict[tuple[int, int], list[_Place]], int]:
    """Return the places of each class's images in the first (0) and the last (1) quarter of the shards."""
    index: dict[tuple[int, int], list[_Place]] = defaultdict(list)
    quarter = max(1, len(manifest.shards) // 4)
    num_classes = 0
    for age, shards in enumerate((manifest.shards[:quarter], manifest.shards[-quarter:])):
        found, num_classes = _index_rows(folder, spread(shards, _MAX_SHARDS // 2))
        for (label, _), places in found.items():
            index[label, age] = (index[label, age] + places)[:MAX_IMAGES_PER_ROW]
    return dict(index), num_classes


def _read_rows(
    folder: Location, wanted: dict[tuple[int, int], list[_Place]], problems: list[str]
) -> dict[tuple[int, int], list[Sample]]:
    by_group: dict[tuple[str, int], list[tuple[tuple[int, int], int]]] = defaultdict(list)
    for cell, places in wanted.items():
        for file_name, group, row in places:
            by_group[file_name, group].append((cell, row))
    found: dict[tuple[int, int], list[Sample]] = defaultdict(list)
    for (file_name, group), rows in list(by_group.items())[:_MAX_ROW_GROUPS]:
        try:
            table = _read(folder / file_name, partial(_images_of, group))
        except _UNREADABLE:
            continue
        for (label, round_index), row in rows:
            png: Any = (table["image"][row].as_py() or {}).get("bytes")
            try:
                decode_picture(png, SHARD_FORMATS)
            except PictureError as error:
                problems.append(f"{file_name}, row {row} of row group {group}: {error}")
                continue
            logits = np.array(table["logits"][row].as_py(), np.float64)
            shifted = np.exp(logits - logits.max())
            found[label, round_index].append(Sample(label, round_index, png, shifted / shifted.sum()))
    return dict(found)


def _images_of(group: int, file: pq.ParquetFile, num_bytes: int) -> pa.Table:
    return _table(file, num_bytes, group, "image", "logits")


def _table(file: pq.ParquetFile, num_bytes: int, group: int, *columns: str) -> pa.Table:
    return pa.Table.from_batches(read_columns(file, columns, num_bytes, [group]))


def _examples(samples: list[Sample]) -> list[Sample]:
    """Return a few samples, from the one that the teacher is surest of to the least sure."""
    return spread(sorted(samples, key=lambda sample: sample.entropy), _NUM_EXAMPLES)


def _soft_label(sample: Sample, names: Sequence[str] | None) -> SoftLabel:
    order = np.argsort(-sample.probabilities, kind="stable")[:_TOP]
    top = [(name_of(int(label), names), float(sample.probabilities[label])) for label in order]
    rest = max(0.0, 1 - sum(probability for _, probability in top))
    asked = name_of(sample.label, names)
    return SoftLabel(make_strip([sample.png], asked), asked, top, rest)


def _shape(png: bytes) -> tuple[int, int, int]:
    image = decode_picture(png, SHARD_FORMATS)
    return len(image.getbands()), image.height, image.width


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
