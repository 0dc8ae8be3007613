"""Results that come one after the other, each in a small file of its own: ``NAME-00000.json``, ``NAME-00001.json``, ..."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic

from dfnas_ray.storage.altered import Say, read_or_remove
from dfnas_ray.storage.location import JsonObject, Location, Model


class NumberedFiles(Generic[Model]):
    """The files of one name in a folder. Every one is there or not: none is ever half written.

    Args:
        folder: Where they are.
        name: Before the number.
        model: Of their content.
    """

    def __init__(self, folder: Location, name: str, model: type[Model]):
        self._folder, self._name, self._model = folder, name, model
        self._next = 0

    def read(self, take: Callable[[Model], object], say: Say, fault: Callable[[Model], str]) -> None:
        """Give ``take`` the content of all that are there. One that was altered is named and removed.

        Args:
            take: Called with each content, in the order of the numbers.
            say: Told of files that were altered.
            fault: Returns why a content cannot belong there; empty if it can. Asked after all before it were taken.
        """
        for name in self._folder.file_names():
            if (number := re.fullmatch(rf"{re.escape(self._name)}-(\d{{5,}})\.json", name)) is not None:
                content = read_or_remove(self._folder / name, self._model, say, fault)
                if content is not None:
                    take(content)
                    self._next = max(self._next, int(number[1]) + 1)

    def add(self, content: JsonObject) -> None:
        """Write the next one."""
        (self._folder / f"{self._name}-{self._next:05d}.json").write_json(content)
        self._next += 1
