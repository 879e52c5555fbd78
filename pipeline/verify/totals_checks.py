"""Checks totals.json and the figures in the card against the sum of the manifests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

from pipeline import storage
from pipeline.dataset.checksummed_json import load_checksummed
from pipeline.dataset.dataset import Output
from pipeline.dataset.totals import Totals, describe
from pipeline.verify.findings import Difference, Findings

REMEDY = "run `moss-tok tokenize` with the same configuration again: it adds up the manifests and writes it again"
BUSY = "seconds"  # time spent by a run: it may differ from the sum of the manifests


def check_totals(output: Output, totals: Totals, findings: Findings) -> None:
    """Check the figures of a complete output. `totals` is the sum of its manifests, all of them sound."""
    findings.look("totals")
    try:
        found = Totals.from_json(load_checksummed(storage.read_bytes(output.layout.totals))["totals"])
    except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
        message = "not there" if isinstance(error, FileNotFoundError) else str(error)
        findings.differ(Difference(check="totals", uri=output.layout.totals, message=message, remedy=REMEDY))
    else:
        said, summed = asdict(found), asdict(totals)
        if wrong := [name for name, value in summed.items() if name != BUSY and not _equal(said[name], value)]:
            message = ", ".join(f"{name} is {said[name]}, and the manifests have {summed[name]}" for name in wrong)
            findings.differ(Difference(check="totals", uri=output.layout.totals, message=message, remedy=REMEDY))
    try:
        card = storage.read_bytes(output.layout.card).decode("utf-8", "replace")
    except FileNotFoundError:
        return  # already found by the metadata checks
    if missing := [name for name, value in describe(totals).items() if f"| {name} | {value} |" not in card]:
        message = f"does not give the figures of the manifests: {', '.join(missing)}"
        findings.differ(Difference(check="card", uri=output.layout.card, message=message, remedy=REMEDY))


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(_equal(one.get(key, 0), other.get(key, 0)) for key in one.keys() | other.keys())
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)  # a sum of floats depends on their order
    return one == other
