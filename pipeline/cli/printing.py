"""What several commands print."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.dataset.card import UNTRAINED, load_lines
from pipeline.dataset.dataset import Output
from pipeline.dataset.provenance import RunRecord
from pipeline.dataset.totals import Totals, describe
from pipeline.formatting import lines_of


def print_dataset(output: Output, totals: Totals, timing: Mapping[str, str]) -> None:
    """The figures of a dataset, and how to load it."""
    print(f"\n{output.layout.root}")
    print(lines_of(describe(totals) | dict(timing)))
    warn_untrained(output.record)
    print("\nTo load it:\n")
    for line in load_lines(output.layout.root, next(iter(output.record.input["splits"]))):
        print(f"  {line}")


def warn_untrained(record: RunRecord) -> None:
    if not record.model.trained:
        print(f"\n  {UNTRAINED.replace('**', '')}")
