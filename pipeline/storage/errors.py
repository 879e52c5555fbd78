"""The errors of storage: one family for every kind of store, each naming the object and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator

from pipeline.redaction import redact


class StorageError(Exception):
    """An object cannot be reached. The message names its URI, with secrets removed, and says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class StoreUnavailable(StorageError):
    """A store did not answer for as long as one call waits, so the fault is more likely its own than the object's."""


class Unreachable(StorageError):
    """A store cannot be reached from here, and waiting does not help: no such host, no plug-in, an answer that makes no
    sense."""


class AccessRefused(StorageError):
    """The store refuses access. The fault is in the credentials and not in the object."""


class NotAnObject(StorageError):
    """No object can have this address, however often it is tried: a folder, a name that no store takes."""


class NotAFile(NotAnObject):
    """The address is that of a device, a pipe or a socket."""


class NotAllowed(NotAnObject):
    """The object is outside of the places that may be read."""


class DamagedObject(ValueError):
    """The bytes of an object cannot be unpacked."""


class ObjectTooLarge(ValueError):
    """An object has more bytes than the caller allows."""


ADDRESS_ERRNOS = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""Error numbers which say that no object can have this address."""

MISSING_STATUS = (404, 410)
REFUSED_STATUS = (401, 403, 407, 451)

_REMEDIES = {
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws",
    "PartialCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws",
    "EndpointConnectionError": "is the server up, and is AWS_ENDPOINT_URL its address?",
}
"""What to do about errors of botocore whose own message does not say it."""


def describe_error(error: BaseException) -> str:
    """The message of an error, with the remedy where one is known."""
    message = redact(str(error)) or type(error).__name__
    remedy = _REMEDIES.get(type(error).__name__)
    return f"{message} ({remedy})" if remedy else message


@contextlib.contextmanager
def translate_errors(uri: str, action: str) -> Iterator[None]:
    """Turn whatever a client library raises into an error that names the object.

    A StorageError, DamagedObject, ObjectTooLarge or MemoryError passes through, and so does FileNotFoundError unless
    the action is to write. The HTTP status 404 is a FileNotFoundError, and so is 410, by which a server says that it
    had the object and will not have it again. All others become a StorageError: AccessRefused, Unreachable if the host
    or the answer shows that trying again is useless, NotAnObject if no object can have this address.
    """
    try:
        yield
    except (StorageError, DamagedObject, ObjectTooLarge, MemoryError):
        raise
    except FileNotFoundError as error:
        if action == "write":
            raise StorageError(f"{uri}: cannot write there: the place does not exist and cannot be made") from harmless(
                error
            )
        if harmless(error) is None:
            raise FileNotFoundError(redact(str(error))) from None
        raise
    except PermissionError as error:
        remedy = "check the credentials and the bucket's policy"
        if "://" not in uri or uri.startswith(("file://", "local://")):
            remedy = _local_remedy(error)
        raise AccessRefused(f"{uri}: not allowed to {action} it: {remedy}") from harmless(error)
    except Exception as error:
        status, _ = status_and_code(error)
        message = f"{uri}: cannot {action} it: {describe_error(error)}"
        if status in MISSING_STATUS and action != "write":
            raise FileNotFoundError(f"{uri}: {redact(str(error))}") from None
        if status in REFUSED_STATUS:
            why = f"{uri}: not allowed to {action} it (HTTP {status}): check the credentials"
            raise AccessRefused(why) from harmless(error)
        number = getattr(error, "errno", None)
        impossible = type(error) is ValueError or isinstance(error, UnicodeError) or number in ADDRESS_ERRNOS
        if impossible:
            raise NotAnObject(message) from harmless(error)
        hopeless = is_unknown_host(error) or (status is not None and 400 <= status < 500)
        raise (Unreachable if hopeless else StorageError)(message) from harmless(error)


def harmless(error: BaseException) -> BaseException | None:
    """The error, to be given as the cause of another one; None if it, or an error behind it, would show a secret."""
    links = [*chain(error, "__cause__"), *chain(error, "__context__")]
    return None if any(redact(str(link)) != str(link) for link in links) else error


def is_unknown_host(error: BaseException) -> bool:
    """Whether there is no host of this name."""
    return any(
        isinstance(link, socket.gaierror) and link.errno != socket.EAI_AGAIN
        for link in [*chain(error, "__context__"), *chain(error, "__cause__")]
    )


def status_and_code(error: BaseException) -> tuple[int | None, str]:
    """The HTTP status that an error of a client library stands for, or None, and beside it S3's code, or ""."""
    for link in chain(error, "__cause__"):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            code = str(response.get("Error", {}).get("Code", ""))
        else:
            status, code = getattr(response, "status_code", None) or getattr(link, "status", None), ""
        if isinstance(status, int):
            return status, code
    return None, ""


def chain(error: BaseException | None, attribute: str) -> Iterator[BaseException]:
    """The error and those behind it: what it was raised from, or what was being handled when it was raised."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = getattr(error, attribute)


def _local_remedy(error: PermissionError) -> str:
    """Which user was refused, and what: the folder above may be the one that refuses."""
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "it"
    who = f"this process has user id {os.geteuid()}"
    return f"check owner and mode of {path} and of the folders above ({who})"
