"""How many codes differ between kinds of CPU, by RVQ layer, for one long sample.

    python -m benchmarks.codec_kinds [--model tiny] [--minutes 30] [--dtypes float32 bfloat16]

Other kinds are this CPU with instructions taken away by variables, each in a process of its own. The sample is the
demo corpus, and noise of changing loudness up to the length. The first kind is the reference.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.codec_models import random_model
from moss_tok import UntrainedModelWarning
from moss_tok.audio import AudioError, decode, resample, to_channels

ROOT = Path(__file__).parent.parent
KINDS = {
    "this CPU": {},
    "no AMX": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN of AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
}
RATE = 24_000
GROUPS = ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "100m", "full"), default="tiny")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.into:
        encode(arguments.model, arguments.minutes, arguments.dtypes, arguments.into)
        return
    with tempfile.TemporaryDirectory() as folder:
        for number, kind in enumerate(KINDS.values()):
            command = [sys.executable, "-m", "benchmarks.codec_kinds", "--into", f"{folder}/{number}.safetensors"]
            command += ["--model", arguments.model, "--minutes", str(arguments.minutes), "--dtypes", *arguments.dtypes]
            subprocess.run(command, env=os.environ | kind, cwd=ROOT, check=True)
        found = [load_file(f"{folder}/{number}.safetensors") for number in range(len(KINDS))]
    print_table(found, arguments.dtypes)


def encode(size: str, minutes: float, dtypes: list[str], into: Path) -> None:
    warnings.simplefilter("ignore", UntrainedModelWarning)
    clips, codes = sample(minutes), {}
    for name in dtypes:
        model = random_model(size, dtype=getattr(torch, name))
        print(f"{into.stem} {name}: {model.numerics}", file=sys.stderr, flush=True)
        parts = []
        for start in range(0, len(clips), 8):
            output = model.batch_encode(clips[start : start + 8])
            lengths = output.audio_codes_lengths.tolist()
            parts += [output.audio_codes[:, index, :length] for index, length in enumerate(lengths)]
        codes[name] = torch.cat(parts, dim=1).to(torch.int16)
    save_file(codes, into)


def sample(minutes: float) -> list[Tensor]:
    """Mono clips (samples,) at 24 kHz."""
    clips = []
    for path in sorted((ROOT / "demo" / "corpus" / "folder").rglob("*.*")):
        try:
            info, waveform = decode(path)
        except (AudioError, OSError):
            continue  # what is no audio there, and what is broken on purpose
        clips.append(torch.from_numpy(resample(to_channels(waveform, 1), info.sample_rate, RATE))[0])
    left = int(minutes * 60 * RATE) - sum(len(clip) for clip in clips)
    draw = torch.Generator().manual_seed(0)
    for _ in range(0, max(0, left), 20 * RATE):
        loudness = 10 ** float(torch.empty(()).uniform_(-3, -0.5, generator=draw))
        clips.append(torch.randn(20 * RATE, generator=draw) * loudness)
    return clips


def print_table(found: list[dict[str, Tensor]], dtypes: list[str]) -> None:
    heads = [f"layer {first}" if last == first + 1 else f"{first} to {last - 1}" for first, last in GROUPS]
    print(f"| codes that differ from those of this CPU | frames | {' | '.join(heads)} | all |")
    print("|---|---:|" + "---:|" * (len(GROUPS) + 1))
    for dtype in dtypes:
        for name, codes in zip(KINDS, found, strict=True):
            differs = codes[dtype] != found[0][dtype]
            cells = [f"{int(differs[first:last].sum()):,}" for first, last in GROUPS]
            share = f"{int(differs.sum()):,} ({100 * float(differs.float().mean()):.4f} %)"
            print(f"| {dtype}, {name} | {codes[dtype].shape[1]:,} | {' | '.join(cells)} | {share} |")


if __name__ == "__main__":
    main()
