"""Losses between a clip and what came back: spectra, envelopes, waveform.

The spectra are those of the mel loss of the MOSS Audio Tokenizer's evaluation (windows of 2048 and 512 samples at
16 kHz, hop a quarter, square root of a Hann window, Slaney mel bands up to 8 kHz), taken at the codec's own rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from moss_tok.training.klt import PRE_EMPHASIS
from moss_tok.training.loudness import loudness_distance
from moss_tok.training.spectrogram import spectrogram

# (mel bands, window in seconds)
SCALES = ((150, 2048 / 16000), (80, 512 / 16000))
# What lies below is not told apart, for a window of 0.032 s; longer ones sum up more. (The evaluation's own floor is
# 1e-5, near the rounding of 16 bits. So low a floor lets the silence of one clip outweigh the speech of all others.)
FLOOR, FLOOR_SECONDS = 1.5e-4, 0.032
TOP_HZ = 8000.0
# Of STOI: fifteen bands of a third of an octave, from 150 Hz on, in stretches of 0.384 s.
THIRDS, LOWEST_THIRD_HZ, ENVELOPE_SECONDS = 15, 150.0, 0.384
# Square roots of magnitudes below this are not told apart.
QUIET = 0.01


@dataclass(frozen=True)
class Losses:
    """Means over clips; each clip's part is weighted as `distances` says."""

    log_mel: Tensor
    mel: Tensor
    magnitude: Tensor
    envelope: Tensor
    loudness: Tensor
    waveform: Tensor


def distances(decoded: Tensor, original: Tensor, sample_rate: int, fine: Tensor) -> Losses:
    """decoded and original (B, samples); `fine` (B,) in [0, 1] says how much each clip's waveform counts.

    A clip of few codes is to have the right envelope; only many codes can give the waveform itself.
    """
    log_mel = mel = magnitude = envelope = loudness = decoded.new_zeros(())
    for bands, seconds in SCALES:
        window = round(seconds * sample_rate)
        theirs, ours = (spectrogram(x, window) for x in (original, decoded))
        filters = mel_filters(sample_rate, window, bands).to(decoded.device)
        their_mel, our_mel = theirs @ filters, ours @ filters
        # log10 of the square, as in the evaluation.
        floor = FLOOR * seconds / FLOOR_SECONDS
        log_mel = log_mel + 2 * (our_mel.clamp_min(floor).log10() - their_mel.clamp_min(floor).log10()).abs().mean()
        mel = mel + (our_mel - their_mel).abs().mean()
        # Loudness goes rather with the root than with the magnitude, so quiet partials count as well.
        magnitude = magnitude + ((ours + QUIET).sqrt() - (theirs + QUIET).sqrt()).abs().mean()
        if bands == 80:
            thirds = third_octaves(sample_rate, window).to(decoded.device)
            our_power, their_power = ours.square(), theirs.square()
            our_bands, their_bands = ((power @ thirds).sqrt() for power in (our_power, their_power))
            envelope = 1 - correlation(our_bands, their_bands, round(ENVELOPE_SECONDS * 4 / seconds))
            loudness = loudness_distance(our_power, their_power, sample_rate)
    return Losses(log_mel, mel, magnitude, envelope, loudness, waveform_distance(decoded, original, fine))


def correlation(ours: Tensor, theirs: Tensor, steps: int) -> Tensor:
    """How well the bands' envelopes (B, frames, bands) follow over stretches of `steps` frames, 1 at best.

    That of STOI (Taal et al. 2011): the correlation of short envelopes, band by band. Stretches where a band is far
    below the clip's loudest do not count.
    """
    a, b = (x.transpose(1, 2).unfold(2, steps, steps // 2) for x in (ours, theirs))
    a, b = a - a.mean(3, keepdim=True), b - b.mean(3, keepdim=True)
    their_norm = b.square().sum(3).sqrt()
    audible = their_norm > 0.005 * their_norm.amax((1, 2), keepdim=True)
    cosines = (a * b).sum(3) / ((a.square().sum(3) + 1e-10).sqrt() * (their_norm + 1e-5))
    return (cosines * audible).sum() / audible.sum().clamp_min(1)


def waveform_distance(decoded: Tensor, original: Tensor, fine: Tensor) -> Tensor:
    """The pre-emphasised difference over the pre-emphasised original, root mean squares, weighted by `fine` (B,)."""
    difference, reference = _emphasised(decoded - original), _emphasised(original)
    relative = difference.square().mean(1).add(1e-10).sqrt() / reference.square().mean(1).add(1e-7).sqrt()
    return (relative.clamp_max(2) * fine).sum() / fine.sum().clamp_min(1e-3)


def _emphasised(x: Tensor) -> Tensor:
    return x[:, 1:] - PRE_EMPHASIS * x[:, :-1]


@lru_cache(maxsize=8)
def mel_filters(sample_rate: int, window: int, bands: int) -> Tensor:
    """Slaney's mel filters (window / 2 + 1, bands) up to TOP_HZ, of unit area, as librosa.filters.mel makes them."""
    frequencies = torch.linspace(0, sample_rate / 2, window // 2 + 1, dtype=torch.float64)
    top = _mel(torch.tensor(TOP_HZ, dtype=torch.float64))
    edges = _hz(torch.linspace(0, 1, bands + 2, dtype=torch.float64) * top)
    rising = (frequencies[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies[:, None]) / (edges[2:] - edges[1:-1])
    return (torch.minimum(rising, falling).clamp_min(0) * 2 / (edges[2:] - edges[:-2])).float()


@lru_cache(maxsize=8)
def third_octaves(sample_rate: int, window: int) -> Tensor:
    """(window / 2 + 1, THIRDS): ones where a frequency lies in a band, as STOI has them."""
    frequencies = torch.linspace(0, sample_rate / 2, window // 2 + 1)[:, None]
    centres = LOWEST_THIRD_HZ * 2 ** (torch.arange(THIRDS) / 3)
    inside = (frequencies >= centres * 2 ** (-1 / 6)) & (frequencies < centres * 2 ** (1 / 6))
    return inside.float()


_KNEE, _LINEAR, _LOG = 1000.0, 200.0 / 3, torch.log(torch.tensor(6.4, dtype=torch.float64)) / 27


def _mel(hz: Tensor) -> Tensor:
    return torch.where(hz < _KNEE, hz / _LINEAR, _KNEE / _LINEAR + torch.log(hz.clamp_min(1e-9) / _KNEE) / _LOG)


def _hz(mel: Tensor) -> Tensor:
    knee = _KNEE / _LINEAR
    return torch.where(mel < knee, mel * _LINEAR, _KNEE * torch.exp(_LOG * (mel - knee)))
