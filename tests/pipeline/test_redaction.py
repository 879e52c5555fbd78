"""Secrets of URIs are cut out, wherever they stand; what is no secret stays."""

from __future__ import annotations

import json
import logging

import pytest

from pipeline import logs
from pipeline.redaction import has_secret, redact, redact_uri


@pytest.mark.parametrize(
    ("uri", "left"),
    [
        ("http://user:hunter2@host/x.wav", "http://host/x.wav"),
        ("https://hunter2@host/x.wav", "https://host/x.wav"),
        ("ftp://user:hunter2@host:21/x.wav", "ftp://host:21/x.wav"),
        ("s3://key:hunter2@bucket/x.wav", "s3://bucket/x.wav"),
        ("sftp://user:hunter2@host/x.wav", "sftp://host/x.wav"),
        ("http://user:hun@ter2@host/x.wav", "http://host/x.wav"),
        ("http://user:hun/ter2@host/x.wav", "http://host/x.wav"),
        ("http://user:hun#ter2@host/x.wav", "http://host/x.wav"),
        ("http://user:12345@host/x.wav", "http://host/x.wav"),
        ("HTTP://user:hunter2@host/x.wav", "HTTP://host/x.wav"),
        (
            "https://b.s3.amazonaws.com/x.wav?X-Amz-Algorithm=A&X-Amz-Signature=hunter2",
            "https://b.s3.amazonaws.com/x.wav",
        ),
        ("https://h/x.wav?versionId=3&x-amz-security-token=hunter2", "https://h/x.wav?versionId=3"),
        ("https://h/x.wav?AWSAccessKeyId=hunter2&Signature=hunter2&part=1", "https://h/x.wav?part=1"),
        ("https://h/x.wav?X-Goog-Signature=hunter2", "https://h/x.wav"),
        (
            "https://a.blob.core.windows.net/c/x.wav?sv=2024&sig=hunter2%3D&se=5",
            "https://a.blob.core.windows.net/c/x.wav?sv=2024&se=5",
        ),
        ("https://h/x.wav?token=hunter2", "https://h/x.wav"),
        ("https://h/x.wav?access_token=hunter2&id=5", "https://h/x.wav?id=5"),
        ("https://h/x.wav?id=5&api-key=hunter2;x=1", "https://h/x.wav?id=5;x=1"),
        ("https://h/x.wav?key=hunter2", "https://h/x.wav"),
        ("https://h/x.wav?X%2DAmz%2DSignature=hunter2", "https://h/x.wav"),
        ("https://h/get?url=https%3A%2F%2Fi%2Fx.wav%3Fsig%3Dhunter2&n=1", "https://h/get?n=1"),
        ("https://h/my file.wav?password=hunter2 and more&n=1", "https://h/my file.wav?n=1"),
        ("https://h/x.wav#access_token=hunter2", "https://h/x.wav"),
        ("simplecache::https://u:hunter2@h/x.wav", "simplecache::https://h/x.wav"),
    ],
)
def test_a_secret_is_cut_out_of_a_uri_and_of_any_text_with_it(uri: str, left: str) -> None:
    assert redact_uri(uri) == left
    assert redact_uri(left) == left
    assert has_secret(uri)
    if " " not in uri:
        assert "hunter2" not in redact(f"cannot get '{uri}', url={uri}: 403")
        assert "hunter2" not in redact(json.dumps({"url": uri}))


@pytest.mark.parametrize(
    "uri",
    [
        "/data/a?sig=1.wav",
        "a:b@c.wav",
        "s3://bucket/key@2x.wav",
        "abfs://container@account.dfs.core.windows.net/x.wav",
        "hf://datasets/user/repo@main/x.wav",
        "github://owner:repo@main/x.wav",
        "http://host:8080/a@b/x.wav",
        "https://h/x.wav?id=5&author=me&design=2&keyword=k&page=3#t=1.5,4",
    ],
)
def test_what_is_no_secret_stays(uri: str) -> None:
    assert redact_uri(uri) == redact(uri) == uri


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_line_of_a_log_has_a_secret(log_format: logs.LogFormat, capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.configure(log_format, everything=True)
        try:
            raise OSError("cannot open url='https://user:hunter2@host/x'")
        except OSError:
            logging.getLogger("other.library").exception(
                "GET %s", "https://h/x?sig=hunter2", extra={"uri": "ftp://u:hunter2@h"}
            )
        logging.getLogger("pipeline").info("https://h/x?token=hunter2", extra=logs.plain())
    finally:
        root.handlers[:], _ = before[0], root.setLevel(before[1])
    written = capfd.readouterr().err
    assert "https://h/x" in written
    assert "hunter2" not in written
