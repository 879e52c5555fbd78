"""Show how far OUTPUT is: shards, clips, hours, rejects by reason. Works beside a run and after its death."""

from __future__ import annotations

import argparse
import json

from pipeline.commands.options import add_output
from pipeline.exit_status import ExitStatus

HELP = "how far an output is"


def configure(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    from pipeline import storage
    from pipeline.output import read_output
    from pipeline.totals import describe, lines_of

    output = read_output(arguments.output)
    totals = output.totals()
    complete = storage.stat(output.layout.success) is not None
    if arguments.json:
        figures = {
            "output": output.layout.root,
            "complete": complete,
            "shards_planned": len(output.specs),
            "shards_committed": totals.shards,
            "clips": totals.rows,
            "audio_seconds": totals.audio_seconds,
            "frames": totals.frames,
            "rejects": totals.rejects,
            "rejects_by_reason": dict(sorted(totals.rejects_by_reason.items())),
            "output_bytes": totals.output_bytes,
            "model": output.record.model.name,
            "fingerprint": output.record.fingerprint,
        }
        print(json.dumps(figures, indent=1))
        return ExitStatus.DONE
    print(f"{output.layout.root}: {'complete' if complete else 'not complete'}")
    shards = f"{totals.shards:,} of {len(output.specs):,}"
    print(lines_of({"model": output.record.model.name} | describe(totals) | {"shards": shards}))
    return ExitStatus.DONE
