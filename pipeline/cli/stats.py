"""Print how the values of a column are distributed: any column, key of the metadata, or expression over both.

  moss-tok stats out/demo duration
  moss-tok stats out/demo language
  moss-tok stats out/demo snr --where "language = 'en'"       snr is a key of the metadata
  moss-tok stats out/demo 'length(text) / duration' --bins 40

Expressions and conditions are SQL, computed by DuckDB: docs/output.md. All committed rows are read, of them only the
columns that are needed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_output

if TYPE_CHECKING:
    from pipeline.report.values import Distribution

HELP = "print the histogram of a column"
WIDTH = 40
"""Characters of the longest bar."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("expression", metavar="COLUMN", help="a column, a key of the metadata, or an expression")
    parser.add_argument("--where", metavar="CONDITION", help="only rows of which it holds")
    parser.add_argument("--bins", type=int, default=20, metavar="N", help="about so many bins, or words (default: 20)")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    if arguments.bins < 1:
        raise ValueError(f"--bins {arguments.bins}: at least one")

    import numpy as np

    from pipeline.dataset.dataset import read_output
    from pipeline.dataset.expression import Chosen
    from pipeline.report.values import distribution, read_values

    output = read_output(arguments.output)
    chosen = Chosen(arguments.where, output.record.value_columns).checked() if arguments.where else None
    found = read_values(output, arguments.expression, chosen)
    numbers = distribution(np.concatenate(found.numbers), arguments.bins) if found.numbers else None
    words = found.words.most_common(arguments.bins)
    if arguments.json:
        document = {"rows": found.rows, "missing": found.missing, "words": dict(words)}
        print(json.dumps(document | {"numbers": asdict(numbers) if numbers else None}, ensure_ascii=False, indent=1))
        return ExitStatus.DONE
    print(f"{arguments.expression}: {found.rows:,} rows, {found.missing:,} without a value")
    if found.rows and found.missing == found.rows:
        columns = ", ".join(output.record.value_columns)
        print(f"No row has a value. Columns are {columns}; other names are keys of the metadata.")
    if numbers:
        print("\n".join(_lines(numbers)))
    if words:
        print("\n".join(_bars([(repr(word), number) for word, number in words])))
    if (others := len(found.words) - len(words)) > 0:
        print(f"and {others:,} other values: --bins shows more")
    return ExitStatus.DONE


def _lines(numbers: Distribution) -> list[str]:
    figures = {"least": numbers.low, **{f"{float(share):.0%}": value for share, value in numbers.quantiles.items()}}
    figures |= {"most": numbers.high, "mean": numbers.mean}
    bins = zip(numbers.edges[:-1], numbers.edges[1:], numbers.counts, strict=True)
    bars = _bars([(f"{left:g} to {right:g}", number) for left, right, number in bins])
    return [", ".join(f"{name} {value:.6g}" for name, value in figures.items()), *bars]


def _bars(entries: list[tuple[str, int]]) -> list[str]:
    """A line for each: its name, its number, and a bar."""
    most = max(number for _, number in entries) or 1
    wide = max(len(name) for name, _ in entries)
    return [f"{name:>{wide}} {number:>11,} {'#' * -(-number * WIDTH // most)}".rstrip() for name, number in entries]
