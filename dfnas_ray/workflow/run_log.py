"""The log of a run directory, ``run.log``: what every command said there, with the time, and how it ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dfnas_ray import formatting
from dfnas_ray.errors import DfnasError
from dfnas_ray.progress import Listener, Task
from dfnas_ray.storage.location import Location
from dfnas_ray.version import __version__

FILE = "run.log"
_NAME = "dfnas_ray.run_log"


class RunLogHandler(logging.Handler):
    """Keeps lines until work begins, and then appends them to a file.

    Args:
        file: None: nothing is written.
    """

    def __init__(self, file: Path | None):
        super().__init__(logging.INFO)
        self._file, self._kept, self._begun = file, list[str](), False
        self.baseFilename = None if file is None else str(file)  # as `logging.FileHandler` calls it
        self.addFilter(_ThisThreads())
        self.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))

    def begin(self) -> None:
        """Write what was kept, and everything from now on."""
        self._begun = True
        self._write()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        self._kept.append(self.format(record))
        if self._begun:
            self._write()

    def _write(self) -> None:
        if self._file is not None and self._kept:
            try:
                with self._file.open("a", encoding="utf-8") as log:
                    log.write("".join(f"{line}\n" for line in self._kept))
            except OSError:  # results do not depend on it
                self._file = None
        self._kept.clear()


class LoggedListener:
    """Passes on what happens, and writes it down.

    Args:
        inner: Who wanted to know.
        handler: Of the log.
    """

    def __init__(self, inner: Listener, handler: RunLogHandler):
        self._inner, self._handler = inner, handler

    def begin(self) -> None:
        """Write from now on, and what was said before: work begins. A command that fails earlier changes nothing."""
        self._handler.begin()

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
def logged(run_dir: Location, listener: Listener) -> Iterator[LoggedListener]:
    """Write what is said while the block runs, warnings of all modules included, at the end of ``run.log``.

    There is no log in an object store, whose files cannot grow, none where the file cannot be written, and none before
    `LoggedListener.begin` is called.

    Args:
        run_dir: Where it lies.
        listener: Who wants to know as well.
    """
    handler = RunLogHandler(Path(run_dir.path) / FILE if run_dir.is_local else None)
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


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the record in one line, which a reader of logs expects."""
        return " ".join(super().format(record).split())
