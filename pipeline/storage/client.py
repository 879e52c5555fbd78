"""How the clients of object stores are set up: from the environment, without caches, and with retries in one place.

The client finds credentials, endpoint and region by itself: in `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_PROFILE`, the role of the machine, or fsspec's own `FSSPEC_S3='{"…": …}'` and
`~/.config/fsspec/*.json`. Nothing of this is kept here, so nothing of it can be written anywhere.
"""

from __future__ import annotations

from typing import Any

import fsspec.config

CONNECT_SECONDS = 5
STALL_SECONDS = 15
"""A connection that is silent for longer is given up, and the request is made again."""
CONNECTIONS = 32

_S3 = ("s3", "s3a")


def client_options(uri: str) -> dict[str, Any]:
    """Options for the file system of a URI. What the user has set in fsspec's configuration is kept."""
    if uri.partition("://")[0] not in _S3:
        return {}
    config = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": STALL_SECONDS,
        "max_pool_connections": CONNECTIONS,
        # botocore and s3fs would each try five times, so that a stalled server holds a call for minutes.
        "retries": {"total_max_attempts": 1},
        # Some stores answer a request for a range with the checksum of the whole object.
        "response_checksum_validation": "when_required",
    }
    given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    # A cached listing would hide what another job has written since.
    return {"use_listings_cache": False, "config_kwargs": config | given}


def prepare_client(filesystem: Any, path: str) -> None:
    """Set what the options cannot, before each use of a path."""
    if is_s3(filesystem):
        filesystem.retries = 1
    elif "hf" in _protocols(filesystem) and path.startswith("buckets/"):
        filesystem.dircache.clear()  # kept without an option, it would hide what another job has written since


def is_s3(filesystem: Any) -> bool:
    return bool(set(_S3) & _protocols(filesystem))


def serves_ranges(filesystem: Any) -> bool:
    """Whether ranges of an object can be fetched at the same time. Web servers may send the whole object for each
    range."""
    return bool(filesystem.async_impl) and not _protocols(filesystem) & {"http", "https"}


def _protocols(filesystem: Any) -> set[str]:
    protocol = filesystem.protocol
    return {protocol} if isinstance(protocol, str) else set(protocol)
