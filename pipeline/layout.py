"""Where everything is in an output."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import storage
from pipeline.items import ShardSpec


@dataclass(frozen=True, slots=True)
class Layout:
    """URIs inside the output folder `root`."""

    root: str

    @property
    def card(self) -> str:
        return storage.join(self.root, "README.md")

    @property
    def success(self) -> str:
        """Present once every planned shard is committed."""
        return storage.join(self.root, "_SUCCESS")

    @property
    def plan(self) -> str:
        return storage.join(self.root, "_moss_tok", "plan.parquet")

    @property
    def run(self) -> str:
        return storage.join(self.root, "_moss_tok", "run.json")

    @property
    def manifests(self) -> str:
        return storage.join(self.root, "_moss_tok", "shards")

    def manifest(self, shard_id: str) -> str:
        return storage.join(self.manifests, f"{shard_id}.json")

    def data(self, spec: ShardSpec) -> str:
        return storage.join(self.root, "data", spec.split, f"{spec.shard_id}.parquet")

    def rejects(self, spec: ShardSpec) -> str:
        return storage.join(self.root, "rejects", spec.split, f"{spec.shard_id}.parquet")
