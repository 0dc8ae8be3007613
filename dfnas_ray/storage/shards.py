"""Shards as Parquet files: PNG images with soft labels, which Hugging Face `datasets` reads as images with named classes.

A shard's bytes depend on its content alone - no time, host or process goes into it - so two runs with one seed can be
compared byte by byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from dfnas_ray.errors import AlteredError, ShardError, StorageError
from dfnas_ray.limits import GREY_OR_RGB
from dfnas_ray.storage.bounded import TooLargeError, most_bytes, read_columns
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import ManifestEntry
from dfnas_ray.storage.memory import empty_array
from dfnas_ray.storage.pictures import SHARD_FORMATS, PictureError, decode_picture
from dfnas_ray.storage.retries import with_retries

Ids = np.ndarray[Any, np.dtype[np.uint64]]

FORMAT = 1
ROW_GROUP_SIZE = 500
_METADATA_KEY = b"dfnas"
REMEDY = "Running the same command again replaces it."
_UNREADABLE = (
    pa.ArrowException, ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RecursionError, TypeError, ValueError
)  # fmt: skip


@dataclass(frozen=True)
class ShardInfo:
    """The description of a shard, in its footer.

    Attributes:
        key: Fingerprint of the stage that made it: teacher, settings and seed.
        shard: The shard's number.
        num_shards: The number of shards in the set.
        teacher: The teacher's fingerprint.
        curves: For each round, the loss curve as [{"step": ..., "losses": {...}}].
        state: sha256 of the state kept for the next shard of its chain; empty if there is none.
        image_shape: [C, H, W] that the teacher sees, the centre of each canvas; None in shards of older versions.
    """

    key: str
    shard: int
    num_shards: int
    teacher: str
    curves: list[list[dict[str, Any]]]
    state: str = ""
    image_shape: list[int] | None = None


@dataclass(frozen=True)
class SyntheticImages:
    """Synthetic images as arrays, those of a large set in a file; see `empty_array`.

    Attributes:
        images: uint8 (N, C, H', W'): whole canvases.
        labels: int64 (N,), the class that an image was made for.
        rounds: int64 (N,), calibration round.
        logits: float32 (N, num_classes), the teacher's for the centre of each canvas.
        ids: uint64 (N,), shard * 2**32 + row: the same image has the same id however many shards are loaded.
    """

    images: np.ndarray[Any, np.dtype[np.uint8]]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    rounds: np.ndarray[Any, np.dtype[np.int64]]
    logits: np.ndarray[Any, np.dtype[np.float32]]
    ids: Ids

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, index: np.ndarray[Any, Any] | slice) -> SyntheticImages:
        """Return the rows at ``index``: integers or a mask, which copy them, or a slice, which does not."""
        return SyntheticImages(**{name: values[index] for name, values in vars(self).items()})

    @classmethod
    def concatenate(cls, parts: Sequence[SyntheticImages]) -> SyntheticImages:
        """Return all rows of ``parts``, in their order."""
        return cls.collect(parts, sum(map(len, parts)))

    @classmethod
    def collect(cls, parts: Iterable[SyntheticImages], rows: int) -> SyntheticImages:
        """Return all rows of ``parts``, in their order. Only one part is held besides the result.

        Args:
            parts: At least one.
            rows: The number of rows of all parts.

        Raises:
            ShardError: their shapes differ.
            ValueError: they have more or fewer rows.
            StorageError: there is no room for the result.
        """
        parts = iter(parts)
        first = next(parts)
        whole = {
            name: empty_array((rows, *values.shape[1:]), values.dtype, "The images")
            for name, values in vars(first).items()
        }
        done = 0
        for part in chain([first], parts):
            for name, values in vars(part).items():
                if values.shape[1:] != whole[name].shape[1:]:
                    shapes = f"{whole[name].shape[1:]} and {values.shape[1:]}"
                    raise ShardError(f"Shards do not fit together: their {name} have the shapes {shapes}. {REMEDY}")
                whole[name][done : done + len(part)] = values
            done += len(part)
        if done != rows:
            raise ValueError(f"the parts have {done} rows, not {rows}")
        return cls(**whole)


def ids_of_shard(shard: int, rows: int) -> Ids:
    """Return the ids of a shard's images, (rows,)."""
    return (np.uint64(shard) << np.uint64(32)) + np.arange(rows, dtype=np.uint64)


