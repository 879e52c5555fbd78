"""Batches of training clips: which ones at which step follows from the seed and the step alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moss_tok.training.prepare import SOUND, read_index

GAIN_DB = (-15.0, 6.0)
LOUDEST = 0.97
# Half of the pieces get the sound of another microphone and room: at so many frequencies, evenly spaced in pitch, so
# much louder or quieter; and noise of the same kind, so far below the piece.
EQUALIZER_POINTS, EQUALIZER_DB = 8, 5.0
NOISE_DB = (20.0, 55.0)


class Clips:
    """Draws pieces of `samples` samples, longer recordings more often, with random gain, sign, tone and noise."""

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
        piece: np.ndarray = np.zeros(self.samples, np.float32)
        if length >= self.samples:
            first = start + int(draw.integers(length - self.samples + 1))
            piece[:] = self.sound[first : first + self.samples]
        else:
            first = int(draw.integers(self.samples - length + 1))
            piece[first : first + length] = self.sound[start : start + length]
        if draw.random() < 0.5:
            noise = _toned(draw.standard_normal(self.samples), draw, 3 * EQUALIZER_DB)
            piece = _toned(piece, draw, EQUALIZER_DB)
            below = 10 ** (-draw.uniform(*NOISE_DB) / 20)
            piece = piece + noise * (below * _level(piece) / _level(noise))
        piece = piece * (10 ** (draw.uniform(*GAIN_DB) / 20) * draw.choice((-1, 1)) / 32768)
        loudest = max(float(np.abs(piece).max()), 1e-9)
        limited: np.ndarray = (piece * min(1.0, LOUDEST / loudest)).astype(np.float32)
        return limited


def _toned(piece: np.ndarray, draw: np.random.Generator, decibels: float) -> np.ndarray:
    """The piece with frequencies made louder or quieter, smoothly, by `decibels` as a standard deviation."""
    spectrum = np.fft.rfft(piece)
    octaves = np.log2(np.maximum(np.arange(len(spectrum)), 1))
    points = np.linspace(octaves[-1] - EQUALIZER_POINTS, octaves[-1], EQUALIZER_POINTS)
    gains = np.interp(octaves, points, draw.normal(0, decibels, EQUALIZER_POINTS))
    toned: np.ndarray = np.fft.irfft(spectrum * 10 ** (gains / 20), len(piece))
    return toned


def _level(piece: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(piece)))) + 1e-9
