"""An output as a run finds it: a new one is begun, and one with the same settings is continued."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from pipeline import logs, storage
from pipeline.config import Config, ModelConfig
from pipeline.dataset import manifest
from pipeline.dataset.dataset import Output, read_output
from pipeline.dataset.layout import Layout
from pipeline.dataset.output_folder import check_output_folder
from pipeline.dataset.plan_file import plan_bytes
from pipeline.dataset.provenance import RunRecord, record_run
from pipeline.dataset.recovery import restore
from pipeline.steps.plan import plan_shards
from pipeline.storage import StorageError
from pipeline.yaml_config import ConfigError

logger = logging.getLogger(__name__)


class OutputMismatch(ConfigError):
    """The output was made with other settings. The message names each difference."""


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
    # Listed before it is looked for: what another job writes that begins it meanwhile is then not taken for foreign.
    others = storage.list_names(layout.root) - {"_moss_tok"}
    there = [storage.stat(uri) is not None for uri in (layout.run, layout.plan)]
    begins = not any(there) and not manifest.committed_ids(layout)
    record = record_run(config, begins and config.model.dtype == "auto" and on_gpu(config))
    storage.supports_conditional_create(layout.internal)  # warns before any work about a store that does not
    storage.remove_stale(layout.root)
    if begins and others:
        raise OutputMismatch(
            f"{layout.root} holds other files, such as {min(others)}: choose an empty or a new folder for output.uri"
        )
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


def _begin(config: Config, layout: Layout, record: RunRecord, like: Output | None) -> Output:
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
