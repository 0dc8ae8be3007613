"""How long-running work tells what it does, without knowing who listens: a terminal, a test, or nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Task(Protocol):
    """One bar."""

    def advance_to(self, done: float, note: str = "") -> None:
        """Set how much is done, and a short remark behind the bar."""
        ...


class Write(Protocol):
    """Says how far one worker is."""

    def __call__(self, done: float, note: str = "") -> None:
        """Set how much it has done, and a short remark."""
        ...


class Board(Protocol):
    """Where workers write how far they are, and what a bar shows."""

    def writer(self, worker: str) -> Write:
        """Return what one worker writes with."""
        ...

    def start(self, worker: str, where: str) -> None:
        """Note that a worker starts.

        Args:
            worker: As users know it, beginning a sentence.
            where: From which point it goes on.
        """
        ...


class Listener(Protocol):
    """Whoever wants to know."""

    def say(self, message: str) -> None:
        """Take one line about what happens."""
        ...

    @contextmanager
    def task(self, description: str, total: float, unit: str) -> Iterator[Task]:
        """Show a bar while the block runs; ``unit`` in the singular."""
        ...


class _SilentTask:
    def advance_to(self, done: float, note: str = "") -> None:
        pass


class Silent:
    """Tells nobody."""

    def say(self, message: str) -> None:
        """Drop the message."""

    @contextmanager
    def task(self, description: str, total: float, unit: str) -> Iterator[Task]:
        """Show nothing."""
        yield _SilentTask()


def shorten(text: str, width: int) -> str:
    """Return a text of at most ``width`` characters; one that is longer ends in an ellipsis."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
