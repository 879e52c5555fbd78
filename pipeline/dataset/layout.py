"""The URI of every file of an output."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

from pipeline import storage
from pipeline.items import ShardSpec
from pipeline.storage import ObjectInfo


@dataclass(frozen=True, slots=True)
class Layout:
    """URIs inside the output folder `root`."""

    root: str

    @property
    def card(self) -> str:
        return storage.join(self.root, "README.md")

    @property
    def success(self) -> str:
        """Present once every planned shard is committed. It holds the checksums of the card, the plan and the
        record."""
        return storage.join(self.root, "_SUCCESS")

    @property
    def internal(self) -> str:
        """The folder of what moss-tok needs and readers of the dataset do not."""
        return storage.join(self.root, "_moss_tok")

    @property
    def plan(self) -> str:
        return storage.join(self.internal, "plan.parquet")

    @property
    def run(self) -> str:
        return storage.join(self.internal, "run.json")

    @property
    def machine(self) -> str:
        """On what kind of machine the output is made: see pipeline/dataset/machines.py."""
        return storage.join(self.internal, "machine.json")

    @property
    def totals(self) -> str:
        """The sums over the shards that were counted: a cache, which can be made again from the manifests."""
        return storage.join(self.internal, "totals.json")

    @property
    def manifests(self) -> str:
        return storage.join(self.internal, "shards")

    @property
    def runs(self) -> str:
        """The folder of what each run reports about itself: see pipeline/monitoring/heartbeat.py."""
        return storage.join(self.internal, "runs")

    def heartbeat(self, run_id: str) -> str:
        return storage.join(self.runs, f"{run_id}.json")

    def checksums(self) -> str:
        """The contents of `_SUCCESS`: checksums of the card, the plan and the record, as `sha256sum --check` reads
        them.

        Those of a shard's objects are in its manifest, and a manifest has its own.
        """
        names = {storage.relative(uri, self.root): uri for uri in (self.card, self.plan, self.run)}
        digests = {name: hashlib.sha256(storage.read_bytes(uri)).hexdigest() for name, uri in names.items()}
        return "".join(f"{digest}  {name}\n" for name, digest in digests.items())

    def manifest(self, shard_id: str) -> str:
        return storage.join(self.manifests, f"{shard_id}.json")

    def split_data(self, split: str) -> str:
        """The folder with the data objects of a split."""
        return storage.join(self.root, "data", split)

    def data(self, spec: ShardSpec) -> str:
        return storage.join(self.split_data(spec.split), f"{spec.shard_id}.parquet")

    def rejects(self, spec: ShardSpec) -> str:
        return storage.join(self.root, "rejects", spec.split, f"{spec.shard_id}.parquet")

    def open_committed(self, uri: str) -> BinaryIO:
        """A seekable stream of an object of a committed shard. Raises the error of `gone` if it is not there."""
        try:
            return storage.open_read(uri)
        except FileNotFoundError:
            raise self.gone(uri) from None

    def stat_committed(self, uri: str) -> ObjectInfo:
        """What the store says of an object of a committed shard. Raises the error of `gone` if it is not there."""
        info = storage.stat(uri)
        if info is None:
            raise self.gone(uri)
        return info

    def gone(self, uri: str) -> FileNotFoundError:
        """The error to raise if an object of a committed shard is not there."""
        return FileNotFoundError(
            f"{uri}: gone, although its shard is committed (moss-tok verify tells what else is): put it back from a "
            f"copy, or run moss-tok repair {self.root} and then tokenize again"
        )
