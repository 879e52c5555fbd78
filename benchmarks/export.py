"""Speed of exports in clips per second, and peak memory as the dataset grows. Each export runs in its own process.

python -m benchmarks.export [--shards 2 8] [--clips 2000]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks.output import info
from benchmarks.read import random_output
from pipeline.export.config import load_export_config
from pipeline.export.job import run_export
from pipeline.items import ClipInfo, Description

SPEAKERS = 400
CASES = {
    "moss-tts": ["moss-tts"],
    "moss-tts with references": ["moss-tts", "references.enabled=true"],
    "tokens, flat": ["tokens", "tokens.template=['{audio}']"],
    "tokens, delay, packed": [
        *("tokens", "tokens.template=['{audio}']", "tokens.layout=delay", "tokens.audio_slot=1", "tokens.pad=2"),
        *("tokens.sequence_length=4096", "tokens.pack=cut", "tokens.storage=npy"),
    ],
    "nemo, 8 layers, 8 buckets": ["nemo", "dataset.num_quantizers=8", "asr.buckets=8"],
    "lhotse": ["lhotse"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--clips", type=int, default=2000, help="of ten seconds, in each shard")
    arguments = parser.parse_args()
    print("| export | clips | clips per CPU-second | MB written | peak MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for shards in arguments.shards:
            dataset = random_output(Path(folder) / f"{shards}" / "codes", shards, arguments.clips, 125, described)
            for name, (to, *settings) in CASES.items():
                out = f"{folder}/{shards}/{to}-{len(settings)}"
                seconds, written, peak = in_own_process(dataset, to, out, settings)
                clips = shards * arguments.clips
                print(
                    f"| {name} | {clips:,} | {clips / seconds:,.0f} | {written / 1e6:.0f} | {peak / 1e6:.0f} |",
                    flush=True,
                )


def described(index: int, frames: int) -> ClipInfo:
    """The info of a clip with a transcript and a speaker."""
    text = f"the words of clip {index} " * (frames // 30)
    description = Description(text=text, language="en", speaker_id=f"speaker {index % SPEAKERS}")
    return replace(info(index, frames), description=description)


def in_own_process(dataset: str, to: str, out: str, settings: Sequence[str]) -> tuple[float, int, int]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, dataset, to, out, settings).result()


def measured(dataset: str, to: str, out: str, settings: Sequence[str]) -> tuple[float, int, int]:
    """CPU seconds, bytes written, and growth of the process's peak memory in bytes."""
    config = load_export_config(None, settings, {"dataset": {"uri": dataset}, "export": {"to": to, "uri": out}})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    report = run_export(config, lambda what, done, total: None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return time.process_time() - started, report.size, peak * 1024


if __name__ == "__main__":
    main()
