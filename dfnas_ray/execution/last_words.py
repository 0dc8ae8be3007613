"""How a command ends that has lost its Ray: it becomes another program, which says so, and in which no thread of Ray's is left.

Ray ends a driver that touches the object store of a raylet that is gone: about 20 ms after its death, without a word, with exit
code 1 (``connection.cc``, "Terminate the process"). No handler is asked. But a process that is replaced keeps its number, its
children and its terminal. Run as a file, ``python -P last_words.py JSON``, so that it imports next to nothing.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

ENDS = (signal.SIGINT, signal.SIGTERM)
"""What asks a command to end."""

_REAPER = "reaper.py"  # ends what is left of a local Ray after the command
_ONCE = threading.Lock()  # taken by whoever is first, and never given back


@dataclass(frozen=True)
class Ending:
    """A sentence, and the exit code after it."""

    sentence: str
    code: int


@dataclass(frozen=True)
class LastWords:
    """What is said, and done.

    Attributes:
        lost: If Ray was lost.
        asked: If the command was asked to end, and its Ray with it.
        was_asked: Whether it was, as far as is known.
        pipe: Descriptor from which the numbers of signals that have come can be read; -1: none.
        seconds: For which a request may be later than the end of Ray's processes.
        logs: Files to which the sentence is added.
    """

    lost: Ending
    asked: Ending
    was_asked: bool
    pipe: int
    seconds: float
    logs: tuple[str, ...]

    def speak(self) -> NoReturn:
        """Become the program that speaks; where that is not possible, speak here."""
        _ONCE.acquire()
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # what comes meanwhile is kept for the program
        with suppress(OSError, ValueError):
            if self.pipe >= 0:
                os.set_inheritable(self.pipe, True)
            os.execv(sys.executable, [sys.executable, "-P", __file__, json.dumps(asdict(self))])
        self.finish()

    def finish(self) -> NoReturn:
        """Wait for a request to end, say what happened, kill all children, and end this process."""
        was_asked = self.was_asked or self._hears()
        ending = self.asked if was_asked else self.lost
        with suppress(Exception):
            self._say(ending.sentence if was_asked else f"error: {ending.sentence}")
        with suppress(Exception):
            _kill_children()
        os._exit(ending.code)

    def _hears(self) -> bool:
        heard = signal.sigtimedwait(ENDS, self.seconds) is not None
        with suppress(OSError):  # there is nothing to read, or no pipe
            heard = heard or any(number in ENDS for number in os.read(self.pipe, 1024))
        return heard

    def _say(self, line: str) -> None:
        show_cursor = "\033[?25h" if os.isatty(2) else ""  # a bar has hidden it
        os.write(2, f"{show_cursor}{line}\n".encode(errors="replace"))
        moment = time.time()
        stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(moment))},{int(moment % 1 * 1000):03d}"
        for log in self.logs:
            if Path(log).exists():
                with Path(log).open("a", encoding="utf-8") as file:
                    file.write(f"{stamp} ERROR {line}\n")


def log_files() -> tuple[str, ...]:
    """Return the files to which this process logs."""
    found = (getattr(handler, "baseFilename", None) for handler in logging.getLogger().handlers)
    return tuple(str(file) for file in found if file)


def _kill_children() -> None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if not any(word.endswith(_REAPER) for word in process.cmdline()):
                process.kill()


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    LastWords(**{**told, "lost": Ending(**told["lost"]), "asked": Ending(**told["asked"])}).finish()
