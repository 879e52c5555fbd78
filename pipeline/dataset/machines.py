"""Which kind of machine an output is made on, and whether this one may go on with it.

The first process that is ready to encode says what it is, in `_moss_tok/machine.json`, created once. With
`run.machines: same` others must be of that kind; with `any` the output mixes kinds, and each manifest says which.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import islice
from typing import Literal

from pipeline import storage
from pipeline.codecs.machine import Machine, machine_differences, name_machine
from pipeline.dataset.checksummed_json import dump_checksummed, load_checksummed
from pipeline.dataset.dataset import Output, OutputMismatch
from pipeline.dataset.manifest import read_manifest

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
        uri = self._output.layout.machine
        earlier = _stored(uri) or self._of_a_manifest()
        if earlier is None and self._output.done:
            logger.warning("%s: on what machine its shards were made is not recorded", self._output.layout.root)
        kind = machine if earlier is None else earlier
        if storage.create(uri, dump_checksummed({"machine": dict(kind)})):
            return kind
        return _stored(uri) or kind

    def _of_a_manifest(self) -> Machine | None:
        for shard_id in islice(sorted(self._output.done), SEARCHED):
            try:
                manifest = read_manifest(self._output.layout, shard_id)
            except (FileNotFoundError, ValueError):
                continue  # a matter for verify and repair
            if manifest.machine:
                return manifest.machine
        return None


def _stored(uri: str) -> Machine | None:
    try:
        data = storage.read_bytes(uri)
    except FileNotFoundError:
        return None
    try:
        machine = load_checksummed(data)["machine"]
        if not isinstance(machine, Mapping):
            raise ValueError("it names no machine")
        return {str(name): str(value) for name, value in machine.items()}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{uri}: damaged ({error}): delete it, and it is made again from a manifest") from error
