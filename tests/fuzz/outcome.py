"""What may come of a file from a stranger: a result, or one error that a user can read. Never a process, never a traceback."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, seed, settings

from dfnas_ray.errors import DfnasError

CASES = int(os.environ.get("DFNAS_FUZZ_CASES", "200"))
"""Of each family; of 20,000 a family takes minutes."""

SEED = int(os.environ.get("DFNAS_FUZZ_SEED") or time.time_ns() % 2**32)
"""Of all cases of this run; pytest's header shows it."""

CPU_SECONDS, WALL_SECONDS, MEGABYTES = 10.0, 120.0, 1000.0
"""What one file may take. The clock on the wall is for what waits without an end, on a busy machine as well."""

_settings = settings(
    max_examples=CASES,
    deadline=None,  # `outcome` looks at the time
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    database=None,
)


def fuzzed(test: Callable[..., None]) -> Callable[..., None]:
    """Let a test of hypothesis make so many cases from the seed."""
    return _settings(seed(SEED)(test))


_STARTS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "pty.spawn",
    "os.fork",
)
_watching: list[bool] = []
_started: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event.startswith(_STARTS):
        _started.append(f"{event} {arguments!r}"[:200])


sys.addaudithook(_watch)


@contextmanager
def nothing_starts():
    """Notice any process that is started meanwhile."""
    _watching.append(True)
    _started.clear()
    try:
        yield
    finally:
        _watching.pop()
    assert _started == []


@contextmanager
def little_is_taken():
    """Notice whatever takes more time or memory than a file may."""

    def too_long(*_: object) -> None:
        raise AssertionError(f"it takes more than {WALL_SECONDS} s")

    before, began = _peak(), time.process_time()
    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert time.process_time() - began < CPU_SECONDS
    assert _peak() - before < MEGABYTES


def _peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or its error; any other than ours is a finding, and so is one that takes too much."""
    with nothing_starts(), little_is_taken():
        try:
            return call()
        except DfnasError as error:
            message = str(error)
            assert 0 < len(message) <= 1000, message
            assert all(line.isprintable() for line in message.splitlines()), ascii(message)
            return error
