"""Decode and resample rates: audio-seconds per CPU-second on one thread.

    OMP_NUM_THREADS=1 python -m benchmarks.decode [--seconds 120] [--clip-seconds 12] [--rate 24000]

Each row is one kind of file, made here from a rising tone with noise. The columns are decoding only, resampling only,
and the whole preparation of a clip: decode, mix to mono, resample.
"""

from __future__ import annotations

import argparse
import io
import platform
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import soundfile

from moss_tok.audio import decode, resample, to_channels
from moss_tok.audio.resample import Waveform

KINDS: dict[str, tuple[str, str, int, int]] = {
    "WAV 16-bit 16k": ("WAV", "PCM_16", 16_000, 1),
    "WAV 16-bit 44.1k": ("WAV", "PCM_16", 44_100, 1),
    "WAV 24-bit 48k stereo": ("WAV", "PCM_24", 48_000, 2),
    "FLAC 16k": ("FLAC", "PCM_16", 16_000, 1),
    "FLAC 44.1k": ("FLAC", "PCM_16", 44_100, 1),
    "FLAC 48k stereo": ("FLAC", "PCM_16", 48_000, 2),
    "MP3 44.1k": ("MP3", "MPEG_LAYER_III", 44_100, 1),
    "MP3 44.1k stereo": ("MP3", "MPEG_LAYER_III", 44_100, 2),
    "Vorbis 44.1k": ("OGG", "VORBIS", 44_100, 1),
    "Opus 48k": ("OGG", "OPUS", 48_000, 1),
    "AAC 44.1k": ("ipod", "aac", 44_100, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="audio to prepare per measurement")
    parser.add_argument("--clip-seconds", type=float, default=12.0, help="length of one clip")
    parser.add_argument("--rate", type=int, default=24_000, help="sample rate to resample to, Hz")
    arguments = parser.parse_args()
    clips = max(1, round(arguments.seconds / arguments.clip_seconds))
    print(f"{_processor()}, Python {platform.python_version()}, numpy {np.__version__}")
    print(f"{clips} clips of {arguments.clip_seconds:g} s; audio-seconds per CPU-second, best of 5\n")
    print(f"| file | decode | resample to {arguments.rate} | decode + mono + resample |\n|---|---:|---:|---:|")
    for name, (kind, codec, rate, channels) in KINDS.items():
        data = encode_file(signal_of(rate, channels, arguments.clip_seconds), rate, kind, codec)
        mono = to_channels(decode(data)[1], 1)
        resampling = partial(resample, mono, rate, arguments.rate)
        works = partial(decode, data), resampling, partial(prepare, data, arguments.rate)
        rates = [best_rate(work, clips, arguments.clip_seconds) for work in works]
        print(f"| {name} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |", flush=True)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.machine()


def prepare(data: bytes, rate: int) -> Waveform:
    """Decode, mix to mono and resample to `rate`."""
    info, waveform = decode(data)
    return resample(to_channels(waveform, 1), info.sample_rate, rate)


def best_rate(work: Callable[[], object], clips: int, clip_seconds: float) -> float:
    """Seconds of audio in a CPU-second: the best of five times in which each of `clips` clips is worked on."""
    best = float("inf")
    for _ in range(clips):  # the first runs pay for page faults and for the clock's rise
        work()
    for _ in range(5):
        started = time.process_time()
        for _ in range(clips):
            work()
        best = min(best, time.process_time() - started)
    return clips * clip_seconds / best


def signal_of(rate: int, channels: int, seconds: float) -> Waveform:
    """A rising tone with noise, float32 (channels, samples)."""
    moments = np.arange(round(rate * seconds)) / rate
    noise = np.random.default_rng(0).standard_normal((channels, len(moments)))
    return (0.3 * np.sin(2 * np.pi * (200 + 100 * moments) * moments) + 0.02 * noise).astype(np.float32)


def encode_file(waveform: Waveform, rate: int, kind: str, codec: str) -> bytes:
    """A file of it, as bytes."""
    buffer = io.BytesIO()
    if codec == "aac":
        with av.open(buffer, "w", format=kind) as container:
            stream = container.add_stream(codec, rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray(waveform, format="fltp", layout="mono")
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return buffer.getvalue()
    with soundfile.SoundFile(buffer, "w", rate, len(waveform), subtype=codec, format=kind) as sound:
        for start in range(0, waveform.shape[1], 4096):  # libvorbis overflows the stack on long writes
            sound.write(waveform[:, start : start + 4096].T)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
