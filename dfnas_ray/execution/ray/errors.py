"""What Ray raises, as what was raised in the first place: the one place that unwraps its errors."""

from __future__ import annotations

from itertools import takewhile

from ray.exceptions import RayActorError, RayError, RayTaskError

from dfnas_ray.errors import DfnasError


def raised_in_worker(error: BaseException) -> BaseException:
    """Return what a worker raised, without Ray's wrappers."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error


def is_final(error: BaseException) -> bool:
    """Whether the user has to mend it: the same numbers would fail again."""
    return isinstance(raised_in_worker(error), DfnasError)


def failed_at_start(error: BaseException) -> bool:
    """Whether a worker raised while it was being prepared."""
    return isinstance(error, RayActorError) and bool(error.actor_init_failed)


def reason_of(error: BaseException) -> str:
    """Return what happened in one line."""
    if failed_at_start(error):
        return _end_of_traceback(str(error))  # all that Ray keeps of the cause
    cause = raised_in_worker(error)
    if isinstance(cause, DfnasError):
        return str(cause)
    if isinstance(error, RayError) and not isinstance(error, RayTaskError):
        return f"its process or its node was lost: {type(error).__name__}"
    last = last_line(cause)
    return last if last.startswith(type(cause).__name__) else f"{type(cause).__name__}: {last}"


def last_line(error: BaseException) -> str:
    """Return the last line of an error's message: what follows the traceback that Ray puts into it."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _end_of_traceback(text: str) -> str:
    """Return the last error of a traceback of Ray's, without further lines of its message."""
    lines = text.strip().splitlines()
    message = list(takewhile(lambda line: not line.startswith(" ") and "ray::" not in line, reversed(lines)))
    return message[-1].strip() if message else lines[-1].strip()
