"""Files that a stage wrote and reads again: one that was altered since is named, removed, and made again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

import pyarrow as pa
import torch

from dfnas_ray.errors import AlteredError, StorageError, first_line, shortened
from dfnas_ray.storage.location import REMEDY, Location, Model

logger = logging.getLogger(__name__)

Say: TypeAlias = Callable[[str], object]
"""Tells the user one line."""


def read_or_remove(
    file: Location, model: type[Model], say: Say = logger.warning, fault: Callable[[Model], str] = lambda content: ""
) -> Model | None:
    """Return the content of a JSON file; None if it is not there, or is of another version or altered.

    One that is altered is named and removed: whoever made it makes it again.

    Args:
        file: Where it is.
        model: Of its content.
        say: Told of a file that is removed.
        fault: Returns why a content cannot belong there, as the end of a sentence; empty if it can.

    Raises:
        StorageError: the storage is out of order.
    """
    if not file.exists():
        return None
    try:
        content = file.read_model(model)
        if not (why := fault(content)):
            return content
        say(f"{file} was altered: {shortened(why)}. It is removed, and made again.")
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
    try:
        data = file.read_bytes()
    except AlteredError as error:
        set_aside(file, reason(error), say)
        return False
    try:
        load(data)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a damaged file can end in an error of any kind
        set_aside(file, f"{file} is damaged ({shortened(first_line(error))}).", say)
        return False
    return True


def set_aside(file: Location, why: str, say: Say = logger.warning) -> None:
    """Keep something that cannot be used beside its place, under another name, and say so.

    Args:
        file: A file or a folder.
        why: A sentence that names it.
        say: Told.
    """
    aside = file.move_aside()
    say(f"{why} It is kept as {aside.name}, and what it held is done again.")


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
