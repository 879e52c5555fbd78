"""Speed of the pipeline around the codec: does decoding keep up, and does the encoder ever wait?

    python -m benchmarks.pipeline [--kinds "FLAC 16k" …] [--hours 6] [--speed 5000] [--folder DIR]

For each kind of file it makes shards of short and of long clips, takes the rates at which as many processes as there
are cores decode them and do nothing else, with our own code and with soundfile and torchaudio, and then runs the whole
pipeline under Ray twice with a codec that only takes time (benchmarks/stand_in.py):

1. at --speed x real time, where decoding is the bottleneck. "of decoding alone" is the audio that a reader prepares in
   a second of its CPU time, as a share of what decoding alone gave: what is lost by reading and handing over. "of all
   CPU" counts the CPU time of every process of the run instead, and "of the libraries" is the speed of the run as a
   share of what soundfile and torchaudio's resampler would give on all cores with nothing around them.
2. at half of what the first gave, where the codec is the bottleneck: "busy" is the share of the time between the first
   batch and the last in which the encoder was at work.

CPU time is what counts, so that other work on the machine distorts little; the x real time of the wall clock is printed
beside it. The same tar stands under many names, so reading is from the page cache.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import yaml

from benchmarks.decode import KINDS, encode_file, prepare, signal_of
from benchmarks.processes import Watch
from benchmarks.stand_in import actor_with, batches
from pipeline.config import Config, parse_config
from pipeline.distributed.malloc import keep_freed_memory

TAR_SECONDS = 1500.0
RATE = 24_000
ALONE_SECONDS = 3.0
LONG = "600 s"
SHORT = "2 to 20 s"


@dataclass(frozen=True)
class Figures:
    """The figures of one run."""

    audio_seconds: float
    shards: int
    wall: float
    """Seconds from the start of the first batch to the end of the last."""
    busy: float
    cpu: dict[str, float]
    """CPU seconds in that time, by kind of process."""
    driver_thread: float
    """CPU seconds of the thread that schedules."""
    peak_store: int
    peak_memory: dict[str, int]

    @property
    def speed(self) -> float:
        return self.audio_seconds / self.wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["WAV 16-bit 16k", "FLAC 16k", "FLAC 44.1k"])
    parser.add_argument("--lengths", nargs="+", choices=(SHORT, LONG), default=[SHORT, LONG], help="of clips")
    parser.add_argument("--hours", type=float, default=6.0, help="audio in a run")
    parser.add_argument("--speed", type=float, default=5000.0, help="of the stand-in, x real time")
    parser.add_argument("--folder", type=Path, help="where to put shards and outputs (default: a temporary folder)")
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="keys of the section cluster")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        for kind in arguments.kinds:
            for length in arguments.lengths:
                _measure(kind, length, arguments, Path(name))


def _measure(kind: str, length: str, arguments: argparse.Namespace, folder: Path) -> None:
    tar = folder / "one.tar"
    lengths = _lengths(length)
    make_tar(tar, kind, lengths)
    cores = os.cpu_count() or 1
    shards = max(2, math.ceil(arguments.hours * 3600 / sum(lengths)))
    print(f"\n{kind}, clips of {length}: {shards} shards of {sum(lengths):,.0f} s, {cores} cores", flush=True)
    before = _rates_alone(tar, cores)
    fast = _run(tar, shards, arguments.speed, arguments.set, folder / "fast")
    alone, libraries = ((first + second) / 2 for first, second in zip(before, _rates_alone(tar, cores), strict=True))
    print(f"  decoding alone           {alone:,.0f} x real time per core, {cores} processes at once")
    print(f"  soundfile and torchaudio {libraries:,.0f} x")
    _report(f"codec of {arguments.speed:,.0f} x", fast, alone)
    print(f"    of the libraries       {fast.speed / (libraries * cores):.0%}")
    slow_speed = fast.speed / 2
    slow = _run(tar, shards, slow_speed, arguments.set, folder / "slow")
    _report(f"codec of {slow_speed:,.0f} x", slow, alone)


def _report(title: str, run: Figures, alone: float) -> None:
    print(f"  {title}")
    print(f"    speed                  {run.speed:,.0f} x real time in {run.wall:.1f} s of wall time")
    print(f"    encoder busy           {run.busy:.1%}")
    print(f"    decoded per core       {run.audio_seconds / run.cpu['reader']:,.0f} x", end="")
    print(f" = {run.audio_seconds / run.cpu['reader'] / alone:.0%} of decoding alone,", end="")
    print(f" {run.audio_seconds / sum(run.cpu.values()) / alone:.0%} of all CPU")
    seconds = ", ".join(f"{kind} {used:.1f} s" for kind, used in run.cpu.items())
    print(f"    CPU                    {seconds}")
    print(f"    driver, per shard      {run.driver_thread / run.shards * 1000:.1f} ms of CPU")
    print(f"    object store, at most  {run.peak_store / 1e6:,.0f} MB")
    memory = ", ".join(f"{kind} {size / 1e6:,.0f} MB" for kind, size in run.peak_memory.items())
    print(f"    memory, at most        {memory}", flush=True)


def _lengths(length: str) -> list[float]:
    if length == LONG:
        return [600.0, 600.0]
    drawn = np.random.default_rng(0).lognormal(np.log(7), 0.6, 1000).clip(2, 20)
    return [float(seconds) for seconds in drawn[np.cumsum(drawn) < TAR_SECONDS]]


def make_tar(path: Path, kind: str, lengths: Sequence[float]) -> None:
    """A tar of clips of one kind, each the beginning of one signal."""
    container, codec, rate, channels = KINDS[kind]
    whole = signal_of(rate, channels, max(lengths))
    with tarfile.open(path, "w") as tar:
        for number, seconds in enumerate(lengths):
            data = encode_file(whole[:, : round(seconds * rate)], rate, container, codec)
            member = tarfile.TarInfo(f"{number:06d}.{container.lower()}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def print_rates(tar: Path) -> None:
    """Audio-seconds per CPU-second of this process over the clips of a tar, with our code and with the libraries."""
    import torch
    from torchaudio.transforms import Resample

    torch.set_num_threads(1)
    keep_freed_memory()
    with tarfile.open(tar) as archive:
        clips = [archive.extractfile(member).read() for member in archive.getmembers()[:100]]  # type: ignore[union-attr]
    seconds = sum(prepare(clip, RATE).shape[1] for clip in clips) / RATE
    resample = Resample(soundfile.info(io.BytesIO(clips[0])).samplerate, RATE)

    def with_libraries(clip: bytes) -> None:
        samples, _ = soundfile.read(io.BytesIO(clip), dtype="float32", always_2d=True)
        resample(torch.from_numpy(samples).mean(1))

    for work in (partial(prepare, rate=RATE), with_libraries):
        started, began = time.process_time(), time.monotonic()
        rounds = 0
        while time.monotonic() < began + ALONE_SECONDS:
            for clip in clips:
                work(clip)
            rounds += 1
        print(rounds * seconds / (time.process_time() - started))


def _rates_alone(tar: Path, processes: int) -> tuple[float, float]:
    """Means over so many processes at once: cores share caches and memory, in a run as well as here."""
    code = f"import pathlib, benchmarks.pipeline as b; b.print_rates(pathlib.Path({str(tar)!r}))"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # as Ray sets it in tasks of one CPU
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    rates = [[float(rate) for rate in process.communicate()[0].split()] for process in started]
    ours, libraries = (sum(column) / processes for column in zip(*rates, strict=True))
    return ours, libraries


def _run(tar: Path, shards: int, speed: float, settings: Sequence[str], folder: Path) -> Figures:
    from pipeline.distributed.driver import run

    config = _config(tar, shards, folder, settings)
    with Watch() as watch:
        summary = run(config, actor_with(speed, folder))
    if summary.failures:
        raise RuntimeError(f"shards failed: {summary.failures}")
    done = batches(folder)
    first, last = done[0].started, max(batch.finished for batch in done)
    cpu = {kind: sum(usage.cpu_seconds(first, last) for usage in usages) for kind, usages in watch.by_kind().items()}
    return Figures(
        audio_seconds=sum(batch.audio_seconds for batch in done),
        shards=shards,
        wall=last - first,
        busy=sum(batch.finished - batch.started for batch in done) / (last - first),
        cpu=cpu,
        driver_thread=watch.driver.cpu_seconds(first, last),
        peak_store=watch.peak_store,
        peak_memory={kind: max(usage.peak_private for usage in usages) for kind, usages in watch.by_kind().items()},
    )


def _config(tar: Path, shards: int, folder: Path, settings: Sequence[str]) -> Config:
    shutil.rmtree(folder, ignore_errors=True)
    inputs = folder / "input"
    inputs.mkdir(parents=True)
    for number in range(shards):
        os.link(tar, inputs / f"{number:05d}.tar")
    cluster: dict[str, object] = {"actors": 1, "cpus_per_actor": 0.0}
    for setting in settings:
        key, _, value = setting.partition("=")
        cluster[key] = yaml.safe_load(value)
    return parse_config(
        {
            "input": {"splits": {"train": str(inputs)}},
            "output": {"uri": str(folder / "codes")},
            "model": {"name": "cat-tiny", "device": "cpu"},
            "cluster": cluster,
        }
    )


if __name__ == "__main__":
    main()
