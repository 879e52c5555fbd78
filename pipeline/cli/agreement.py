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
    import torch

    from moss_tok import agreement as measure
    from moss_tok import audio
    from moss_tok.checkpoint import resolve

    config = resolve(arguments.model, arguments.revision).config
    waveforms = []
    for file in arguments.files:
        try:
            info, decoded = audio.decode(file)
        except audio.AudioError as error:
            raise ValueError(f"{file}: {error}") from error
        except OSError as error:
            raise ValueError(f"{file}: cannot be read: {error.strerror or error}: give audio files") from error
        mixed = audio.to_channels(decoded, config.number_channels)
        waveforms.append(torch.from_numpy(audio.resample(mixed, info.sample_rate, config.sampling_rate)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(
        measure.agreement(
            arguments.model,
            arguments.dtype,
            waveforms,
            revision=arguments.revision,
            device=device,
            num_quantizers=arguments.num_quantizers,
        )
    )
    return ExitStatus.DONE
