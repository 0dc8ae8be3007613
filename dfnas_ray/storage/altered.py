"""Files that a stage wrote and reads again: one that was altered since is named, removed, and made again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

import pyarrow as pa
import torch

from dfnas_ray.errors import StorageError, first_line
from dfnas_ray.storage.location import Location, Model

logger = logging.getLogger(__name__)

Say: TypeAlias = Callable[[str], object]
"""Tells the user one line."""

REMEDY = " Delete it and run again."
"""The end of an error about a file that is made again where it is not there."""


def read_or_remove(file: Location, model: type[Model], say: Say = logger.warning) -> Model | None:
    """Return the content of a JSON file; None if it is not there, or is of another version or altered.

    One that is altered is named and removed: whoever made it makes it again.

    Args:
        file: Where it is.
        model: Of its content.
        say: Told of a file that is removed.

    Raises:
        StorageError: the storage is out of order.
    """
    if not file.exists():
        return None
    try:
        return file.read_model(model)
    except StorageError as error:
        if isinstance(error.__cause__, OSError | pa.ArrowException):
            raise
        say(f"{reason(error)} It is removed, and made again.")
    file.delete_file()
    return None


def load_or_set_aside(file: Location, load: Callable[[bytes], object], say: Say = logger.warning) -> bool:
    """Take up the state of a training that is in a file, and return whether that could be done.

    A file that cannot be taken up is named, and kept beside its place under another name.

    Args:
        file: Where it is.
        load: Takes its content.
        say: Told of a file that is set aside.

    Raises:
        StorageError: the storage is out of order.
        OutOfMemoryError: the device has no room for it: that is not the file's fault.
    """
    data = file.read_bytes()
    try:
        load(data)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a damaged file can end in an error of any kind
        folder, _, name = file.path.rpartition("/")
        aside = Location(file.filesystem, f"{folder}/{name}.damaged")
        aside.write_bytes(data)
        file.delete_file()
        say(f"{file} is damaged ({first_line(error)}). It is kept as {aside.name}, and what it held is done again.")
        return False
    return True


def is_intact(read: Callable[[], object], say: Say) -> bool:
    """Return whether something can be read; if it cannot, say why."""
    try:
        read()
    except StorageError as error:
        say(f"{reason(error)} It is made again.")
        return False
    return True


def reason(error: StorageError) -> str:
    """Return what is wrong with a file, without the advice to delete it."""
    return str(error).removesuffix(REMEDY)
