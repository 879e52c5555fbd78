"""Decode one row of OUTPUT into a sound file of exactly the clip's length.

Fewer RVQ layers (--num-quantizers) give a coarser sound and read fewer bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands.options import add_output
from pipeline.exit_status import ExitStatus

HELP = "turn a row back into sound"


def configure(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--id", required=True, help="the row's id, from column id")
    parser.add_argument("--num-quantizers", type=int, metavar="K", help="use the first K RVQ layers (default: all)")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="FILE", help="a .wav or .flac file")
    parser.add_argument("--model", help="folder, hub repo or embedded model, if not where the dataset says")


def run(arguments: argparse.Namespace) -> int:
    import soundfile

    from pipeline.commands.printing import warn_untrained
    from pipeline.decode import decode_row, find_row, load_decoder
    from pipeline.output import read_output

    uri, out = arguments.output, arguments.out
    output = read_output(uri)
    if out.suffix.lower() not in (".wav", ".flac"):
        raise ValueError(f"{out}: the name of the sound file ends in .wav or .flac")
    row = find_row(output, arguments.id, arguments.num_quantizers)
    record = output.record
    model = load_decoder(record, arguments.model)
    waveform = decode_row(row, model)
    soundfile.write(out, waveform.T, row.sample_rate)
    warn_untrained(record)
    seconds = row.num_samples / row.sample_rate
    length = f"{row.num_samples} samples at {row.sample_rate} Hz ({seconds:.2f} s)"
    print(f"{out}: {length} from {len(row.codes)} RVQ layers")
    return ExitStatus.DONE
