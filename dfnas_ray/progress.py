"""How long-running work reports its progress, whoever listens: a terminal, a test, or nobody."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Protocol

logger = logging.getLogger(__name__)


class Task(Protocol):
    """One progress bar."""

    def advance_to(self, done: float, note: str = "") -> None:
        """Set how much is done, and a short note behind the bar."""
        ...


class Write(Protocol):
    """Reports how far one worker is."""

    def __call__(self, done: float, note: str = "") -> None:
        """Set how much the worker has done, and a short note."""
        ...


class Board(Protocol):
    """Where workers report their progress. The progress bar shows it."""

    def writer(self, worker: str) -> Write:
        """Return the function with which one worker reports its progress."""
        ...

    def start(self, worker: str, where: str) -> None:
        """Record that a worker starts.

        Args:
            worker: Name of the worker as users know it; a sentence begins with it.
            where: The point from which it goes on.
        """
        ...


class Listener(Protocol):
    """Receives the progress of a command."""

    def say(self, message: str) -> None:
        """Receive one line about what happens."""
        ...

    @contextmanager
    def task(self, description: str, total: float, unit: str) -> Iterator[Task]:
        """Show a progress bar while the block runs. ``unit`` is in the singular."""
        ...


class _SilentTask:
    def advance_to(self, done: float, note: str = "") -> None:
        pass


class Silent:
    """A listener that shows nothing."""

    def say(self, message: str) -> None:
        """Discard the message."""

    @contextmanager
    def task(self, description: str, total: float, unit: str) -> Iterator[Task]:
        """Show nothing."""
        yield _SilentTask()


def shorten(text: str, width: int) -> str:
    """Return the text; one longer than ``width`` characters is cut to this width and ends in an ellipsis."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


@lru_cache(maxsize=256)
def say_once(message: str) -> None:
    """Log a warning, unless this process has logged it before."""
    logger.warning("%s", message)
