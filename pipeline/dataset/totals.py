"""Sums over the manifests of a dataset, and the table that is printed at the end of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pipeline.codecs.machine import NOT_RECORDED, name_machine
from pipeline.dataset.manifest import ShardManifest
from pipeline.formatting import format_bytes


@dataclass(slots=True)
class Totals:
    """Sums over shards. They are added up one manifest at a time, so a million manifests need no memory."""

    shards: int = 0
    rows: int = 0
    frames: int = 0
    audio_seconds: float = 0.0
    input_bytes: int = 0
    output_bytes: int = 0
    rejects: int = 0
    rejects_by_reason: Counter[str] = field(default_factory=Counter)
    rows_by_split: Counter[str] = field(default_factory=Counter)
    """Clips by split. A split is present as soon as one of its shards is."""
    rejects_by_split: Counter[str] = field(default_factory=Counter)
    seconds_by_split: dict[str, float] = field(default_factory=dict)
    """Seconds of audio by split."""
    seconds: dict[str, float] = field(default_factory=dict)
    shards_by_machine: Counter[str] = field(default_factory=Counter)
    """Number of shards by the kind of machine that made them, in words."""

    @classmethod
    def of(cls, manifest: ShardManifest) -> Totals:
        """The totals of one shard."""
        return cls(
            shards=1,
            rows=manifest.rows,
            frames=manifest.frames,
            audio_seconds=manifest.audio_seconds,
            input_bytes=manifest.input_bytes,
            output_bytes=manifest.output_bytes,
            rejects=manifest.rejects,
            rejects_by_reason=Counter(manifest.rejects_by_reason),
            rows_by_split=Counter({manifest.split: manifest.rows}),
            rejects_by_split=Counter({manifest.split: manifest.rejects}),
            seconds_by_split={manifest.split: manifest.audio_seconds},
            seconds=dict(manifest.seconds),
            shards_by_machine=Counter({name_machine(manifest.machine): 1}),
        )

    def to_json(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Totals:
        """The inverse of `to_json`. Raises TypeError for anything else."""
        counters = ("rejects_by_reason", "rows_by_split", "rejects_by_split", "shards_by_machine")
        earlier = {"shards_by_machine": {NOT_RECORDED: document["shards"]} if document["shards"] else {}}
        document = {**earlier, **document}
        return cls(**{**document, **{name: Counter(document[name]) for name in counters}})

    def add(self, other: Totals) -> None:
        self.shards += other.shards
        self.rows += other.rows
        self.frames += other.frames
        self.audio_seconds += other.audio_seconds
        self.input_bytes += other.input_bytes
        self.output_bytes += other.output_bytes
        self.rejects += other.rejects
        self.rejects_by_reason.update(other.rejects_by_reason)
        self.rows_by_split.update(other.rows_by_split)
        self.rejects_by_split.update(other.rejects_by_split)
        self.shards_by_machine.update(other.shards_by_machine)
        _add_up(self.seconds_by_split, other.seconds_by_split)
        _add_up(self.seconds, other.seconds)

    @property
    def hours(self) -> float:
        return self.audio_seconds / 3600


def _add_up(sums: dict[str, float], more: Mapping[str, float]) -> None:
    for name, seconds in more.items():
        sums[name] = sums.get(name, 0.0) + seconds


def describe_machines(totals: Totals) -> str:
    """On what kinds of machine the shards were made, with numbers where there are several."""
    kinds = sorted(totals.shards_by_machine.items(), key=lambda kind: (-kind[1], kind[0]))
    if len(kinds) == 1:
        return kinds[0][0]
    return "; ".join(f"{count:,} shard{'s' * (count != 1)} on {name}" for name, count in kinds)


def describe(totals: Totals) -> dict[str, str]:
    """The figures of a dataset as text, by name."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(totals.rejects_by_reason.items()))
    return {
        "shards": f"{totals.shards:,}",
        "clips": f"{totals.rows:,}",
        "hours": f"{totals.hours:,.3f}",
        "frames": f"{totals.frames:,}",
        "rejects": f"{totals.rejects:,}" + (f" ({reasons})" if reasons else ""),
        "read": format_bytes(totals.input_bytes),
        "written": format_bytes(totals.output_bytes),
    }
