"""Speed of the encoder on this machine's CPU, compared with its sgemm rate and with the plain algorithm.

    python -m benchmarks.codec [--models tiny 100m full] [--cases 10s 60s 5min ragged mixed short] [--no-baseline]
        [--threads N]

For each model and case: x real time, useful GFLOP/s as a share of the sgemm rate measured right before and after, and
the process's peak memory beyond the model's own. Useful operations are the matrix products of the clips' own frames
(45.6 GFLOP per second of audio for the full size); "with attention" adds those of the attention window. The codes of
both implementations are compared.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.codec_baseline import encode_padded
from benchmarks.codec_models import attention_flop, matmul_flop, random_model
from moss_tok import MossAudioTokenizerModel, UntrainedModelWarning

RATE = 24_000
SGEMM_SECONDS = 2.0
CASES = ("10s", "60s", "5min", "ragged", "mixed", "short")
EVEN = {"mixed": (2, 20, 12), "short": (0.5, 4, 32)}
MAX_BASELINE_SECONDS = {"full": 61.0, "100m": 2000.0, "tiny": 2000.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=("tiny", "100m", "full"), default=["tiny", "100m"])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--no-baseline", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", UntrainedModelWarning)
    clock = "CPU time" if arguments.threads == 1 else "wall time"
    print(f"torch {torch.__version__}, {arguments.threads} threads, {clock}, {cpu_name()}")
    print("| model | case | implementation | seconds | x real time | GFLOP/s | % of sgemm | with attention | peak MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for size in arguments.models:
        model = random_model(size)
        for case in arguments.cases:
            compare(size, model, case, baseline=not arguments.no_baseline)


def compare(size: str, model: MossAudioTokenizerModel, case: str, *, baseline: bool) -> None:
    clips = make_clips(case)
    seconds = [clip.numel() / RATE for clip in clips]
    padded = max(seconds) * len(clips)
    ours = measure(size, model, case, "packed", clips, lambda: packed_codes(model, clips))
    if baseline and padded <= MAX_BASELINE_SECONDS[size]:
        plain = measure(size, model, case, "padded", clips, lambda: encode_padded(model, clips))
        equal = sum(int((a == b).sum()) for a, b in zip(ours, plain, strict=True))
        total = sum(codes.numel() for codes in ours)
        print(f"|  |  | equal codes: {equal} of {total} |  |  |  |  |  |  |", flush=True)


def packed_codes(model: MossAudioTokenizerModel, clips: list[Tensor]) -> list[Tensor]:
    output = model.batch_encode(clips)
    return [output.audio_codes[:, index, :length] for index, length in enumerate(output.audio_codes_lengths.tolist())]


def make_clips(case: str) -> list[Tensor]:
    """Noise. "ragged" is 32 clips of log-normal length, 0.5 to 60 s, about 8 s on average; "mixed" 12 clips of 2 to
    20 s and "short" 32 clips of 0.5 to 4 s, in even steps."""
    draw = torch.Generator().manual_seed(0)
    if case == "ragged":
        durations = torch.exp(torch.randn(32, generator=draw) * 0.8 + 1.8).clamp(0.5, 60).tolist()
    elif case in EVEN:
        durations = torch.linspace(*EVEN[case]).tolist()
    else:
        durations = [{"10s": 10.0, "60s": 60.0, "5min": 300.0}[case]]
    return [torch.randn(int(duration * RATE), generator=draw) / 10 for duration in durations]


def measure(
    size: str,
    model: MossAudioTokenizerModel,
    case: str,
    name: str,
    clips: list[Tensor],
    run: Callable[[], list[Tensor]],
) -> list[Tensor]:
    """Time `run`, the best of three where it is short, between two measurements of sgemm; print a row; return the
    codes.
    """
    audio = sum(clip.numel() for clip in clips) / RATE
    useful = matmul_flop(model) * audio
    attention = sum(attention_flop(model, clip.numel() / RATE) for clip in clips)
    packed_codes(model, [clip[: RATE // 10] for clip in clips[:1]])  # reads the mapped weights in
    sgemm = sgemm_rate()
    reset_peak()
    before = memory("VmRSS")
    elapsed, codes = best_of(run)
    peak = memory("VmHWM") - before
    sgemm = (sgemm + sgemm_rate()) / 2
    shares = [100 * flop / elapsed / sgemm for flop in (useful, useful + attention)]
    print(
        f"| {size} | {case} | {name} | {elapsed:.2f} | {audio / elapsed:.1f} | {useful / elapsed / 1e9:.0f} "
        f"| {shares[0]:.0f} | {shares[1]:.0f} | {peak:.0f} |",
        flush=True,
    )
    return codes


def best_of(run: Callable[[], list[Tensor]]) -> tuple[float, list[Tensor]]:
    best = float("inf")
    for _ in range(3):
        started = now()
        codes = run()
        elapsed = now() - started
        best = min(best, elapsed)
        if elapsed > 20:
            break
    return best, codes


def now() -> float:
    """Seconds; with one thread, of CPU time, so that other processes disturb only through the caches."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def sgemm_rate() -> float:
    """Operations per second of products of 2048 x 2048 matrices, kept up for SGEMM_SECONDS like an encoder: what a
    processor does for a tenth of a second is no limit for what it does for ten."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    a @ b
    products, started = 0, now()
    while (elapsed := now() - started) < SGEMM_SECONDS:
        a @ b
        products += 1
    return products * 2 * 2048**3 / elapsed


def reset_peak() -> None:
    """Reset the peak memory of the process (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(field: str) -> float:
    """A field of /proc/self/status, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no {field} in /proc/self/status")


def cpu_name() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return f"{len(names)} x {names[0]}" if names else "unknown CPU"


if __name__ == "__main__":
    main()
