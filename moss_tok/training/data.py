"""Batches of training clips: which ones at which step follows from the seed and the step alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moss_tok.training.prepare import SOUND, read_index

GAIN_DB = (-15.0, 6.0)
LOUDEST = 0.97


class Clips:
    """Draws pieces of `samples` samples, longer recordings more often, with random gain and sign."""

    def __init__(self, folder: Path, samples: int) -> None:
        self.samples = samples
        self.sound = np.memmap(folder / SOUND, dtype="<i2", mode="r")
        clips = [clip for clip in read_index(folder) if clip.split == "train"]
        self.starts = np.array([clip.start for clip in clips])
        self.lengths = np.array([clip.samples for clip in clips])
        self.ends = np.cumsum(self.lengths)

    @classmethod
    def validation(cls, folder: Path, samples: int, count: int) -> Tensor:
        """(clips, samples): the middle of `count` validation clips that are long enough, evenly chosen."""
        sound = np.memmap(folder / SOUND, dtype="<i2", mode="r")
        clips = [clip for clip in read_index(folder) if clip.split == "validation" and clip.samples >= samples]
        if not clips:
            raise ValueError(f"{folder} holds no validation clip of {samples} samples")
        pieces = []
        for index in range(min(count, len(clips))):
            clip = clips[index * len(clips) // min(count, len(clips))]
            first = clip.start + (clip.samples - samples) // 2
            pieces.append(sound[first : first + samples].astype(np.float32) / 32768)
        return torch.from_numpy(np.stack(pieces))

    def batch(self, count: int, seed: int, step: int) -> Tensor:
        """(count, samples) float32 in [-1, 1]. A recording that is shorter is placed somewhere in silence."""
        draw = np.random.default_rng((seed, step))
        return torch.from_numpy(np.stack([self._piece(draw) for _ in range(count)]))

    def _piece(self, draw: np.random.Generator) -> np.ndarray:
        index = int(np.searchsorted(self.ends, draw.integers(self.ends[-1]), side="right"))
        start, length = int(self.starts[index]), int(self.lengths[index])
        piece = np.zeros(self.samples, np.float32)
        if length >= self.samples:
            first = start + int(draw.integers(length - self.samples + 1))
            piece[:] = self.sound[first : first + self.samples]
        else:
            first = int(draw.integers(self.samples - length + 1))
            piece[first : first + length] = self.sound[start : start + length]
        piece *= 10 ** (draw.uniform(*GAIN_DB) / 20) * draw.choice((-1, 1)) / 32768
        return piece * min(1.0, LOUDEST / max(float(np.abs(piece).max()), 1e-9))
