"""The log of a run directory, ``run.log``: what every command said there, with the time, and how it ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dfnas_ray import formatting
from dfnas_ray.errors import DfnasError
from dfnas_ray.progress import Listener, Task
from dfnas_ray.storage.location import Location
from dfnas_ray.version import __version__

FILE = "run.log"
_NAME = "dfnas_ray.run_log"


class LoggedListener:
    """Passes on what happens, and writes it down.

    Args:
        inner: Who wanted to know.
        handler: Of the log.
    """

    def __init__(self, inner: Listener, handler: logging.Handler):
        self._inner, self._handler = inner, handler

    def note(self, message: str, level: int = logging.INFO) -> None:
        """Write one line into the log alone."""
        record = logging.LogRecord(_NAME, level, __file__, 0, message, None, None)
        self._handler.handle(record)

    def say(self, message: str) -> None:
        """See `Listener`."""
        self.note(message)
        self._inner.say(message)

    @contextmanager
    def task(self, description: str, total: float, unit: str) -> Iterator[Task]:
        """See `Listener`: the log has a line at the beginning and one at the end."""
        began = time.monotonic()
        self.note(f"{description}: begins.")
        with self._inner.task(description, total, unit) as task:
            yield task
        self.note(f"{description}: done after {formatting.duration(time.monotonic() - began)}.")


class _ThisThreads(logging.Filter):
    """Lets warnings pass of this thread and of those that it starts: several runs may share a process."""

    def __init__(self) -> None:
        super().__init__()
        self._others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread not in self._others


@contextmanager
def logged(run_dir: Location, listener: Listener) -> Iterator[Listener]:
    """Write what is said while the block runs, warnings of all modules included, at the end of ``run.log``.

    There is no log in an object store, whose files cannot grow, and none where the file cannot be written.

    Args:
        run_dir: Where it lies.
        listener: Who wants to know as well.
    """
    handler = _handler(run_dir)
    if handler is None:
        yield listener
        return
    noted, root = LoggedListener(listener, handler), logging.getLogger()
    root.addHandler(handler)
    noted.note(f"dfnas-ray {__version__} begins.")
    try:
        yield noted
        noted.note("The command has ended.")
    except BaseException as error:
        message = str(error) if isinstance(error, DfnasError) else f"{type(error).__name__}: {error}"
        noted.note(f"The command ended with an error: {message}", logging.ERROR)
        raise
    finally:
        root.removeHandler(handler)
        handler.close()


def _handler(run_dir: Location) -> logging.Handler | None:
    if not run_dir.is_local:
        return None
    with suppress(OSError):
        handler = logging.FileHandler(Path(run_dir.path) / FILE, encoding="utf-8")
        handler.setLevel(logging.INFO)
        handler.addFilter(_ThisThreads())
        handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
        return handler
    return None


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the record in one line, which a reader of logs expects."""
        return " ".join(super().format(record).split())
