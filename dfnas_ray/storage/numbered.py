"""Results that come one by one, each in its own small file: ``NAME-00000.json``, ``NAME-00001.json``, ..."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic

from dfnas_ray.storage.altered import Say, read_or_remove
from dfnas_ray.storage.location import JsonObject, Location, Model


class NumberedFiles(Generic[Model]):
    """The numbered files of one name in a folder. None is ever half written.

    Args:
        folder: The folder of the files.
        name: The part of a file's name before the number.
        model: The model of their content.
    """

    def __init__(self, folder: Location, name: str, model: type[Model]):
        self._folder, self._name, self._model = folder, name, model
        self._next = 0

    def read(self, take: Callable[[Model], object], say: Say, fault: Callable[[Model], str]) -> None:
        """Call ``take`` with the content of every file. An altered file is named in a message and removed.

        Args:
            take: Called with each content, in the order of the numbers.
            say: Called with a message for each altered file.
            fault: Returns what is wrong with a content; empty if nothing is. It is called after all earlier contents
                were taken.
        """
        for name in self._folder.file_names():
            if (number := re.fullmatch(rf"{re.escape(self._name)}-(\d{{5,}})\.json", name)) is not None:
                content = read_or_remove(self._folder / name, self._model, say, fault)
                if content is not None:
                    take(content)
                    self._next = max(self._next, int(number[1]) + 1)

    def add(self, content: JsonObject) -> None:
        """Write the next file."""
        (self._folder / f"{self._name}-{self._next:05d}.json").write_json(content)
        self._next += 1
