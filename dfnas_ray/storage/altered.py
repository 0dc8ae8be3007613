"""Files that a stage wrote and reads again. If one was altered, a message names it; it is removed and made again."""

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
"""A function that shows the user one line."""


def read_or_remove(
    file: Location, model: type[Model], say: Say = logger.warning, fault: Callable[[Model], str] = lambda content: ""
) -> Model | None:
    """Return the content of a JSON file; None if it is missing, of another version, or altered.

    An altered file is named in a message and removed, so that the stage that made it makes it again.

    Args:
        file: The file.
        model: The model of its content.
        say: Called with a message about a file that is removed.
        fault: Returns what is wrong with a content, as the end of a sentence; empty if nothing is.

    Raises:
        StorageError: the storage fails.
    """
    if not file.exists():
        return None
    try:
        content = file.read_model(model)
        if not (why := fault(content)):
            return content
        say(f"{file} was altered: {shortened(why)}. It is removed, and made again.")
    except StorageError as error:
        if storage_fails(error):
            raise
        say(f"{reason(error)} It is removed, and made again.")
    file.delete_file()
    return None


def load_or_set_aside(file: Location, load: Callable[[bytes], object], say: Say = logger.warning) -> bool:
    """Load the state of a training from a file, and return whether that was possible.

    A file that cannot be loaded is named in a message and kept under another name.

    Args:
        file: The file.
        load: Loads the content of the file.
        say: Called with a message about a file that is set aside.

    Raises:
        StorageError: the storage fails.
        OutOfMemoryError: the device has too little memory for the state, so the file may be intact.
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
    """Rename a file that cannot be used, so that it is kept, and say so.

    Args:
        file: A file or a folder.
        why: A sentence that names the file and says what is wrong.
        say: Called with the message.
    """
    aside = file.move_aside()
    say(f"{why} It is kept as {aside.name}, and its work is done again.")


def is_intact(read: Callable[[], object], say: Say) -> bool:
    """Return whether something can be read; if it cannot, say why."""
    try:
        read()
    except StorageError as error:
        say(f"{reason(error)} It is made again.")
        return False
    return True


def storage_fails(error: StorageError) -> bool:
    """Return whether a file could not be read because the storage failed, not because of its content."""
    return isinstance(error.__cause__, OSError | pa.ArrowException)


def reason(error: StorageError) -> str:
    """Return what is wrong with a file, without the advice to delete it."""
    return str(error).removesuffix(REMEDY)
