"""The table of the shards that a run gave up, readable however many there are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.distributed.scheduler import Failure
from pipeline.formatting import lines_of

SHOWN_PER_KIND = 5
KINDS_SHOWN = 10


def describe_failures(failures: Sequence[Failure]) -> str:
    """Each kind of reason with a few of its shards, the most frequent first."""
    kinds: dict[str, list[Failure]] = {}
    for failure in failures:
        kinds.setdefault(_kind(failure.reason), []).append(failure)
    by_count = sorted(kinds.values(), key=len, reverse=True)
    parts = [f"{len(failures):,} shards failed:"]
    for group in by_count[:KINDS_SHOWN]:
        shown = group[:SHOWN_PER_KIND]
        parts.append(f"\n{len(group):,} x {group[0].reason}")
        parts.append(lines_of({failure.spec.shard_id: failure.spec.place for failure in shown}))
        if len(group) > len(shown):
            parts.append(f"  and {len(group) - len(shown):,} more")
    if len(by_count) > KINDS_SHOWN:
        rest = sum(map(len, by_count[KINDS_SHOWN:]))
        parts.append(f"\nand {rest:,} for {len(by_count) - KINDS_SHOWN} other reasons, named above as they failed")
    return "\n".join(parts)


def _kind(reason: str) -> str:
    """What reasons that differ only in names and numbers have in common."""
    return re.sub(r"\S*[/\d]\S*", "...", reason)
