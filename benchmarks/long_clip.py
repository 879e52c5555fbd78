"""Clips of many hours beside short ones: memory of reader and actor, and speed.

python -m benchmarks.long_clip --hours 1 12

Each length is its own run with a local Ray, one actor and cat-tiny. The shard has one FLAC of that length at 16 kHz,
with speech of the demo corpus in every other minute and silence between, and after it ten short clips.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import soundfile as sf

from benchmarks.processes import Watch
from pipeline.config import parse_config
from pipeline.distributed.driver import run

CORPUS = Path(__file__).parent.parent / "demo" / "corpus" / "folder" / "librivox"
RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="+", default=[1.0, 12.0])
    arguments = parser.parse_args()
    print("| hours | file | seconds | x real time | reader, private peak | actor, private peak | object store |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for hours in arguments.hours:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(hours, Path(folder)), flush=True)


def measure(hours: float, folder: Path) -> str:
    """Run one length; returns a row of the table."""
    size = write_input(folder / "clips", hours)
    config = parse_config(
        {
            "input": {"splits": {"train": str(folder / "clips")}},
            "output": {"uri": str(folder / "codes")},
            "model": {"name": "cat-tiny", "num_quantizers": 8},
            "cluster": {"actors": 1},
        }
    )
    with Watch() as watch:
        summary = run(config)
    if summary.totals.rows != 11:
        raise RuntimeError(f"11 clips were put in, and {summary.totals.rows} came out")
    peaks = {kind: max(usage.peak_private for usage in usages) / 1e6 for kind, usages in watch.by_kind().items()}
    seconds = summary.wall_seconds
    speed = summary.totals.audio_seconds / seconds
    return (
        f"| {hours:g} | {size / 1e6:.0f} MB | {seconds:.0f} | {speed:.0f} | {peaks['reader']:.0f} MB | "
        f"{peaks['actor']:.0f} MB | {watch.peak_store / 1e6:.0f} MB |"
    )


def write_input(folder: Path, hours: float) -> int:
    """Write the long clip and ten short ones; returns the size of the long one in bytes."""
    folder.mkdir()
    speech = np.concatenate([sf.read(path, dtype="int16")[0] for path in sorted(CORPUS.glob("*.wav"))])
    minute = np.resize(speech, 60 * RATE)
    with sf.SoundFile(folder / "0-long.flac", "w", RATE, 1, subtype="PCM_16", format="FLAC") as sound:
        for number in range(round(hours * 60)):
            sound.write(np.roll(minute, number * RATE) if number % 2 == 0 else np.zeros_like(minute))
    for number in range(10):
        sf.write(folder / f"{number + 1}-short.wav", speech[: (number + 1) * RATE], RATE)
    return (folder / "0-long.flac").stat().st_size


if __name__ == "__main__":
    main()
