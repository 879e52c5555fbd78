"""Which kind of machine an output is made on, and whether this one may go on with it.

The first process that is ready to encode says what it is, in `_moss_tok/machine.json`, created once. With
`run.machines: same` others must be of that kind; with `any` the output mixes kinds, and each manifest says which.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Mapping
from typing import Literal

from pipeline import storage
from pipeline.codecs.machine import Machine, machine_differences, name_machine
from pipeline.dataset.checksummed_json import dump_checksummed, load_checksummed
from pipeline.dataset.dataset import Output
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import read_manifest
from pipeline.dataset.opening import OutputMismatch

logger = logging.getLogger(__name__)

Policy = Literal["same", "any"]
SEARCHED = 8
"""Manifests that are looked at where no machine.json says what an output was made on."""
REMEDY = (
    "Go on with it on that kind of machine, or set run.machines=any to mix kinds: some codes then depend on which "
    "machine made them, and each manifest says so"
)


class OutputMachine:
    """The kind of machine of one output, read or claimed when it is first asked for."""

    def __init__(self, output: Output, policy: Policy) -> None:
        self._output, self._policy = output, policy
        self._kind: Machine | None = None

    def objection(self, machine: Machine) -> str | None:
        """Why a process on such a machine may not encode for this output; None if it may.

        Raises StorageError, and ValueError for a damaged record.
        """
        if self._kind is None:
            self._kind = self._read_or_claim(machine)
        if self._policy == "any" or not self._kind:
            return None
        differences = machine_differences(self._kind, machine)
        if not differences:
            return None
        return f"this output is made on {name_machine(self._kind)}, and this is {name_machine(machine)}"

    def check(self, machine: Machine) -> None:
        """Raises OutputMismatch, with the remedy, if there is an objection."""
        if (objection := self.objection(machine)) is not None:
            raise OutputMismatch(f"{self._output.layout.root}: {objection}. {REMEDY}")

    def _read_or_claim(self, machine: Machine) -> Machine:
        layout, done = self._output.layout, self._output.done
        earlier = read_machine(layout) or _of_a_manifest(layout, done)
        if earlier is None and done:
            logger.warning("%s: on what machine its shards were made is not recorded", layout.root)
        kind = machine if earlier is None else earlier
        if storage.create(layout.machine, _to_json(kind)):
            return kind
        return read_machine(layout) or kind


def restore_machine(output: Output) -> None:
    """Make `machine.json` again where it is lost or damaged and a manifest says what it held."""
    layout = output.layout
    try:
        there = read_machine(layout) is not None
    except ValueError as error:
        logger.warning("%s", error)
        there = False
    if not there and (machine := _of_a_manifest(layout, output.done)) is not None:
        storage.publish(layout.machine, _to_json(machine))


def read_machine(layout: Layout) -> Machine | None:
    """The kind of machine that an output is made on; None if it says nothing. Raises ValueError if that is damaged."""
    try:
        data = storage.read_bytes(layout.machine)
    except FileNotFoundError:
        return None
    try:
        machine = load_checksummed(data)["machine"]
        if not isinstance(machine, Mapping):
            raise ValueError("it names no machine")
        return {str(name): str(value) for name, value in machine.items()}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{layout.machine}: damaged ({error}): the `moss-tok tokenize` command that made this output makes it again"
        ) from error


def _to_json(machine: Machine) -> bytes:
    return dump_checksummed({"machine": dict(machine)})


def _of_a_manifest(layout: Layout, shard_ids: set[str]) -> Machine | None:
    for shard_id in heapq.nsmallest(SEARCHED, shard_ids):
        try:
            manifest = read_manifest(layout, shard_id)
        except (FileNotFoundError, ValueError):
            continue  # a matter for verify and repair
        if manifest.machine:
            return manifest.machine
    return None
