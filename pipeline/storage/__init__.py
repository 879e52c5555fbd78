"""Object stores and local files behind one small set of functions. Only this package uses fsspec.

Every address is a URI: `s3://bucket/key`, `hf://datasets/…`, or a local path (made absolute, without a scheme).
Publishing is all or nothing: a reader finds the whole object or none.
"""

from pipeline.storage.allowed import AllowedPlaces, kind_of
from pipeline.storage.conditions import supports_conditional_create
from pipeline.storage.errors import (
    AccessRefused,
    DamagedObject,
    NotAFile,
    NotAllowed,
    NotAnObject,
    ObjectTooLarge,
    StorageError,
    StoreUnavailable,
    Unreachable,
)
from pipeline.storage.listing import ObjectInfo, changed, is_object, list_names, list_objects, stat, stat_all
from pipeline.storage.location import absolute, before_wildcards, is_local, join, relative, root_of
from pipeline.storage.on_disk import FileOnDisk
from pipeline.storage.positioned import PositionedIO
from pipeline.storage.publishing import create, publish, published_file, remove
from pipeline.storage.reading import Fetched, LargeObject, open_on_disk, open_read, read_ahead, read_bytes, read_ranges
from pipeline.storage.stale import remove_stale
from pipeline.storage.streaming import gauge as bytes_ahead
from pipeline.storage.walk import OnUnreadable, matches

__all__ = [
    "AccessRefused",
    "AllowedPlaces",
    "DamagedObject",
    "Fetched",
    "FileOnDisk",
    "LargeObject",
    "NotAFile",
    "NotAllowed",
    "NotAnObject",
    "ObjectInfo",
    "ObjectTooLarge",
    "OnUnreadable",
    "PositionedIO",
    "StorageError",
    "StoreUnavailable",
    "Unreachable",
    "absolute",
    "before_wildcards",
    "bytes_ahead",
    "changed",
    "create",
    "is_local",
    "is_object",
    "join",
    "kind_of",
    "list_names",
    "list_objects",
    "matches",
    "open_on_disk",
    "open_read",
    "publish",
    "published_file",
    "read_ahead",
    "read_bytes",
    "read_ranges",
    "relative",
    "remove",
    "remove_stale",
    "root_of",
    "stat",
    "stat_all",
    "supports_conditional_create",
]
