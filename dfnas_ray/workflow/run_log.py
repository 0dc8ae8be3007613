"""The log of a run directory, ``run.log``: the messages of every command there, with the time, and how it ended."""

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
        file: The log file; None to write nothing.
    """

    def __init__(self, file: Path | None):
        super().__init__(logging.INFO)
        self._file, self._kept, self._begun = file, list[str](), False
        self.baseFilename = None if file is None else str(file)  # as `logging.FileHandler` calls it
        self.addFilter(_ThisThreads())
        self.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))

    def begin(self) -> None:
        """Write the kept lines now, and every later line at once."""
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
    """Passes messages on to another listener, and writes them into the log.

    Args:
        inner: The other listener.
        handler: The handler of the log.
    """

    def __init__(self, inner: Listener, handler: RunLogHandler):
        self._inner, self._handler = inner, handler

    def begin(self) -> None:
        """Begin to write, earlier messages included: work begins. A command that fails earlier changes nothing."""
        self._handler.begin()

    def note(self, message: str, level: int = logging.INFO) -> None:
        """Write one line into the log only."""
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
    """Passes records of this thread and of threads that it starts: several runs may share a process."""

    def __init__(self) -> None:
        super().__init__()
        self._others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread not in self._others


@contextmanager
def logged(run_dir: Location, listener: Listener) -> Iterator[LoggedListener]:
    """While the block runs, append all messages to ``run.log``, also warnings of all modules.

    Nothing is written in an object store, whose files cannot grow; if the file cannot be written; or before
    `LoggedListener.begin` is called.

    Args:
        run_dir: The run directory.
        listener: A listener that gets the messages as well.
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
        """Return the record in one line, as readers of logs expect."""
        return " ".join(super().format(record).split())
