"""Text that several commands print."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.dataset.card import UNTRAINED, load_lines
from pipeline.dataset.dataset import Output
from pipeline.dataset.provenance import RunRecord
from pipeline.dataset.totals import Totals, describe
from pipeline.formatting import lines_of

if TYPE_CHECKING:
    from pipeline.distributed.scheduler import Failure

SHOWN_PER_KIND = 5
KINDS_SHOWN = 10


def print_dataset(output: Output, totals: Totals, timing: Mapping[str, str]) -> None:
    """Print the figures of a dataset, and how to load it."""
    print(f"\n{output.layout.root}")
    print(lines_of(describe(totals) | left_out(output.record.unreadable_folders) | dict(timing)))
    warn_untrained(output.record)
    print("\nTo load it:\n")
    for line in load_lines(output.layout.root, next(iter(output.record.input["splits"]))):
        print(f"  {line}")


def left_out(unreadable_folders: int) -> dict[str, str]:
    """A line for folders that could not be listed, where there were any."""
    if not unreadable_folders:
        return {}
    folders = f"{unreadable_folders:,} folder{'s' * (unreadable_folders != 1)}"
    return {"left out": f"{folders} that could not be listed when the input was planned (input.unreadable: skip)"}


def warn_untrained(record: RunRecord) -> None:
    """Print a warning if the codes are of an untrained model."""
    if not record.model.trained:
        print(f"\n  {UNTRAINED.replace('**', '')}")


def describe_failures(failures: Sequence[Failure]) -> str:
    """Failed shards grouped by reason, the most frequent reason first, with a few shards of each.

    Reasons that differ only in names and numbers are one group, so that the text stays short for any number of shards.
    """
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
        parts.append(f"\nand {rest:,} for {len(by_count) - KINDS_SHOWN} other reasons; the log has each of them")
    return "\n".join(parts)


def _kind(reason: str) -> str:
    """A reason without the names and numbers in it."""
    return re.sub(r"\S*[/\d]\S*", "...", reason)