def shard_of(ids: Ids) -> Ids:
    """Return the number of the shard of each image, from its id; both (N,)."""
    return ids >> np.uint64(32)


def shard_name(shard: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{shard:05d}.parquet"


def encode_shard(
    info: ShardInfo,
    images: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    rounds: np.ndarray[Any, Any],
    logits: np.ndarray[Any, Any],
    class_names: Sequence[str] | None = None,
) -> memoryview:
    """Return the bytes of a Parquet file with one row per image.

    Columns: ``image: struct<bytes, path>`` (PNG, lossless), ``label: int64``, ``round: int64``,
    ``logits: fixed_size_list<float32>[num_classes]``.

    Args:
        info: The description for the footer.
        images: uint8 (N, C, H', W').
        labels: Integers (N,).
        rounds: Integers (N,).
        logits: float32 (N, num_classes).
        class_names: One name for each class, all different; by default the classes' numbers.

    Raises:
        StorageError: the images have neither 1 nor 3 channels.
    """
    num_images, channels = images.shape[:2]
    num_classes = logits.shape[1]
    if channels not in GREY_OR_RGB:
        raise StorageError(f"Shards hold images of 1 or 3 channels, not {channels}: PNG supports no other number.")
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [
            ("image", image_type),
            ("label", pa.int64()),
            ("round", pa.int64()),
            ("logits", pa.list_(pa.float32(), num_classes)),
        ],
        metadata={
            b"huggingface": json.dumps(_hugging_face_features(num_classes, class_names)),
            _METADATA_KEY: json.dumps({"format": FORMAT, **asdict(info)}),
        },
    )
    pictures = [
        {"bytes": _png(image), "path": f"{info.shard:05d}-{round_index}-{row:05d}.png"}
        for row, (image, round_index) in enumerate(zip(images, rounds, strict=True))
    ]
    table = pa.table(
        [
            pa.array(pictures, image_type),
            pa.array(labels, pa.int64()),
            pa.array(rounds, pa.int64()),
            pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(logits, np.float32).reshape(-1)), num_classes
            ),
        ],
        schema=schema,
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=["label", "round"], row_group_size=ROW_GROUP_SIZE)
    assert table.num_rows == num_images
    return memoryview(sink.getvalue())


def sha256(data: bytes | memoryview) -> str:
    """Return the hexadecimal digest that a manifest records for a shard."""
    return hashlib.sha256(data).hexdigest()


def manifest_entry(shard: int, data: bytes | memoryview, rows: int) -> ManifestEntry:
    """Return the manifest's entry for one shard."""
    return ManifestEntry(shard=shard, file=shard_name(shard), rows=rows, bytes=len(data), sha256=sha256(data))


def verify_entry(data: bytes | memoryview, entry: ManifestEntry, where: str) -> None:
    """Compare a shard's bytes with its entry in the manifest. Call this before the bytes are decoded.

    Raises:
        ShardError: the bytes are not those that were committed.
    """
    if sha256(data) != entry.sha256:
        raise ShardError(f"Shard {where} has changed since it was made. {REMEDY}")


def read_info(location: Location) -> ShardInfo:
    """Return a shard's description. Only the footer of the file is read.

    Raises:
        ShardError: the file is missing, truncated, or not a shard of this format.
    """

    def read() -> ShardInfo:
        with location.open_file() as source:
            return _footer_info(pq.ParquetFile(source), str(location))

    try:
        return with_retries(read, f"read {location}")
    except FileNotFoundError as error:
        raise ShardError(f"Shard {location} is missing. {REMEDY}") from error
    except ShardError:
        raise
    except (*_UNREADABLE, AlteredError) as error:
        raise _unreadable(str(location), error) from error


