"""Which failures pass by themselves and which do not, by the errors that clients really raise."""

from __future__ import annotations

import errno
import socket

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from s3fs.errors import translate_boto_error

from pipeline.storage import NotAnObject, StorageError, StoreUnavailable
from pipeline.storage.errors import translate_errors
from pipeline.storage.retrying import RETRY_SECONDS, RetryBudget, is_permanent


def answer(status: int, code: str) -> Exception:
    """What s3fs raises for an answer of S3."""
    response = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(ClientError(response, "GetObject"))  # type: ignore[arg-type, no-any-return]


def behind(error: Exception, context: Exception) -> Exception:
    """An error that was raised while another was handled."""
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    "error",
    [
        answer(404, "NoSuchKey"),
        answer(403, "AccessDenied"),
        answer(403, "SignatureDoesNotMatch"),
        answer(412, "PreconditionFailed"),
        answer(400, "InvalidArgument"),
        answer(301, "PermanentRedirect"),
        answer(501, "NotImplemented"),
        NoCredentialsError(),
        FileNotFoundError("gone"),
        IsADirectoryError("folder"),
        OSError(errno.ENAMETOOLONG, "long"),
        ValueError("Invalid endpoint: x"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        behind(EndpointConnectionError(endpoint_url="http://x"), socket.gaierror(socket.EAI_NONAME, "no such host")),
        NotAnObject("never"),
        StorageError("said already"),
    ],
    ids=repr,
)
def test_what_will_be_refused_for_ever_is_not_asked_for_again(error: Exception) -> None:
    assert is_permanent(error)
    with pytest.raises(type(error)):
        RetryBudget("s3://bucket/a", "read").pause_after(error)


@pytest.mark.parametrize(
    "error",
    [
        answer(500, "InternalError"),
        answer(503, "SlowDown"),
        answer(502, "BadGateway"),
        answer(429, "TooManyRequests"),
        answer(409, "ConditionalRequestConflict"),
        answer(400, "RequestTimeout"),
        answer(400, "IncompleteBody"),
        ConnectionResetError("reset"),
        TimeoutError(),
        IndexError("from the depths of a client"),
        EndpointConnectionError(endpoint_url="http://x"),
        behind(EndpointConnectionError(endpoint_url="http://x"), socket.gaierror(socket.EAI_AGAIN, "try again")),
        behind(ConnectionResetError("reset"), FileNotFoundError("of something else")),
    ],
    ids=repr,
)
def test_what_may_pass_is_tried_again_after_growing_pauses_and_warned_of_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert not is_permanent(error)
    budget = RetryBudget("s3://bucket/a", "read")
    pauses = [budget.pause_after(error) for _ in range(20)]
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert 0 < pauses[0] <= 0.1
    assert 2.5 <= min(pauses[-5:]) <= max(pauses) <= 5


def test_a_budget_of_retries_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("pipeline.storage.retrying.time.monotonic", lambda: now)
    budget = RetryBudget("s3://bucket/a", "read")
    budget.pause_after(ConnectionResetError())
    now += RETRY_SECONDS - 1
    budget.pause_after(ConnectionResetError())
    now += 1
    with pytest.raises(StoreUnavailable, match="s3://bucket/a: cannot read it, tried for 60 s: ConnectionResetError"):
        budget.pause_after(ConnectionResetError())


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (NoCredentialsError(), "set AWS_ACCESS_KEY_ID"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), "is AWS_ENDPOINT_URL its address"),
    ],
    ids=repr,
)
def test_what_an_error_does_not_say_of_what_to_do_is_added(error: Exception, remedy: str) -> None:
    with (
        pytest.raises(StorageError, match=f"s3://bucket/a: cannot read it: .*{remedy}"),
        translate_errors("s3://bucket/a", "read"),
    ):
        raise error
