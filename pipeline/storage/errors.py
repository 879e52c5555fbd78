"""The errors of storage: one family for every kind of store, each naming the object and what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator


class StorageError(Exception):
    """An object cannot be reached. The message names its URI and what to do."""


class StoreUnavailable(StorageError):
    """A store did not answer for as long as one call waits, so the fault is more likely its own than the object's."""


class NotAnObject(StorageError):
    """No object can have this address, however often it is tried: a folder, a device, a name that no store takes."""


class DamagedObject(ValueError):
    """The bytes of an object cannot be unpacked."""


class ObjectTooLarge(ValueError):
    """An object has more bytes than the caller allows."""


ADDRESS_ERRNOS = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""Error numbers which say that no object can have this address."""

_REMEDIES = {
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws",
    "PartialCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws",
    "EndpointConnectionError": "is the server up, and is AWS_ENDPOINT_URL its address?",
}
"""What to do about errors of botocore whose own message does not say it."""


def describe_error(error: BaseException) -> str:
    """The message of an error, with the remedy where one is known."""
    message = str(error) or type(error).__name__
    remedy = _REMEDIES.get(type(error).__name__)
    return f"{message} ({remedy})" if remedy else message


@contextlib.contextmanager
def translate_errors(uri: str, action: str) -> Iterator[None]:
    """Turn whatever a client library raises into an error that names the object.

    A StorageError, DamagedObject, ObjectTooLarge or MemoryError passes through, and so does FileNotFoundError where the
    action is not to write. All others become a StorageError, or a NotAnObject where no object can have this address.
    """
    try:
        yield
    except (StorageError, DamagedObject, ObjectTooLarge, MemoryError):
        raise
    except FileNotFoundError as error:
        if action == "write":
            raise StorageError(f"{uri}: cannot write there: the place does not exist and cannot be made") from error
        raise
    except PermissionError as error:
        raise StorageError(
            f"{uri}: not allowed to {action} it: check the credentials and the bucket's policy"
        ) from error
    except Exception as error:
        number = getattr(error, "errno", None)
        impossible = type(error) is ValueError or isinstance(error, UnicodeError) or number in ADDRESS_ERRNOS
        message = f"{uri}: cannot {action} it: {describe_error(error)}"
        raise (NotAnObject if impossible else StorageError)(message) from error
