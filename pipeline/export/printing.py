"""An export for people: how far it is on stderr, what it holds on stdout."""

from __future__ import annotations

import sys

from pipeline.export.report import Report
from pipeline.formatting import format_bytes, lines_of

PROGRESS_LINES = 20  # of each stage, however many shards there are


def print_progress(what: str, done: int, total: int) -> None:
    """A line now and then."""
    step = max(1, total // PROGRESS_LINES)
    if total and (done % step == 0 or done == total):
        print(f"{what}: {done:,} of {total:,} shards", file=sys.stderr, flush=True)


def print_report(where: str, report: Report, with_references: bool) -> None:
    """Rows in, rows out by split, rows left out by reason."""
    figures = {"rows": f"{report.rows:,}"}
    for split, rows in sorted(report.written.items()):
        figures[split] = f"{rows:,} rows, {report.seconds[split] / 3600:,.3f} hours"
    if with_references:
        figures["with a reference"] = f"{report.references:,}"
    figures["left out"] = f"{sum(report.removed.values()):,}"
    for reason, rows in sorted(report.removed.items()):
        figures[f"  {reason}"] = f"{rows:,}"
    if report.unknown_rejects:
        figures["ids of reject lists that no row has"] = f"{report.unknown_rejects:,}"
    figures["files"] = f"{report.files:,}, {format_bytes(report.size)}"
    print(f"\n{where}")
    print(lines_of(figures))
