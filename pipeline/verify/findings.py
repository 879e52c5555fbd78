"""What was checked, and what was found."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

CHECKS = {
    "record": "run.json is as it was written",
    "plan": "the plan is the one that the record names",
    "complete": "every planned shard is committed",
    "success": "_SUCCESS exists if every shard is committed, and its checksums are right",
    "card": "README.md is as it was written, with the figures of the manifests",
    "machine": "machine.json is as it was written",
    "totals": "totals.json is as it was written, and the sum of the manifests",
    "strays": "no other object lies where readers would take it for data",
    "manifests": "each manifest is as it was written and fits the plan and the record",
    "objects": "data and rejects exist, with the size and SHA-256 of the manifest",
    "pages": "each object can be read as Parquet, page checksums verified",
    "schema": "columns, types, descriptions and provenance are those of schemas/ and of the record",
    "ids": "each id belongs to its shard, occurs once, and is in source order",
    "lengths": "frames, samples, durations and the lengths of all code columns agree",
    "codes": "every code is in its codebook",
    "values": "statistics are in their range, hashes are hexadecimal, metadata is JSON",
    "rejects": "every reject has a stage and a known reason",
    "counts": "rows, rejects, frames and seconds are those of the manifest",
    "nothing lost": "every clip of the source is a row or a reject",
    "sources": "sampled clips can still be read from the source that was planned",
    "encoded again": "sampled clips give the same row when they are encoded again",
}
"""Every check, in order, with what must hold."""

MAX_DIFFERENCES = 1000
"""Differences that are kept with details; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is wrong."""

    check: str
    message: str
    """What was found, and what was expected."""
    remedy: str
    """What the user can do about it."""
    uri: str
    """The object that is wrong."""
    shard_id: str | None = None
    clip_id: str | None = None
    column: str | None = None


@dataclass(slots=True)
class Tally:
    """How many things of one check were looked at, and how many are wrong."""

    looked: int = 0
    wrong: int = 0


@dataclass(slots=True)
class Findings:
    """Tallies of all checks, and the first differences. Findings of shards can be added in any order."""

    tallies: dict[str, Tally] = field(default_factory=lambda: {check: Tally() for check in CHECKS})
    differences: list[Difference] = field(default_factory=list)
    unchecked: Counter[str] = field(default_factory=Counter)
    """Number of clips that cannot be encoded again here, by the reason."""

    @property
    def wrong(self) -> int:
        """Number of differences, of all checks."""
        return sum(tally.wrong for tally in self.tallies.values())

    def look(self, check: str, count: int = 1) -> None:
        """Record that `count` things of this check are looked at."""
        self.tallies[check].looked += count

    def differ(self, difference: Difference, count: int = 1) -> None:
        """Record that `count` things of one check are wrong; the difference describes the first of them."""
        self.tallies[difference.check].wrong += count
        if len(self.differences) < MAX_DIFFERENCES:
            self.differences.append(difference)

    def add(self, other: Findings) -> None:
        """Add the findings of something else."""
        for check, tally in other.tallies.items():
            self.tallies[check].looked += tally.looked
            self.tallies[check].wrong += tally.wrong
        self.differences.extend(other.differences[: MAX_DIFFERENCES - len(self.differences)])
        self.unchecked.update(other.unchecked)

    def as_json(self) -> dict[str, Any]:
        """The findings for programs."""
        return {
            "ok": self.wrong == 0,
            "checks": {check: asdict(tally) for check, tally in self.tallies.items()},
            "differences": [asdict(difference) for difference in self.differences],
            "unchecked": dict(sorted(self.unchecked.items())),
        }
