"""Twelve hours of audio through `encode_stream`, from an iterator of blocks: memory stays flat, and codes match.

    python -m benchmarks.codec_stream [--hours 12] [--model cat-tiny] [--num-quantizers 8]

The clip is noise that is made from the index of each block, so that none of it is kept. Prints memory ten times.
At the end the last 10 s chunk's codes are compared with those of a second stream that was saved half-way and resumed.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator

import torch
from safetensors.torch import load, save
from torch import Tensor

from benchmarks.codec import memory
from moss_tok import MossAudioTokenizerModel, StreamingEncoder, StreamState, UntrainedModelWarning, encode_stream

BLOCK_SECONDS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=12)
    parser.add_argument("--model", default="cat-tiny")
    parser.add_argument("--num-quantizers", type=int, default=8)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UntrainedModelWarning)
    torch.set_num_threads(1)
    model = MossAudioTokenizerModel.from_pretrained(arguments.model, parts="encoder")
    total = int(arguments.hours * 3600 * model.frame_rate)
    frames, shown, started = 0, 0, time.perf_counter()
    print("| hours | memory MB | x real time |")
    print("|---|---|---|")
    for codes in encode_stream(model, blocks(model, arguments.hours), num_quantizers=arguments.num_quantizers):
        frames += codes.shape[1]
        if frames * 10 // total > shown:
            shown = frames * 10 // total
            hours = frames / model.frame_rate / 3600
            speed = hours * 3600 / (time.perf_counter() - started)
            print(f"| {hours:.2f} | {memory('VmRSS'):.0f} | {speed:.0f} |", flush=True)
    print(f"{frames} frames, peak {memory('VmHWM'):.0f} MB; a saved and resumed stream agrees: {resumed_agrees(model)}")


def blocks(model: MossAudioTokenizerModel, hours: float) -> Iterator[Tensor]:
    left = round(hours * 3600 * model.sampling_rate)
    index = 0
    while left:
        draw = torch.Generator().manual_seed(index)
        block = torch.randn(model.number_channels, min(left, BLOCK_SECONDS * model.sampling_rate), generator=draw) / 10
        yield block
        left -= block.shape[1]
        index += 1


def resumed_agrees(model: MossAudioTokenizerModel) -> bool:
    """Whether 40 s, streamed through with the state saved to bytes and loaded again each 10 s, equal 40 s at once."""
    clip = torch.randn(model.number_channels, 40 * model.sampling_rate, generator=torch.Generator().manual_seed(0)) / 10
    encoder, state, parts = StreamingEncoder(model), StreamState(), []
    for chunk in torch.split(clip, 10 * model.sampling_rate, dim=1):
        codes, state = encoder.step(chunk, StreamState.from_tensors(load(save(state.tensors()))))
        parts.append(codes)
    return torch.equal(torch.cat(parts, 1), model.batch_encode([clip]).audio_codes[:, 0])


if __name__ == "__main__":
    main()
