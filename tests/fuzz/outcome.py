"""What may come of a file from a stranger: a result, or one error that a user can read. Never a process, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings

from dfnas_ray.errors import DfnasError

CASES = int(os.environ.get("DFNAS_FUZZ_CASES", "100"))
"""Of each family; 20,000 take hours."""

fuzzed = settings(
    max_examples=CASES,
    deadline=timedelta(seconds=10),
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
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


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or its error; any other than ours is a finding."""
    with nothing_starts():
        try:
            return call()
        except DfnasError as error:
            message = str(error)
            assert 0 < len(message) <= 1000, message
            assert all(line.isprintable() for line in message.splitlines()), ascii(message)
            return error
