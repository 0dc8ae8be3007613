"""Retries for storage that fails for a while: which errors are temporary, and how long to wait."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

logger = logging.getLogger(__name__)

RETRY_SECONDS = 120.0
"""How long an operation is retried before its error is final. An object store's own client adds a few seconds to each
attempt."""

_PASSING_ERRNO = {
    errno.EAGAIN,
    errno.EIO,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ESTALE,  # a network filesystem whose server was restarted
    errno.ETIMEDOUT,
}
_PASSING_WORDS = (  # in the messages of Arrow's object stores
    "SLOW_DOWN",
    "THROTTLING",
    "SERVICE_UNAVAILABLE",
    "INTERNAL_FAILURE",
    "NETWORK_CONNECTION",
    "REQUEST_TIMEOUT",
    "HTTP status 5",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
)

Result = TypeVar("Result")


def passes_by_itself(error: BaseException) -> bool:
    """Return whether a later attempt may succeed: the network or the store is at fault, not the request."""
    if not isinstance(error, OSError):
        return False
    if error.errno is not None:
        return error.errno in _PASSING_ERRNO
    return any(words in str(error) for words in _PASSING_WORDS)


def with_retries(operation: Callable[[], Result], what: str) -> Result:
    """Return what ``operation`` returns, with retries while the storage fails.

    Args:
        operation: A function that does no harm when it runs twice.
        what: What was tried, for the log, as in "write s3://bucket/x".
    """

    def tell(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            logger.warning(
                "Cannot %s for now (%s): trying again for up to %.0f s.", what, state.outcome.exception(), RETRY_SECONDS
            )

    attempts = Retrying(
        retry=retry_if_exception(passes_by_itself),
        stop=stop_after_delay(RETRY_SECONDS),
        wait=wait_random_exponential(multiplier=0.5, max=15),
        before_sleep=tell,
        reraise=True,
    )
    return attempts(operation)


def with_restarts(
    operation: Callable[[], Result],
    attempts: int,
    wait: Callable[[], object],
    passes: Callable[[BaseException], bool] = passes_by_itself,
) -> Result:
    """Return what a long operation returns. If failing storage or a lost process ends it, start it again.

    Args:
        operation: A function that continues from what it has stored.
        attempts: The most starts, however long each attempt takes.
        wait: A function that returns when the storage answers again.
        passes: Returns whether a later attempt may succeed after an error.
    """

    def tell(state: RetryCallState) -> None:
        lines = str(state.outcome and state.outcome.exception()).strip().splitlines()
        reason = lines[0] if lines else "no reason given"
        logger.warning("Interrupted (%s): attempt %d of %d follows.", reason, state.attempt_number + 1, attempts)
        wait()

    again = Retrying(
        retry=retry_if_exception(passes),
        stop=stop_after_attempt(attempts),
        before_sleep=tell,
        reraise=True,
    )
    return again(operation)
