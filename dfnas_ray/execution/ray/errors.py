"""The original errors behind those that Ray raises. Only this module unwraps Ray's errors."""

from __future__ import annotations

import re
from itertools import takewhile

from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from dfnas_ray.errors import DfnasError

_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception)\b(\(\w+\))?(: |$)")
_SIGNS = ("OutOfMemoryError", "ran out of memory", "running low on memory", "killed due to memory pressure")


def raised_in_worker(error: BaseException) -> BaseException:
    """Return what a worker raised, without Ray's wrappers."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error


def is_final(error: BaseException) -> bool:
    """Return whether the user has to fix the error: another attempt would fail again."""
    return isinstance(raised_in_worker(error), DfnasError)


def failed_at_start(error: BaseException) -> bool:
    """Return whether a worker raised an error while it was being prepared."""
    return isinstance(error, RayActorError) and bool(error.actor_init_failed)


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether Ray ended a worker to save its node. Tune and Train keep only the text of the error."""
    if isinstance(error, OutOfMemoryError):
        return True
    text = str(error)
    is_of_gpu = "CUDA out of memory" in text or "torch.OutOfMemoryError" in text
    return not is_of_gpu and not isinstance(error, DfnasError) and any(sign in text for sign in _SIGNS)


def out_of_memory(stage: str) -> str:
    """Return the message about a worker that Ray ended to save its node."""
    return (
        f"its node had no memory left, and Ray ended it. Let fewer workers share a node: cluster.{stage}.memory, such as 8GB, "
        "is set aside for each one. Or lower the batch size"
    )


def reason_of(error: BaseException, stage: str) -> str:
    """Return what happened to a worker of a stage in one line."""
    if ran_out_of_memory(error):
        return out_of_memory(stage)
    if failed_at_start(error):
        return _end_of_traceback(str(error))  # all that Ray keeps of the cause
    cause = raised_in_worker(error)
    if isinstance(cause, DfnasError):
        return str(cause)
    if isinstance(error, RayError) and not isinstance(error, RayTaskError):
        return f"its process or its node was lost: {type(error).__name__}"
    last = last_line(cause)
    return last if last.startswith(type(cause).__name__) else f"{type(cause).__name__}: {last}"


def last_line(error: BaseException, stage: str | None = None) -> str:
    """Return the line of a message that names the last error in it: what follows the traceback that Ray puts into it.

    It is the last line if none names an error.

    Args:
        error: A worker's error.
        stage: The worker's stage, if it may have run out of memory.
    """
    if stage is not None and ran_out_of_memory(error):
        return out_of_memory(stage)
    lines = str(error).strip().splitlines()
    named = [line for line in lines if _RAISED.match(line)]
    return (named or lines or [type(error).__name__])[-1]


def _end_of_traceback(text: str) -> str:
    """Return the last error in a traceback of Ray, with only the first line of its message."""
    lines = text.strip().splitlines()
    message = list(takewhile(lambda line: not line.startswith(" ") and "ray::" not in line, reversed(lines)))
    return message[-1].strip() if message else lines[-1].strip()
