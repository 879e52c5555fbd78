"""Write the codes of OUTPUT in a format that a trainer reads.

  --to moss-tts   JSONL for the finetuning of MOSS-TTS, with audio_codes, and ref_audio_codes where asked for
  --to tokens     token sequences for language models: flat, delay pattern or parallel streams, packed or not
  --to megatron   the same, flat, as indexed datasets of Megatron: .bin and .idx
  --to nemo       JSONL manifests with codes, as NeMo reads them
  --to lhotse     Lhotse Shar, with codes as an array field
  --to webdataset tars with .npy and .json for each clip, for WebDataset and Energon
  --to litdata, --to mds, --to lance
                  samples as LitData, MosaicML Streaming and Lance read them

Keys of the configuration are set with --set or in a file given with --config; docs/exports.md has all of them:

  moss-tok export out/demo --to moss-tts -o out/tts --set filters.min_seconds=1 references.enabled=true
  moss-tok export s3://bucket/codes --to lhotse -o s3://bucket/shar --set dataset.num_quantizers=8 asr.buckets=10

Rows that are left out are counted by reason. The same command again continues an unfinished export. Exit status: 0 the
export is complete, 2 it cannot be made, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_output

if TYPE_CHECKING:
    from pipeline.export.summary import ExportSummary

HELP = "write formats that trainers of TTS, ASR and language models read"
FORMATS = ("moss-tts", "tokens", "megatron", "nemo", "lhotse", "webdataset", "litdata", "mds", "lance")
PROGRESS_LINES = 20  # of each stage, however many shards there are


def configure(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--to", required=True, choices=FORMATS, help="the format")
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="folder or URI of the export")
    parser.add_argument("--config", metavar="FILE", help="YAML file to start from, such as configs/export_tts.yaml")
    _add_set(parser, "-s")


def job_arguments(description: str | None, formats: Sequence[str], config: Path, argv: Sequence[str]) -> list[str]:
    """The arguments of `moss-tok` that match those of an export job.

    The job writes one of `formats`, by default the first, and begins with the configuration `config`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, metavar="URI", help="the dataset of codes")
    parser.add_argument("--out", required=True, metavar="URI", help="folder of the export")
    parser.add_argument("--to", choices=formats, default=formats[0], help="default: %(default)s")
    parser.add_argument("--config", default=str(config), help="configuration to start from (default: %(default)s)")
    _add_set(parser)
    given = parser.parse_args(argv)
    overrides = ["--set", *given.set] if given.set else []
    return ["export", given.dataset, "--to", given.to, "--out", given.out, "--config", given.config, *overrides]


def _add_set(parser: argparse.ArgumentParser, *short: str) -> None:
    parser.add_argument(
        *("--set", *short),
        nargs="+",
        action="extend",
        default=[],
        metavar="section.key=value",
        help="set keys of the configuration",
    )


def run(arguments: argparse.Namespace) -> int:
    from pipeline.export.config import load_export_config

    given = {"dataset": {"uri": arguments.output}, "export": {"to": arguments.to, "uri": arguments.out}}
    config = load_export_config(arguments.config, arguments.set, given)
    print(f"{arguments.output} -> {arguments.out}", file=sys.stderr, flush=True)

    from pipeline.export.job import run_export  # takes seconds, so the configuration is checked first

    summary = run_export(config, _print_progress)
    _print_summary(arguments.out, summary, config.references.enabled)
    return ExitStatus.DONE


def _print_progress(what: str, done: int, total: int) -> None:
    """Print a line at every twentieth of the shards."""
    step = max(1, total // PROGRESS_LINES)
    if total and (done % step == 0 or done == total):
        print(f"{what}: {done:,} of {total:,} shards", file=sys.stderr, flush=True)


def _print_summary(where: str, summary: ExportSummary, with_references: bool) -> None:
    """Print rows read, rows written by split, and rows left out by reason."""
    from pipeline.formatting import format_bytes, lines_of

    figures = {"rows": f"{summary.rows:,}"}
    for split, rows in sorted(summary.written.items()):
        figures[split] = f"{rows:,} rows, {summary.seconds[split] / 3600:,.3f} hours"
    if with_references:
        figures["with a reference"] = f"{summary.references:,}"
    figures["left out"] = f"{sum(summary.removed.values()):,}"
    for reason, rows in sorted(summary.removed.items()):
        figures[f"  {reason}"] = f"{rows:,}"
    if summary.unknown_rejects:
        figures["ids of reject lists that no row has"] = f"{summary.unknown_rejects:,}"
    figures["files"] = f"{summary.files:,}, {format_bytes(summary.size)}"
    print(f"\n{where}")
    print(lines_of(figures))