def class_names_of(location: Location) -> list[str] | None:
    """Return the class names in a shard's schema; None if an older version wrote no names.

    Raises:
        ShardError: the file is missing or truncated.
    """

    def read() -> dict[bytes, bytes]:
        with location.open_file() as source:
            return pq.ParquetFile(source).schema_arrow.metadata or {}

    try:
        metadata = with_retries(read, f"read {location}")
    except (*_UNREADABLE, AlteredError) as error:
        raise _unreadable(str(location), error) from error
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    except (LookupError, RecursionError, TypeError, ValueError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def decode_shard(data: bytes, key: str, where: str) -> tuple[ShardInfo, SyntheticImages]:
    """Return the description and the images in a shard's bytes.

    Raises:
        ShardError: the file is truncated, altered, or belongs to other settings than ``key``.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        info = _footer_info(file, where)
        if info.key != key:
            raise ShardError(f"Shard {where} was made with other settings ({info.key[:12]}, not {key[:12]}). {REMEDY}")
        table = pa.Table.from_batches(read_columns(file, ("image", "label", "round", "logits"), len(data)))
        if table.schema.field("label").type != pa.int64() or table.schema.field("round").type != pa.int64():
            raise ValueError("label and round are not of type int64")
        pngs = pc.struct_field(table["image"], "bytes").to_pylist()
        images = _stacked(pngs, len(data))
        logits = table["logits"].combine_chunks()
        return info, SyntheticImages(
            images=images,
            labels=table["label"].to_numpy(),
            rounds=table["round"].to_numpy(),
            logits=logits.flatten().to_numpy().reshape(table.num_rows, -1),
            ids=ids_of_shard(info.shard, table.num_rows),
        )
    except _UNREADABLE as error:
        raise _unreadable(where, error) from error


def check_rows(images: SyntheticImages, rows: int, where: str) -> None:
    """Make sure that a shard has as many images as expected.

    Raises:
        ShardError: it has not.
    """
    if len(images) != rows:
        raise ShardError(f"Shard {where} has {len(images):,} images, not {rows:,}. {REMEDY}")


def _footer_info(file: pq.ParquetFile, where: str) -> ShardInfo:
    metadata = json.loads((file.schema_arrow.metadata or {})[_METADATA_KEY])
    if metadata.pop("format") != FORMAT:
        raise ShardError(f"Shard {where} has another format than {FORMAT}. {REMEDY}")
    return ShardInfo(**metadata)


def _unreadable(where: str, error: Exception) -> ShardError:
    reason = " ".join(str(error).split())  # some of Arrow's messages span lines
    return ShardError(f"Shard {where} is truncated or is not a shard of this product ({reason}). {REMEDY}")


def _png(image: np.ndarray[Any, Any]) -> bytes:
    pixels = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return buffer.getvalue()


def _stacked(pngs: Sequence[object], size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the pixels (N, C, H, W) of pictures of one size.

    Args:
        pngs: At least one.
        size: The size in bytes of the file that they are from.

    Raises:
        ValueError: their sizes differ, or they would take more memory than a file of this size may.
    """
    first = _pixels(pngs[0], 0)
    if (needed := len(pngs) * first.nbytes) > most_bytes(size):
        raise TooLargeError(f"its {len(pngs):,} images have {needed:,} bytes of pixels, too many for {size:,} bytes")
    images = np.empty((len(pngs), *first.shape), np.uint8)
    for row, png in enumerate(pngs):
        pixels = first if row == 0 else _pixels(png, row)
        if pixels.shape != first.shape:
            raise ValueError(f"the image of row {row} has another size than the first")
        images[row] = pixels
    return images


def _pixels(png: object, row: int) -> np.ndarray[Any, Any]:
    try:
        image = decode_picture(png, SHARD_FORMATS)
    except PictureError as error:
        raise PictureError(f"row {row}: {error}") from error
    if image.mode not in ("L", "RGB"):
        raise PictureError(f"row {row}: its mode is {image.mode}, not L or RGB")
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _hugging_face_features(num_classes: int, class_names: Sequence[str] | None) -> dict[str, Any]:
    integer = {"dtype": "int64", "_type": "Value"}
    names = [str(label) for label in range(num_classes)] if class_names is None else list(class_names)
    label = {"names": names, "_type": "ClassLabel"}
    logits = {"feature": {"dtype": "float32", "_type": "Value"}, "length": num_classes, "_type": "Sequence"}
    return {"info": {"features": {"image": {"_type": "Image"}, "label": label, "round": integer, "logits": logits}}}
