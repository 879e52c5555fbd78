"""Finding committed shards to do again, because the reasons of some of their rejects may have passed. No audio is
read."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from urllib.parse import urlsplit

import pyarrow as pa

from pipeline import storage
from pipeline.concurrency import in_order
from pipeline.dataset.commit import is_whole
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import ShardManifest, read_manifest
from pipeline.items import ShardSpec
from pipeline.parquet import read_table
from pipeline.storage import StorageError, StoreUnavailable

logger = logging.getLogger(__name__)

THREADS = 16  # small reads, whose time is the store's latency


def find_retries(layout: Layout, specs: Iterable[ShardSpec], reasons: Collection[str]) -> dict[str, ShardManifest]:
    """Those of the committed shards that should be done again: their manifests by id.

    A shard should be, if a file is there now that was rejected for one of the reasons. A shard with such rejects should
    be too if its objects are not whole, which is how a run leaves it that died while it replaced the shard.
    """
    look = _Look(layout, reasons)
    return {manifest.shard_id: manifest for manifest in in_order(look.at, specs, THREADS) if manifest is not None}


class _Look:
    def __init__(self, layout: Layout, reasons: Collection[str]) -> None:
        self._layout = layout
        self._reasons = frozenset(reasons)
        self._away: set[tuple[str, str]] = set()
        """Stores that did not answer. Each is waited for once only."""

    def at(self, spec: ShardSpec) -> ShardManifest | None:
        """The manifest of a shard that should be done again; None for any other."""
        try:
            manifest = read_manifest(self._layout, spec.shard_id)
        except FileNotFoundError:
            return None  # undone by another process meanwhile
        if not self._reasons & manifest.rejects_by_reason.keys():
            return None
        if not is_whole(self._layout, spec, manifest):
            return manifest
        return manifest if any(self._is_there(uri) for uri in self._rejected(spec)) else None

    def _rejected(self, spec: ShardSpec) -> Iterator[str]:
        """URIs of the files whose rejects may have passed."""
        uri = self._layout.rejects(spec)
        try:
            rejects = read_table(pa.BufferReader(storage.read_bytes(uri)), ["id", "source", "reason"])
        except (FileNotFoundError, pa.ArrowException, OSError, LookupError) as error:
            logger.warning("%s: cannot be looked through for files that are there again: %s", uri, error)
            return
        for row in rejects.to_pylist():
            if row["reason"] in self._reasons:
                # The plan has all bytes of a name that is not UTF-8, and the row has not.
                position = int(row["id"].rpartition("-")[2])
                yield storage.join(spec.uri, spec.members[position]) if spec.members else row["source"]

    def _is_there(self, uri: str) -> bool:
        store = urlsplit(uri)[:2] if "://" in uri else ("", "")
        if store in self._away:
            return False
        try:
            return storage.is_object(uri)
        except StoreUnavailable as error:
            self._away.add(store)
            logger.warning("its files are not looked for again: %s", error)
            return False
        except (StorageError, ValueError) as error:
            logger.info("not there again: %s", error)
            return False
