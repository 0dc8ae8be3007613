"""Decoding of pictures from unknown sources: chosen formats, limited sizes, one kind of error.

Pillow tries every format that it knows, and one of them, EPS, runs Ghostscript on the file's content. Here only the
formats below are tried, and a picture's size is checked before any pixel is decoded.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""The formats that users' pictures may have; of several frames only the first is used."""

SHARD_FORMATS = ("PNG",)
MAX_PIXELS = 2**26  # 8192 x 8192: half a gigabyte while a picture is decoded and converted
MAX_BYTES = 2**29
_pillow_open = Image.open


_BEGINNINGS = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"BM", b"GIF8", b"II*\0", b"MM\0*")


def is_picture(file: Path) -> bool:
    """Return whether a file begins like a picture of one of these formats, whatever its name."""
    with file.open("rb") as opened:
        head = opened.read(12)
    is_ppm = head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()
    return head.startswith(_BEGINNINGS) or is_ppm or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


class PictureError(ValueError):
    """A picture cannot be decoded. The message is half a sentence, for an error that names file and row."""


def decode_picture(source: Any, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Return a picture with its pixels decoded.

    Args:
        source: A file's path, or its bytes. Any other value, as a user's table may hold, is refused.
        formats: The formats that Pillow may try.

    Raises:
        PictureError: the picture has no such format, is damaged, or is too large.
    """
    if not isinstance(source, bytes | Path):
        raise PictureError(
            "it has no bytes" if source is None else f"it has a {type(source).__name__} instead of bytes"
        )
    if isinstance(source, Path) and not source.is_file():
        raise PictureError("it is not a file")
    if (size := len(source) if isinstance(source, bytes) else source.stat().st_size) > MAX_BYTES:
        raise PictureError(f"it has {size:,} bytes; at most {MAX_BYTES:,} are read")
    with _opened(BytesIO(source) if isinstance(source, bytes) else source, formats) as image, _one_error(formats):
        image.load()
        return image.copy()


@contextmanager
def chosen_formats_only() -> Iterator[None]:
    """While the block runs, let other packages open pictures of these formats and sizes only."""

    def opened(source: Any, *_: object, **__: object) -> Image.Image:
        return _opened(source, FORMATS)

    Image.open = opened  # type: ignore[assignment]  # arguments beyond the file are not passed on
    try:
        yield
    finally:
        Image.open = _pillow_open


def check_pixels(width: int, height: int) -> None:
    """Refuse sizes that would take too much memory.

    Raises:
        PictureError: the picture would have no pixels, or more than `MAX_PIXELS`.
    """
    if not 0 < width * height <= MAX_PIXELS:
        raise PictureError(f"it has {width:,} x {height:,} pixels; 1 to {MAX_PIXELS:,} can be read")


def _opened(source: Any, formats: tuple[str, ...]) -> Image.Image:
    with _one_error(formats):
        image = _pillow_open(source, formats=formats)
        check_pixels(*image.size)
    return image


@contextmanager
def _one_error(formats: tuple[str, ...]) -> Iterator[None]:
    """Turn every error of a decoder into a `PictureError`, and silence its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"it is damaged or none of {', '.join(formats)}") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"it has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # decoders raise many kinds of errors
        raise PictureError(f"it is damaged ({str(error) or type(error).__name__})") from error
