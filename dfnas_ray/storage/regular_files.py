"""Files that are read only if they are regular: a pipe would block, and a device may never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dfnas_ray.storage.memory import free_memory


class NotRegularError(ValueError):
    """A path is no regular file, or the file is too large. The message is the end of a sentence about the path."""


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """Return a file's content. Only a regular file is opened: reading a pipe would block.

    Args:
        path: The file.
        limit: The most bytes that it may have; by default the free memory of this machine.

    Raises:
        NotRegularError: it is a folder, a pipe or a device, or too large.
        OSError: it cannot be read.
    """
    check_regular(path.stat())
    # O_NONBLOCK: a pipe may have replaced the file since the check.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        check_regular(status)
        most = free_memory() if limit is None else limit
        if status.st_size > most:
            why = "that this machine has memory for" if limit is None else "that are read of such a file"
            raise NotRegularError(f"has {status.st_size:,} bytes, more than the {most:,} {why}")
        return file.read()


def check_regular(status: os.stat_result) -> None:
    """Make sure that a path is a regular file.

    Raises:
        NotRegularError: it is not.
    """
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise NotRegularError(f"is {kind}, where a file must be")
