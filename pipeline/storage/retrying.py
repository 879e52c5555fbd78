"""Which failures of a store pass by themselves, and how long to try again.

A reset, stalled or cut connection, an answer of 5xx or 429, a server that is being restarted: these pass. Client
libraries raise almost any type for them. So this module lists the failures that do not pass, and every other call is
made again.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.redaction import redact_uri
from pipeline.storage.errors import (
    ADDRESS_ERRNOS,
    DamagedObject,
    ObjectTooLarge,
    StorageError,
    StoreUnavailable,
    chain,
    describe_error,
    harmless,
    is_unknown_host,
    status_and_code,
)

RETRY_SECONDS = 60.0
"""Counted from the first failure of a call. It is short because the shard as a whole is tried again later."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0

RETRYABLE_STATUS = (408, 409, 425, 429)
"""Answers below 500 that ask to come again; 409 is a conflict with an operation that is going on at this moment."""
RETRYABLE_CODES = ("BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch")
"""S3 answers these with status 400 where what arrived was not what was sent."""
PERMANENT = (
    *(FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError),
    *(StorageError, DamagedObject, ObjectTooLarge, UnicodeError, ImportError, MemoryError, NotImplementedError),
)
_PERMANENT_NAMES = ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound")
"""Errors of botocore, by name, because botocore is installed only with s3fs."""

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class RetryBudget:
    """The time that one call may spend on being tried again, and the pause after each failure."""

    def __init__(self, uri: str, action: str) -> None:
        self._uri = redact_uri(uri)
        self._action = action
        self._pause = FIRST_PAUSE_SECONDS
        self._until: float | None = None

    def pause_after(self, error: Exception) -> float:
        """Seconds to wait before the next try.

        Raises the error itself if it is permanent, StoreUnavailable if the time is spent.
        """
        now = time.monotonic()
        if self._until is None:
            self._until = now + RETRY_SECONDS
        if is_permanent(error):
            raise error
        if now >= self._until:
            raise StoreUnavailable(
                f"{self._uri}: cannot {self._action} it, tried for {RETRY_SECONDS:.0f} s: {describe_error(error)}"
            ) from harmless(error)
        pause = self._pause * random.uniform(0.5, 1.0)  # so that a thousand workers do not come back together
        # A person sees one warning a call: a dozen calls that all wait would fill the screen.
        level = logging.WARNING if self._pause < 1 <= 2 * self._pause else logging.INFO
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        message = "%s: cannot %s it, trying again in %.1f s: %s"
        logger.log(level, message, self._uri, self._action, pause, describe_error(error))
        return pause


def with_retries(uri: str, action: str, call: Callable[[], Result]) -> Result:
    """What `call` returns, tried until it succeeds, fails for good or has spent its RetryBudget."""
    budget = RetryBudget(uri, action)
    while True:
        try:
            return call()
        except Exception as error:
            pause = budget.pause_after(error)
        time.sleep(pause)


def is_permanent(error: BaseException) -> bool:
    """Whether the same request would always get the same answer."""
    status, code = status_and_code(error)
    if status is not None and status >= 300:
        return (status < 500 and status not in RETRYABLE_STATUS and code not in RETRYABLE_CODES) or status == 501
    for link in chain(error, "__cause__"):
        if isinstance(link, PERMANENT) or type(link).__name__ in _PERMANENT_NAMES:
            return True
        if isinstance(link, OSError) and link.errno in ADDRESS_ERRNOS:
            return True
    return is_unknown_host(error) or type(error) is ValueError  # an address that the client cannot make sense of
