"""An output: its plan, which of its shards are committed, and what is written of it as a whole."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from pipeline import storage
from pipeline.config import CardConfig
from pipeline.dataset import manifest
from pipeline.dataset.card import dataset_card
from pipeline.dataset.layout import Layout
from pipeline.dataset.plan_file import read_plan
from pipeline.dataset.provenance import RunRecord
from pipeline.dataset.recovery import REMEDY
from pipeline.dataset.retries import find_retries
from pipeline.dataset.statistics import sample_statistics
from pipeline.dataset.totals import Totals
from pipeline.dataset.totals_cache import TotalsCache
from pipeline.items import ShardSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Output:
    """An output: its plan, and which of its shards are committed."""

    layout: Layout
    record: RunRecord
    specs: list[ShardSpec]
    done: set[str]
    """Ids of the shards that were committed when it was opened."""
    card: CardConfig = field(default_factory=CardConfig)
    """What the dataset card of this run shall say."""

    retries: Mapping[str, manifest.ShardManifest] = field(default_factory=dict)
    """Shards that were committed and are done again because of their rejects, by id; they are not in `done`."""

    @cached_property
    def todo(self) -> list[ShardSpec]:
        """The shards that were not committed when it was opened."""
        return [spec for spec in self.specs if spec.shard_id not in self.done]

    @cached_property
    def committed(self) -> list[ShardSpec]:
        """The shards that were committed when it was opened, in the order of the plan."""
        return [spec for spec in self.specs if spec.shard_id in self.done]

    @property
    def progress(self) -> str:
        """A sentence for people: how many shards there are, and how many of them are committed."""
        shards = f"{len(self.specs):,} shard{'s' * (len(self.specs) != 1)}"
        if self.retries:
            shards += f" ({len(self.retries):,} done again: files that were missing are there)"
        if not self.done:
            return f"{shards} to do"
        return f"{shards}, {f'{len(self.done):,}' if self.todo else 'all'} of them committed already"

    def with_retries(self, reasons: Collection[str]) -> Output:
        """This output, where shards are done again if files that were rejected for a reason are there now."""
        if not reasons or not self.done:
            return self
        cache = self.totals_cache()
        try:
            self._count(cache, self.done)
        except (ValueError, FileNotFoundError) as error:
            logger.warning("no rejects are tried again: %s", error)  # the end of the run reports it as an error
            return self
        ids = cache.may_change & self.done
        retries = find_retries(self.layout, [spec for spec in self.specs if spec.shard_id in ids], reasons)
        return replace(self, done=self.done - retries.keys(), retries=retries)

    def without_retries(self) -> Output:
        """This output, with every committed shard left as it is."""
        return replace(self, done=self.done | self.retries.keys(), retries={})

    def totals_cache(self) -> TotalsCache:
        """The totals of the shards that earlier runs have counted."""
        try:
            data = storage.read_bytes(self.layout.totals)
        except FileNotFoundError:
            return TotalsCache(self.specs)
        return TotalsCache.from_bytes(data, self.record.plan_sha256, self.specs, self.done)

    def save(self, cache: TotalsCache) -> None:
        """Store the totals for the next run and for `moss-tok status`."""
        storage.publish(self.layout.totals, cache.to_bytes(self.record.plan_sha256))

    def totals(self) -> Totals:
        """The totals of the shards that were committed when it was opened."""
        cache = self.totals_cache()
        self._count(cache, self.done)
        return cache.totals

    def finish(self, cache: TotalsCache | None = None) -> Totals:
        """Write the totals, the card and, if every planned shard is committed, `_SUCCESS`.

        `cache` is what `totals_cache()` gave, with the shards of this run added. Raises FileNotFoundError, and writes
        no `_SUCCESS`, if the data of a committed shard is gone.
        """
        cache = cache or self.totals_cache()
        self._count(cache, self.done if cache.totals.shards else manifest.committed_ids(self.layout, len(self.specs)))
        if not cache.complete:  # another job may have committed the others
            self._count(cache, manifest.committed_ids(self.layout, len(self.specs)))
        self.save(cache)
        storage.publish(self.layout.card, self._card(cache).encode())
        if cache.complete:
            self._check_data()
            storage.publish(self.layout.success, self.layout.checksums().encode())
        storage.remove_stale(self.layout.root)
        return cache.totals

    def _card(self, cache: TotalsCache) -> str:
        missing = cache.uncounted(spec.shard_id for spec in self.specs)
        present = [self.layout.data(spec) for spec in self.specs if spec.shard_id not in missing]
        seen = sample_statistics(present, self.record.num_quantizers, self.record.model.codebook_size)
        return dataset_card(self.record, cache.totals, len(self.specs), self.card, seen)

    def _check_data(self) -> None:
        there = manifest.ids_with_data(self.layout, {spec.split for spec in self.specs}, len(self.specs))
        for spec in self.specs:
            if spec.shard_id not in there:
                raise self.layout.gone(self.layout.data(spec))

    def _count(self, cache: TotalsCache, shard_ids: set[str]) -> None:
        for shard in manifest.read_manifests(self.layout, cache.uncounted(shard_ids)):
            cache.add(shard)


def read_output(uri: str) -> Output:
    """The output at `uri` as it is.

    Raises FileNotFoundError if it, or its plan, is not there, ValueError if its record or its plan is damaged.
    """
    layout = Layout(storage.absolute(uri))
    try:
        written = storage.read_bytes(layout.run)
    except FileNotFoundError:
        if storage.stat(layout.plan) is None and not manifest.committed_ids(layout):
            raise FileNotFoundError(f"{uri}: no output of moss-tok: {layout.run} is not there") from None
        raise FileNotFoundError(f"{layout.run}: the record of this output is lost: {REMEDY}") from None
    try:
        record = RunRecord.from_json(written)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{layout.run}: {error}: {REMEDY}") from error
    try:
        plan = storage.read_bytes(layout.plan)
    except FileNotFoundError:
        raise FileNotFoundError(f"{layout.plan}: the plan of this output is gone: {REMEDY}") from None
    if hashlib.sha256(plan).hexdigest() != record.plan_sha256:
        raise ValueError(
            f"{layout.plan}: not the plan that {layout.run} was written for, but damaged or changed: {REMEDY}"
        )
    specs = read_plan(plan)
    planned = {spec.shard_id for spec in specs}
    return Output(layout, record, specs, manifest.committed_ids(layout, len(specs)) & planned)
