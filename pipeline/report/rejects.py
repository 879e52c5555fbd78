"""Examples of the clips that got no codes."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import storage
from pipeline.output import Output
from pipeline.table import open_table

EXAMPLES = 3
BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a rejects file."""

    clip_id: str
    source: str
    key: str
    stage: str
    message: str


def find_examples(output: Output, shards_by_reason: dict[str, list[str]]) -> dict[str, list[Example]]:
    """A few rejects of each reason, from the shards that have some: the first in the order of ids."""
    specs = {spec.shard_id: spec for spec in output.specs}
    wanted = sorted({shard_id for shards in shards_by_reason.values() for shard_id in shards})
    examples: dict[str, list[Example]] = {reason: [] for reason in shards_by_reason}
    for shard_id in wanted:
        open_reasons = {
            reason
            for reason, shards in shards_by_reason.items()
            if shard_id in shards and len(examples[reason]) < EXAMPLES
        }
        if open_reasons:
            _collect(output.layout.rejects(specs[shard_id]), open_reasons, examples)
    return examples


def _collect(uri: str, reasons: set[str], examples: dict[str, list[Example]]) -> None:
    columns = ["id", "source", "key", "stage", "reason", "message"]
    with storage.open_read(uri) as stream:
        for batch in open_table(stream).iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
            for row in batch.to_pylist():
                if row["reason"] in reasons and len(examples[row["reason"]]) < EXAMPLES:
                    examples[row["reason"]].append(
                        Example(row["id"], row["source"], row["key"], row["stage"], row["message"])
                    )
            if all(len(examples[reason]) == EXAMPLES for reason in reasons):
                return
