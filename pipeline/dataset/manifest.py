"""The manifest of a shard: counts, checksums and provenance. A shard is committed when its manifest is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product

from pipeline import storage
from pipeline.concurrency import in_order
from pipeline.dataset.checksummed_json import dump_checksummed, load_checksummed
from pipeline.dataset.layout import Layout

READ_THREADS = 16
NAMES_PER_LISTING = 10_000  # ten requests, one after the other


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardManifest:
    """Contents of a shard's manifest. Definitions and units are in schemas/manifest.v1.yaml."""

    shard_id: str
    split: str
    uri: str
    version: str
    input_size: int
    fingerprint: str
    rows: int
    rejects: int
    rejects_by_reason: Mapping[str, int]
    audio_seconds: float
    frames: int
    input_bytes: int
    output_bytes: int
    sha256: str
    rejects_bytes: int
    rejects_sha256: str
    attempt: int
    started_at: float
    finished_at: float
    seconds: Mapping[str, float]
    versions: Mapping[str, str]
    machine: Mapping[str, str] = field(default_factory=dict)


def commit(layout: Layout, manifest: ShardManifest) -> ShardManifest:
    """Publish the manifest. From here on the shard is done, and no run does it again.

    Returns the manifest that counts: that of another worker if it was first with the same shard.
    """
    if storage.create(layout.manifest(manifest.shard_id), dump_checksummed(asdict(manifest))):
        return manifest
    return read_manifest(layout, manifest.shard_id)


def committed_ids(layout: Layout, planned: int = 0) -> set[str]:
    """Ids of the shards that are committed. Only names are listed; no manifest is read."""
    return _listed(layout.manifests, ".json", planned)


def ids_with_data(layout: Layout, splits: Iterable[str], planned: int = 0) -> set[str]:
    """Ids of the shards whose data object is there. Only names are listed; no object is read."""
    return set().union(*(_listed(layout.split_data(split), ".parquet", planned) for split in splits))


def _listed(folder: str, ending: str, planned: int) -> set[str]:
    """Names in a folder without their ending. A large listing is split by the first digits of the ids."""
    digits = len(f"{planned // NAMES_PER_LISTING:x}") if planned > NAMES_PER_LISTING else 0
    prefixes = ["".join(start) for start in product("0123456789abcdef", repeat=digits)] if digits else []
    names = storage.list_names(folder, prefixes)
    return {name.removesuffix(ending) for name in names if name.endswith(ending) and not name.startswith(".")}


def read_manifests(layout: Layout, shard_ids: set[str]) -> Iterator[ShardManifest]:
    """The manifests of the given shards, sorted by id. Raises ValueError for one that cannot be understood."""
    return in_order(partial(read_manifest, layout), sorted(shard_ids), READ_THREADS)


def read_manifest(layout: Layout, shard_id: str) -> ShardManifest:
    """The manifest of one shard. Raises ValueError if it cannot be understood, FileNotFoundError if it is not there."""
    uri = layout.manifest(shard_id)
    try:
        return ShardManifest(**load_checksummed(storage.read_bytes(uri)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{uri}: not a manifest: {error}: moss-tok repair makes it again") from error
