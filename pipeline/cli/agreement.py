"""Encode files in float32 and in another precision, and compare the codes.

Prints the share of equal codes in each RVQ layer, and for both precisions how far the decoded sound is from the
original.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_model

HELP = "measure how another precision changes the codes"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="AUDIO", help="audio files")
    add_model(parser, dtype="bfloat16")


def run(arguments: argparse.Namespace) -> int:
    from moss_tok import audio
    from pipeline.codecs import find_codec
    from pipeline.codecs.agreement import agreement
    from pipeline.steps.encode import device_of

    source = find_codec(arguments.model, arguments.revision, arguments.codec)
    codec = source.description
    waveforms = []
    for file in arguments.files:
        try:
            info, decoded = audio.decode(file)
        except audio.AudioError as error:
            raise ValueError(f"{file}: {error}") from error
        except OSError as error:
            raise ValueError(f"{file}: cannot be read: {error.strerror or error}: give audio files") from error
        mixed = audio.to_channels(decoded, codec.channels)
        waveforms.append(audio.resample(mixed, info.sample_rate, codec.sample_rate))
    print(agreement(source, arguments.dtype, waveforms, device_of("auto"), arguments.num_quantizers))
    return ExitStatus.DONE
