"""Decode rows of OUTPUT into sound files of exactly the clips' lengths.

  moss-tok decode out/demo --id ID -o a.wav                  one row to one file
  moss-tok decode out/demo --id ID --id ID -o sounds         several, to a folder: their ids and .wav
  moss-tok decode out/demo --shard SHARD -o sounds           a whole shard: the name of its file in data/
  moss-tok decode out/demo --split test --rows 100:200 -o s3://bucket/sounds --format flac

  moss-tok decode out/mine --rows 0: -o sounds --workers ray                          on all CPUs, or GPUs, of a cluster

Fewer RVQ layers (--num-quantizers) give a coarser sound and read fewer bytes. Existing files of the same row, model and
layers are kept: the same command after an interruption continues.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_output
from pipeline.steps.formats import AUDIO_ENDINGS

HELP = "decode rows to sound"


def configure(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--id", action="append", default=[], help="a row's id, from column id; may be repeated")
    parser.add_argument("--shard", action="append", default=[], help="all rows of a shard; may be repeated")
    parser.add_argument("--split", help="all rows of a split")
    parser.add_argument("--rows", metavar="START:STOP", help="of the selected rows, those from START to before STOP")
    parser.add_argument("--limit", type=int, metavar="N", help="no more than N rows")
    parser.add_argument("--num-quantizers", type=int, metavar="K", help="use the first K RVQ layers (default: all)")
    parser.add_argument(
        "-o", "--out", required=True, metavar="OUT", help="a .wav or .flac file for one id, or a folder"
    )
    parser.add_argument(
        "--format", choices=("wav", "flac"), default="wav", help="of files in a folder (default: %(default)s)"
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="precision; auto is bfloat16 on a GPU. Default: %(default)s",
    )
    parser.add_argument("--workers", choices=("ray",), help="decode on a Ray cluster, or on all CPUs of this machine")
    parser.add_argument("--model", help="folder, hub repo or embedded model, if it is not where the dataset says")


def run(arguments: argparse.Namespace) -> int:
    from pipeline import storage
    from pipeline.cli.printing import warn_untrained
    from pipeline.cli.progress_bar import Bar
    from pipeline.dataset.dataset import read_output
    from pipeline.loading.decode import Decoded, SoundFiles, decode_rows, decoding_precision, load_decoder
    from pipeline.loading.decode_tasks import decode_task, decode_tasks
    from pipeline.loading.rows import RowQuery, select_rows

    start, stop = _range(arguments)
    single = _is_file(arguments)
    output = read_output(arguments.output)
    query = RowQuery(
        ids=tuple(arguments.id), shards=tuple(arguments.shard), split=arguments.split, start=start, stop=stop
    )
    total, rows = select_rows(output, query, arguments.num_quantizers)
    if not total and start != stop and arguments.rows:
        available, _ = select_rows(output, replace(query, start=0, stop=None))
        raise ValueError(f"--rows {arguments.rows}: the selection has only {available:,} committed rows")
    kind = arguments.out.rpartition(".")[2].lower() if single else arguments.format
    out, decoded = storage.absolute(arguments.out), Decoded()
    with Bar() as bar:
        if arguments.workers:
            from pipeline.config import ClusterConfig
            from pipeline.distributed.map_tasks import map_on_ray

            tasks = decode_tasks(output, query, arguments.num_quantizers, out, kind, arguments.model, arguments.dtype)
            for done in map_on_ray(decode_task, tasks, ClusterConfig(), gpu=None):
                decoded = decoded + done
                bar.show("rows", decoded.written + decoded.existing, total)
        else:
            files = SoundFiles(out, kind, single, output.record, decoding_precision(output.record, arguments.dtype))
            decoded = decode_rows(
                rows,
                files,
                load=lambda: load_decoder(output.record, arguments.model, files.dtype),
                advance=lambda done: bar.show("rows", done, total),
            )
    warn_untrained(output.record)
    there = f", {decoded.existing:,} more existed already" if decoded.existing else ""
    layers = arguments.num_quantizers or output.record.num_quantizers
    count = "1 file" if decoded.written == 1 else f"{decoded.written:,} files"
    print(f"{arguments.out}: {count}, {decoded.seconds:,.2f} s of sound from {layers} RVQ layers{there}")
    return ExitStatus.DONE


def _range(arguments: argparse.Namespace) -> tuple[int, int | None]:
    """The range of rows that --rows and --limit ask for. Raises ValueError for options that contradict each other."""
    if arguments.id and arguments.workers:
        raise ValueError("--workers takes ranges of rows: give --shard, --split, --rows or --limit instead of --id")
    if arguments.id and (arguments.shard or arguments.split or arguments.rows or arguments.limit is not None):
        raise ValueError("--id selects single rows: give it without --shard, --split, --rows and --limit")
    if not (arguments.id or arguments.shard or arguments.split or arguments.rows or arguments.limit is not None):
        raise ValueError("say which rows: --id, --shard, --split, --rows or --limit; --rows 0: selects all rows")
    first, colon, last = (arguments.rows or "0:").partition(":")
    if not colon or not all(part.strip().isdecimal() or not part for part in (first, last)):
        raise ValueError(f"--rows {arguments.rows}: give START:STOP, such as 100:200, 100: or :200")
    start, stop = int(first or 0), int(last) if last else None
    if stop is not None and start >= stop:
        raise ValueError(
            f"--rows {arguments.rows}: an empty range: STOP must be above START, and is one past the last row"
        )
    if arguments.limit is not None:
        if arguments.limit < 0:
            raise ValueError(f"--limit {arguments.limit}: give 0 or more")
        stop = start + arguments.limit if stop is None else min(stop, start + arguments.limit)
    return start, stop


def _is_file(arguments: argparse.Namespace) -> bool:
    """Whether -o names a sound file. Raises ValueError for another format, or if it may get more than one row."""
    if not arguments.out.lower().endswith((".wav", ".flac")):
        if arguments.out.lower().endswith(AUDIO_ENDINGS):
            raise ValueError(f"{arguments.out}: sound is written as .wav or .flac: give such a file, or a folder")
        return False
    if len(set(arguments.id)) != 1:
        raise ValueError(f"{arguments.out}: one file holds one row: give one --id, or a folder for -o")
    return True
