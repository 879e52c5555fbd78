"""The totals of an output, and which shards of its plan they count, stored so that they need not be computed again.

To add up a million manifests takes a store a quarter of an hour. So the output holds the sum together with the set of
the shards in it, and only the manifests of the other shards are read. It is a cache and the manifests are the truth: a
cache that is missing, damaged, of another plan, or that counts a shard which is no longer committed is not used.

Two jobs that work on one output at the same time each write the sum of what they know, and the last one stays. It may
lack shards, whose manifests are then read, but it counts none twice.
"""

from __future__ import annotations

import base64
import logging
import zlib
from collections.abc import Iterable, Sequence

from pipeline.dataset.checksummed_json import dump_checksummed, load_checksummed
from pipeline.dataset.manifest import ShardManifest
from pipeline.dataset.totals import Totals
from pipeline.items import ShardSpec
from pipeline.steps.reject_reasons import MAY_PASS

logger = logging.getLogger(__name__)


SETTLED, MAY_CHANGE = 1, 2
"""Marks of a counted shard: MAY_CHANGE if a run may replace it, see `TotalsCache.may_change`. 0 is not counted."""


class TotalsCache:
    """The totals of an output, in which each shard of the plan is counted at most once."""

    def __init__(self, specs: Sequence[ShardSpec]) -> None:
        self._position = {spec.shard_id: position for position, spec in enumerate(specs)}
        self._counted = bytearray(len(specs))
        self.totals = Totals()

    def add(self, manifest: ShardManifest) -> None:
        """Count a shard of the plan, unless it is counted already."""
        position = self._position[manifest.shard_id]
        if not self._counted[position]:
            self._counted[position] = MAY_CHANGE if MAY_PASS & manifest.rejects_by_reason.keys() else SETTLED
            self.totals.add(Totals.of(manifest))

    def uncounted(self, shard_ids: Iterable[str]) -> set[str]:
        """Those of the given ids that are in the plan and not counted."""
        return {
            shard_id
            for shard_id in shard_ids
            if (position := self._position.get(shard_id)) is not None and not self._counted[position]
        }

    @property
    def may_change(self) -> set[str]:
        """Ids of the counted shards that have rejects whose reason may pass: a run may replace them."""
        return {shard_id for shard_id, position in self._position.items() if self._counted[position] == MAY_CHANGE}

    @property
    def complete(self) -> bool:
        return self.totals.shards == len(self._counted)

    def to_bytes(self, plan: str) -> bytes:
        """The contents of totals.json. `plan` identifies the plan that the positions refer to."""
        counted = base64.b64encode(zlib.compress(bytes(self._counted), level=1)).decode()
        return dump_checksummed({"plan": plan, "shards": counted, "totals": self.totals.to_json()})

    @classmethod
    def from_bytes(cls, data: bytes, plan: str, specs: Sequence[ShardSpec], committed: set[str]) -> TotalsCache:
        """The cache that `to_bytes` wrote, or an empty one if that cannot be used."""
        cache = cls(specs)
        try:
            document = load_checksummed(data)
            if document["plan"] != plan:
                raise ValueError("it is of another plan")
            totals = Totals.from_json(document["totals"])
            packed = base64.b64decode(document["shards"])
            counted = bytearray(zlib.decompressobj().decompress(packed, len(specs) + 1))
            if len(counted) != len(specs) or len(counted) - counted.count(0) != totals.shards:
                raise ValueError("it counts other shards than the plan has")
        except (ValueError, LookupError, TypeError, zlib.error) as error:
            logger.warning("the totals of earlier runs cannot be used, so every manifest is read: %s", error)
            return cache
        if any(flag and spec.shard_id not in committed for flag, spec in zip(counted, specs, strict=True)):
            return cache  # somebody deleted a manifest, so that its shard is done again
        cache._counted, cache.totals = counted, totals
        return cache
