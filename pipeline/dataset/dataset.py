"""An output as a run finds it: a new one is begun, and one with the same settings is continued."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from pipeline import logs, storage
from pipeline.config import CardConfig, Config, ModelConfig
from pipeline.dataset import manifest
from pipeline.dataset.card import dataset_card
from pipeline.dataset.layout import Layout
from pipeline.dataset.output_folder import check_output_folder
from pipeline.dataset.plan_file import plan_bytes, read_plan
from pipeline.dataset.provenance import RunRecord, record_run
from pipeline.dataset.recovery import REMEDY, restore
from pipeline.dataset.retries import find_retries
from pipeline.dataset.statistics import sample_statistics
from pipeline.dataset.totals import Totals
from pipeline.dataset.totals_cache import TotalsCache
from pipeline.items import ShardSpec
from pipeline.steps.plan import plan_shards
from pipeline.storage import StorageError
from pipeline.yaml_config import ConfigError

logger = logging.getLogger(__name__)


class OutputMismatch(ConfigError):
    """The output was made with other settings. The message names each difference."""


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


def with_absolute_uris(config: Config) -> Config:
    """The configuration with absolute URIs, for processes that have another working folder.

    Those of the inputs become absolute in the plan.
    """
    places = config.input.allow
    if places is not None:
        places = tuple(place if storage.kind_of(place) else storage.absolute(place) for place in places)
    return config.model_copy(
        update={
            "input": config.input.model_copy(update={"allow": places}),
            "output": config.output.model_copy(update={"uri": storage.absolute(config.output.uri)}),
            "model": _with_absolute_name(config.model),
            "models": tuple(map(_with_absolute_name, config.models)),
        }
    )


_Model = TypeVar("_Model", bound=ModelConfig)


def _with_absolute_name(model: _Model) -> _Model:
    # A hub repo "owner/name" looks like a relative path: it is one only if there is such a folder.
    if storage.is_local(model.name) and storage.list_names(model.name):
        return model.model_copy(update={"name": storage.absolute(model.name)})
    return model


def gpu_here(config: Config) -> bool:
    """Whether this machine alone would encode on a GPU."""
    if config.model.device != "auto":
        return config.model.device == "cuda"
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":  # which hides them all
        return False
    import torch  # only where nothing else tells: it takes two seconds and half a gigabyte

    return torch.cuda.is_available()


def open_outputs(config: Config, on_gpu: Callable[[Config], bool] = gpu_here) -> list[Output]:
    """`open_output` for each codec. All outputs have the same plan: an input is listed once, for those that begin.

    Raises OutputMismatch as well where outputs that are there have different plans.
    """
    configs = config.of_each_model()
    if len(configs) == 1:
        return [open_output(configs[0], on_gpu)]
    root = storage.absolute(config.output.uri)
    if "_moss_tok" in storage.list_names(root):
        raise OutputMismatch(f"{root} is the dataset of one codec: choose another output.uri for several")
    there = [storage.stat(Layout(storage.absolute(each.output.uri)).plan) is not None for each in configs]
    on_gpu = _asked_once(on_gpu)
    outputs: dict[int, Output] = {}
    for position in sorted(range(len(configs)), key=lambda position: not there[position]):
        first = next(iter(outputs.values()), None)
        outputs[position] = output = open_output(configs[position], on_gpu, first)
        if first is not None and output.specs != first.specs:
            raise OutputMismatch(
                f"{output.layout.root} and {first.layout.root} have different shards, as their input was listed at "
                "different times: go on with each codec alone, or choose a new folder for one of them"
            )
    return [outputs[position] for position in range(len(configs))]


def _asked_once(on_gpu: Callable[[Config], bool]) -> Callable[[Config], bool]:
    """All codecs have the same actors, so what is true for one is true for all."""
    answers: list[bool] = []

    def once(config: Config) -> bool:
        if not answers:
            answers.append(on_gpu(config))
        return answers[0]

    return once


def open_output(config: Config, on_gpu: Callable[[Config], bool] = gpu_here, like: Output | None = None) -> Output:
    """Begin the output that the configuration names, or open the one that is there.

    `on_gpu` says, for an output that begins, whether it will be encoded on GPUs. One that begins takes the plan of
    `like`, an output of the same input, where that is given.

    Raises OutputMismatch if it was made with other settings, ConfigError if the folder can be no output, PlanError if
    the input cannot be planned.
    """
    check_output_folder(config)
    layout = Layout(storage.absolute(config.output.uri))
    there = [storage.stat(uri) is not None for uri in (layout.run, layout.plan)]
    begins = not any(there) and not manifest.committed_ids(layout)
    record = record_run(config, begins and config.model.dtype == "auto" and on_gpu(config))
    storage.supports_conditional_create(layout.internal)  # warns before any work about a store that does not
    storage.remove_stale(layout.root)
    if begins:
        return _begin(config, layout, record, like)
    if not all(there):
        restore(layout, record)
    existing = read_output(layout.root)
    if config.model.dtype == "auto":
        record = replace(record, dtype=existing.record.dtype)
    if differences := record.differences(existing.record):
        raise OutputMismatch(
            f"{layout.root} was made with other settings:\n  "
            + "\n  ".join(differences)
            + "\nUse another output.uri for these settings, or the old settings to go on with this one."
        )
    return replace(existing, card=config.card).with_retries(config.run.retry_rejects)


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


def _begin(config: Config, layout: Layout, record: RunRecord, like: Output | None) -> Output:
    if others := storage.list_names(layout.root) - {"_moss_tok"}:
        if storage.stat(layout.run) is not None:  # another job began it after this one had looked
            return open_output(config, like=like)
        raise OutputMismatch(
            f"{layout.root} holds other files, such as {min(others)}: choose an empty or a new folder for output.uri"
        )
    if like is None:
        logger.info("listing the input", extra=logs.plain())
        unreadable: list[StorageError] = []
        specs, unreadable_folders = plan_shards(config.input, unreadable.append), len(unreadable)
    else:
        specs, unreadable_folders = like.specs, like.record.unreadable_folders
    record = replace(record, unreadable_folders=unreadable_folders)
    plan = plan_bytes(specs, record)
    if not storage.create(layout.plan, plan) and storage.read_bytes(layout.plan) != plan:
        raise OutputMismatch(
            f"{layout.plan} is the plan of other input or settings, left by a job that died or is starting at this "
            "moment: if none is, delete it"
        )
    record = replace(record, plan_sha256=hashlib.sha256(plan).hexdigest())
    if not storage.create(layout.run, record.to_json()):  # written last: where it is, the plan is complete
        return open_output(config, like=like)  # another job began it at the same time: continue it if it is the same
    as_read = RunRecord.from_json(record.to_json())  # with sorted keys, so that the card is the same after a resume
    return Output(layout, as_read, specs, set(), config.card)
