"""SIGINT and SIGTERM as they arrive: while the main thread is inside Ray, no signal handler of Python can run.

A scheduler that ends a job, or `timeout`, sends SIGTERM to all its processes, Ray's among them. These end within
milliseconds, so the first thing that is seen is a lost cluster.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress

_ASKS = {signal.SIGINT, signal.SIGTERM}


class EndRequests:
    """Listens for requests to end this process.

    Nothing is noticed outside the main thread, or if other code, such as an event loop, listens already.
    """

    def __init__(self) -> None:
        self._came, self._pipe = False, (-1, -1)
        if threading.current_thread() is not threading.main_thread():
            return
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        if before != -1:
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)
            self._close_pipe()

    @property
    def pipe(self) -> int:
        """Descriptor from which the numbers of signals can be read; -1: nothing is noticed."""
        return self._pipe[0]

    @property
    def came(self) -> bool:
        """Whether a request came. Only signals for which Python has a handler count."""
        with suppress(OSError):  # there is nothing to read, or no pipe
            if any(number in _ASKS for number in os.read(self._pipe[0], 1024)):
                self._came = True
        return self._came

    def close(self) -> None:
        """Stop listening. A request that came before is still known."""
        _ = self.came
        if self._pipe[0] >= 0 and threading.current_thread() is threading.main_thread():
            found = signal.set_wakeup_fd(-1)
            if found != self._pipe[1] and found != -1:
                signal.set_wakeup_fd(found, warn_on_full_buffer=False)  # of code that began to listen later
            self._close_pipe()

    def _close_pipe(self) -> None:
        for end in self._pipe:
            os.close(end)
        self._pipe = (-1, -1)
