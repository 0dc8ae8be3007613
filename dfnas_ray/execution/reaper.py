"""A process beside a command that has started Ray. When the command dies, it ends the processes that Ray leaves behind.

It also speaks for a command that Ray ends without a word: while Ray connects a command to a raylet that dies, it calls
``_Exit(1)`` (``QuickExit`` in ``core_worker_process.cc``), which no handler sees.

The kernel ends the raylet with its command, and workers follow within seconds. Ray's agents notice as well, but then
try for a minute to tell the head, which is dead (`publish_error_to_driver` waits 60 s). The module runs as a file,
``python -P reaper.py PID``, so that it imports almost nothing.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

_LOOK_SECONDS = 1.0
_PARENT_SECONDS = 0.1  # after which a process that has closed its files has ended, or is another program
_QUIET_SECONDS = 5.0  # without a find, until the search ends: by then every process has appeared


class Reaper:
    """The process beside this one.

    If it cannot be started, nothing else is lost: Ray's agents may then outlive the command by a minute.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if sys.executable:  # empty: Python within another program
            with suppress(OSError):
                self._process = subprocess.Popen(
                    [sys.executable, "-P", __file__, str(os.getpid())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    process_group=0,  # a terminal's signals to the command's group must not reach it
                )

    def expect(self, sentence: str) -> None:
        """Say this if the command dies from now on without a word of its own. An empty sentence: say nothing any more."""
        if self._process is not None:
            assert self._process.stdin is not None
            with suppress(OSError):  # it has ended
                os.write(self._process.stdin.fileno(), f"{sentence}\n".encode())

    def stop(self) -> None:
        """End the reaper."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.kill()
            self._process.stdin.close()
            self._process.wait()


def end_processes_of(command: int) -> int:
    """Kill the processes of the Ray cluster that process ``command`` has started, and return their number."""
    found = [process for process in psutil.process_iter() if _belongs(process, command)]
    for process in found:
        with suppress(psutil.Error):
            process.kill()
    return len(found)


def _belongs(process: psutil.Process, command: int) -> bool:
    """Return whether a process belongs to a session of the command, whose folder is ``session_DATE_TIME_PID``."""
    session = re.compile(rf"session_[0-9_-]+_{command}\b")
    with suppress(psutil.Error, OSError):
        if process.pid in (os.getpid(), command) or process.uids().real != os.getuid():
            return False
        words = process.cmdline()
        if any(session.search(word) for word in words):
            return any(word.startswith(f"{_ray_folder()}/") for word in words)  # an editor that shows a log is not one
        if words and words[0].startswith("ray::"):  # its title has replaced its command line
            return any(session.search(file.path) for file in process.open_files())
    return False


@cache
def _ray_folder() -> str:
    spec = importlib.util.find_spec("ray")
    return str(Path(spec.origin).parent) if spec is not None and spec.origin else ""


def _watch(command: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # it ends with the command, not before
        signal.signal(number, signal.SIG_IGN)
    sentence = _last_sentence()
    time.sleep(_PARENT_SECONDS)
    if sentence and os.getppid() != command:  # otherwise it has become another program, which speaks
        with suppress(OSError):
            os.write(2, sentence + b"\n")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # whoever reads what the command says is not kept waiting
    while os.getppid() == command:
        time.sleep(_LOOK_SECONDS)
    end = time.monotonic() + _QUIET_SECONDS
    while time.monotonic() < end:
        if end_processes_of(command):
            end = time.monotonic() + _QUIET_SECONDS
        time.sleep(_LOOK_SECONDS)


def _last_sentence() -> bytes:
    """Read what to say until the command ends, and return the last line."""
    told = b""
    while more := os.read(0, 4096):
        told = (told + more)[-4096:]
    return told.removesuffix(b"\n").rpartition(b"\n")[2]


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
