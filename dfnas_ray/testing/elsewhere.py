"""A second process with the installed packages and the working directory, like a worker: can it unpickle an object?"""

from __future__ import annotations

import atexit
import base64
import pickle
import subprocess
import sys
from functools import cache

_SCRIPT = """
import base64, pickle, sys
sys.stdout = sys.stderr  # what a module prints is no answer
for line in sys.stdin:
    try:
        pickle.loads(base64.b64decode(line))
        reason = "made"
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    sys.__stdout__.write(reason + "\\n")
    sys.__stdout__.flush()
"""


def why_not_made_elsewhere(value: object) -> str:
    """Return why another process cannot unpickle an object; empty if it can."""
    process = _process()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(base64.b64encode(pickle.dumps(value)).decode() + "\n")
    process.stdin.flush()
    answer = process.stdout.readline().strip() or "the process ended"
    return "" if answer == "made" else answer


@cache
def _process() -> subprocess.Popen[str]:
    """Return the process that all suites share, because importing torch takes seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.kill)
    return process
