"""What of an output can be made again if it is lost: the run's record from the plan, and the plan from the input.

The plan holds a copy of the record. A plan that is made again must fit every manifest: each committed shard is in it,
and of the same input as it was. What cannot be made again is an error that says why.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa

from pipeline import storage
from pipeline.concurrency import in_order
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import READ_THREADS, ShardManifest, committed_ids, read_manifest
from pipeline.dataset.plan_file import plan_bytes, read_plan, record_in_plan
from pipeline.dataset.provenance import RunRecord
from pipeline.input_config import InputConfig
from pipeline.items import ShardSpec
from pipeline.steps.plan import PlanError, plan_shards

logger = logging.getLogger(__name__)

REMEDY = "`moss-tok repair` makes it again where that is possible; else put it back from a copy of the output"
"""What to do about a lost or damaged record or plan."""
FROM_A_COPY = "Put it back from a copy of the output; without one, tokenize into a new output"


class CannotRestore(ValueError):
    """What is lost cannot be made again; the message says what and why."""


def restore(layout: Layout, mine: RunRecord | None = None) -> list[str]:
    """Make the record and the plan of an output again where they are lost or damaged. Returns the URIs that it wrote.

    `mine` is the record of a run with the same settings, where there is one: of an output without record and plan it
    takes the record's place, if every manifest fits. Raises CannotRestore, and FileNotFoundError if no output is there.
    """
    record, plan = _read_record(layout), _read_plan(layout)
    if record is not None and plan is not None and hashlib.sha256(plan).hexdigest() == record.plan_sha256:
        return []
    if record is None:
        record = _record_again(layout, plan, mine)
        if plan is not None and hashlib.sha256(plan).hexdigest() == record.plan_sha256:
            return [_write(layout.run, record.to_json())]
    specs, plan = _plan_again(layout, record)
    same = hashlib.sha256(plan).hexdigest() == record.plan_sha256
    if not same:
        _check_fits(layout, specs, record)
    written = [_write(layout.plan, plan)]
    if not same or _read_record(layout) is None:
        written.append(_write(layout.run, replace(record, plan_sha256=hashlib.sha256(plan).hexdigest()).to_json()))
    return written


def _read_record(layout: Layout) -> RunRecord | None:
    try:
        return RunRecord.from_json(storage.read_bytes(layout.run))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        logger.warning("%s: %s", layout.run, error)
        return None


def _read_plan(layout: Layout) -> bytes | None:
    """The plan if it can be read at all."""
    try:
        plan = storage.read_bytes(layout.plan)
        read_plan(plan)
        return plan
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        logger.warning("%s: not a plan: %s", layout.plan, error)
        return None


def _record_again(layout: Layout, plan: bytes | None, mine: RunRecord | None) -> RunRecord:
    if plan is not None:
        try:
            return record_in_plan(plan)
        except ValueError as error:
            logger.warning("%s: holds no record of the run: %s", layout.plan, error)
    if not committed_ids(layout) and plan is None:
        raise FileNotFoundError(f"{layout.root}: no output of moss-tok: {layout.run} is not there")
    if mine is None:
        both = f"{layout.run} and {layout.plan}" if plan is None else layout.run
        raise CannotRestore(
            f"{both}: lost or damaged. Give the `moss-tok tokenize` command that made this output again: it makes them "
            "again if the input and the settings are still the same"
        )
    if plan is None:
        return mine
    _check_fits(layout, read_plan(plan), mine)
    return replace(mine, plan_sha256=hashlib.sha256(plan).hexdigest())


def _plan_again(layout: Layout, record: RunRecord) -> tuple[list[ShardSpec], bytes]:
    settled = {"unreadable": "skip" if record.unreadable_folders else "fail"}
    logger.warning("%s: lost or damaged: the input is listed again", layout.plan)
    try:
        specs = plan_shards(InputConfig.model_validate({**record.input, **settled}))
    except (PlanError, ValueError) as error:
        raise CannotRestore(
            f"{layout.plan}: lost, and the input cannot be listed again: {error}. {FROM_A_COPY}"
        ) from error
    return specs, plan_bytes(specs, record)


def _check_fits(layout: Layout, specs: Sequence[ShardSpec], record: RunRecord) -> None:
    """Raises CannotRestore for a committed shard that this plan and record would not have made."""
    planned = {spec.shard_id: spec for spec in specs}
    for manifest in in_order(partial(_sound_manifest, layout), committed_ids(layout, len(specs)), READ_THREADS):
        if manifest is None:
            continue
        spec = planned.get(manifest.shard_id)
        if spec is None:
            why = (
                f"the input as it is listed now has no shard {manifest.shard_id}, of {manifest.uri}, which is committed"
            )
        elif (manifest.split, manifest.uri) != (spec.split, spec.uri):
            why = f"{spec.uri} of split {spec.split}: committed as {manifest.uri} of split {manifest.split}"
        elif (manifest.version, manifest.input_size) != (spec.version, spec.size):
            why = f"{spec.place}: changed since it was committed"
        elif manifest.fingerprint != record.fingerprint:
            why = f"shard {manifest.shard_id} was made with other settings"
        else:
            continue
        raise CannotRestore(f"{layout.plan} or {layout.run}: lost, and cannot be made again: {why}. {FROM_A_COPY}")


def _sound_manifest(layout: Layout, shard_id: str) -> ShardManifest | None:
    """None for one that is damaged too: `moss-tok repair` sees to it afterwards."""
    try:
        return read_manifest(layout, shard_id)
    except (ValueError, FileNotFoundError):
        return None


def _write(uri: str, data: bytes) -> str:
    """Replace what is damaged; several that restore at once write the same."""
    storage.publish(uri, data)
    logger.warning("%s: made again", uri)
    return uri
