"""Speed of the encoder on a GPU, compared with its bfloat16 matmul rate and with the plain padded algorithm.

    python -m benchmarks.codec_cuda [--model full] [--frames 1024] [--compile] [--no-baseline]

Builds a random model on the device. Cases: 64 clips of 10 s, and 256 clips of log-normal length, 0.5 to 60 s, in
batches of about `--frames` frames, which is also the static number of frames in a group of rows. Prints x real time,
useful TFLOP/s (45.6 GFLOP per second of audio at full size) and their share of the rate of an 8192 x 8192 bfloat16
product measured in the same run. The baseline is the padded, dense-mask algorithm under bfloat16 autocast. At the end
a clip that was encoded alone is compared with the same clip in a batch.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.codec_baseline import encode_padded
from benchmarks.codec_models import matmul_flop, random_model
from moss_tok import MossAudioTokenizerModel
from moss_tok.execution import Execution

RATE, FRAME = 24_000, 1920


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("100m", "full"), default="full")
    parser.add_argument("--frames", type=int, default=1024)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--no-baseline", action="store_true")
    arguments = parser.parse_args()
    device = torch.device("cuda")
    model = random_model(arguments.model, dtype=torch.bfloat16).to(device)
    model.execution = dataclasses.replace(
        Execution.for_device(device, model.dtype),
        static_frames=arguments.frames,
        compile_backend="inductor" if arguments.compile else None,
    )
    plain = None if arguments.no_baseline else random_model(arguments.model).to(device)
    limit = matmul_rate(device)
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, matmul {limit / 1e12:.0f} TFLOP/s")
    print("| case | implementation | x real time | TFLOP/s | % of matmul | peak GB |")
    print("|---|---|---|---|---|---|")
    for case, clips in (("64 x 10 s", fixed_clips()), ("256 log-normal", mixed_clips())):
        batches = by_frames(clips, arguments.frames)
        report(case, "packed", model, batches, limit, lambda batch: model.batch_encode(batch))
        if plain is not None:
            report(case, "padded", model, batches, limit, lambda batch: autocast_padded(plain, batch))
    print(f"a clip alone equals itself in a batch: {alone_equals_batched(model, mixed_clips()[:20])}")


def report(
    case: str, name: str, model: MossAudioTokenizerModel, batches: list[list[Tensor]], limit: float,
    encode: Callable[[list[Tensor]], object],
) -> None:  # fmt: skip
    """Warm up on one batch, time all, print a row. Packing and the transfer to the GPU are part of it."""
    encode(batches[0])
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for batch in batches:
        encode(batch)
    torch.cuda.synchronize()
    elapsed = time.perf_counter() - started
    audio = sum(clip.numel() for batch in batches for clip in batch) / RATE
    rate = matmul_flop(model) * audio / elapsed
    peak = torch.cuda.max_memory_allocated() / 1e9
    print(f"| {case} | {name} | {audio / elapsed:.0f} | {rate / 1e12:.1f} | {100 * rate / limit:.1f} | {peak:.1f} |")


def autocast_padded(model: MossAudioTokenizerModel, batch: list[Tensor]) -> object:
    with torch.autocast("cuda", torch.bfloat16):
        return encode_padded(model, [clip.to(model.device, non_blocking=True) for clip in batch])


def fixed_clips() -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(10 * RATE, generator=draw) / 10 for _ in range(64)]


def mixed_clips() -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    durations = torch.exp(torch.randn(256, generator=draw) * 0.8 + 1.8).clamp(0.5, 60).tolist()
    return [torch.randn(int(duration * RATE), generator=draw) / 10 for duration in durations]


def by_frames(clips: list[Tensor], budget: int) -> list[list[Tensor]]:
    """Batches of about equal frames: longest clip first, into the first batch that it fits."""
    batches: list[list[Tensor]] = []
    room: list[int] = []
    for clip in sorted(clips, key=Tensor.numel, reverse=True):
        frames = -(-clip.numel() // FRAME)
        place = next((index for index, left in enumerate(room) if left >= frames), None)
        if place is None:
            batches.append([])
            room.append(budget)
            place = len(room) - 1
        batches[place].append(clip)
        room[place] -= frames
    return batches


def alone_equals_batched(model: MossAudioTokenizerModel, clips: list[Tensor]) -> bool:
    batch = model.batch_encode(clips)
    for index, clip in enumerate(clips):
        alone = model.batch_encode([clip]).audio_codes[:, 0]
        if not torch.equal(alone, batch.audio_codes[:, index, : alone.shape[1]]):
            return False
    return True


def matmul_rate(device: torch.device) -> float:
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
