"""Free memory, and arrays that may be larger than it."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from dfnas_ray import formatting
from dfnas_ray.errors import StorageError

_SHARE = 0.5
"""An array that takes more than this share of the free memory is kept in a file."""

_SMALL = 2**20
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_IN_MEMORY = ("tmpfs", "ramfs")


def free_memory() -> int:
    """Return the bytes of memory that this process may still use. A container's limit counts."""
    return min([psutil.virtual_memory().available, *_left_to_control_groups()])


def empty_array(shape: tuple[int, ...], dtype: Any, what: str) -> np.ndarray[Any, Any]:
    """Return an array without defined values, which is in a file if it takes more than half of the free memory.

    The file has no name, and ends with the array. The operating system keeps in memory what is used, as far as there is
    room. The folder of the file is that of temporary files; the environment variable ``TMPDIR`` names another.

    Args:
        shape: The shape.
        dtype: The type of the values.
        what: What the array holds, as the subject of a sentence in the plural.

    Raises:
        StorageError: there is no room for the file.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= _SMALL or size <= _SHARE * (free := free_memory()):
        return np.empty(shape, dtype)
    folder = tempfile.gettempdir()
    try:
        if _is_in_memory(folder):
            raise OSError("it is in memory, too")
        with tempfile.TemporaryFile() as file:
            _reserve(file.fileno(), size)
            return np.frombuffer(mmap.mmap(file.fileno(), size), dtype).reshape(shape)
    except (OSError, OverflowError) as error:
        raise StorageError(
            f"{what} take {formatting.size(size)}, and {formatting.size(free)} of memory are free. The folder of temporary "
            f"files, {folder}, has no room for them: {getattr(error, 'strerror', None) or error}. Set the environment variable "
            "TMPDIR to a folder on a disk with more room, or make fewer images."
        ) from error


def _reserve(file: int, size: int) -> None:
    """Make a file so large. Where the system allows it, a full disk is noticed now: later it would end the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)


def _is_in_memory(folder: str) -> bool:
    """Return whether a folder's file system has its files in memory."""
    place = Path(folder).resolve()
    mounted = [part for part in psutil.disk_partitions(all=True) if place.is_relative_to(part.mountpoint)]
    return bool(mounted) and max(mounted, key=lambda part: len(part.mountpoint)).fstype in _IN_MEMORY


def _left_to_control_groups() -> list[int]:
    """Return what the limits of this process's control groups leave, for versions 1 and 2; empty without limits."""
    with suppress(OSError):
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        own = [path.lstrip("/") for _, kinds, path in lines if kinds in ("", "memory")]
        folders = [_CONTROL_GROUPS / part / path for part in ("", "memory") for path in ("", *own)]
        return [left for folder in folders if (left := _left(folder)) is not None]
    return []


def _left(group: Path) -> int | None:
    """Return what the limit of a control group leaves: what it uses, without files that can leave the memory."""
    for limit, used, of_files in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError, KeyError):  # "max": there is no limit
            figures = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            taken = int((group / used).read_text()) - int(figures[of_files])
            return max(0, int((group / limit).read_text()) - taken)
    return None
