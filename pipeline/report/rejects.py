"""Examples of rejects, for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.dataset.dataset import Output
from pipeline.dataset.layout import Layout
from pipeline.items import ShardSpec
from pipeline.report.tables import open_file

EXAMPLES = 3
BATCH_ROWS = 1024
COLUMNS = ["id", "source", "key", "stage", "reason", "message"]


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a rejects file."""

    clip_id: str
    source: str
    key: str
    stage: str
    message: str


def find_examples(output: Output, shards_by_reason: dict[str, list[str]]) -> dict[str, list[Example]]:
    """A few rejects of each reason, with different messages: the first ones by id."""
    specs = {spec.shard_id: spec for spec in output.specs}
    wanted = sorted({shard_id for shards in shards_by_reason.values() for shard_id in shards})
    examples: dict[str, list[Example]] = {reason: [] for reason in shards_by_reason}
    for shard_id in wanted:
        short = {
            reason: examples[reason]
            for reason, shards in shards_by_reason.items()
            if shard_id in shards and len(examples[reason]) < EXAMPLES
        }
        if short:
            _collect(output.layout, specs[shard_id], short)
    return examples


def first_rejects(layout: Layout, spec: ShardSpec, number: int) -> list[Example]:
    """At most so many rejects of a shard, in the order of its source; of a shard that has some."""
    with open_file(layout, layout.rejects(spec)) as file:
        batch = next(file.iter_batches(number, columns=COLUMNS, use_threads=False))
        return [_example(row) for row in batch.to_pylist()]


def _example(row: dict[str, Any]) -> Example:
    return Example(row["id"], row["source"], row["key"], row["stage"], row["message"])


def _collect(layout: Layout, spec: ShardSpec, examples: dict[str, list[Example]]) -> None:
    """Add examples of each reason from one shard, until there are enough."""
    with open_file(layout, layout.rejects(spec)) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=COLUMNS, use_threads=False):
            for row in batch.to_pylist():
                known = examples.get(row["reason"], [])
                if row["reason"] in examples and row["message"] not in [example.message for example in known]:
                    known.append(_example(row))
                    del known[EXAMPLES:]
            if all(len(known) == EXAMPLES for known in examples.values()):
                return
