"""How loud the difference between two sounds is to an ear, in the way of PESQ.

The steps are those of the perceptual model of ITU-T P.862: power in critical bands, loudness by Zwicker's law, a
difference of which a quarter of the quieter sound hides, and more weight for what was added than for what is missing.
Its alignment in time is left out, as clips are aligned; so are its tables, in whose place the formulas stand: critical
bands by Traunmueller (1990), the threshold in quiet by Terhardt (1979).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

# Bands lie half a Bark apart.
BAND_BARK, LOWEST_HZ, HIGHEST_HZ = 0.5, 80.0, 8000.0
# What is heard is played this loud, in decibels of sound pressure; what is quieter than -50 dB of full scale, quieter.
LISTENING_DB, QUIETEST_POWER = 65.0, 1e-5
EXPONENT, SCALE = 0.23, 0.1866
HIDDEN = 0.25
# Power that was added counts by its ratio to this exponent, if it is above the first number, and at most the second.
ADDED_EXPONENT, ADDED_FROM, ADDED_MOST, ADDED_POWER = 1.2, 3.0, 12.0, 50.0
# What a unit of the two disturbances takes from the score.
SYMMETRIC, ADDED = 0.1, 0.0309
EPSILON = 1e-9


def loudness_distance(ours: Tensor, theirs: Tensor, sample_rate: int) -> Tensor:
    """ours and theirs: squares of `spectrogram`, (B, frames, window / 2 + 1); the mean of clips, 0 if all are equal.

    Its unit is that of PESQ before it is mapped to opinion scores; the value is smaller, as frames are averaged.
    """
    window = 2 * (ours.shape[2] - 1)
    filters, threshold = (x.to(ours.device) for x in critical_bands(sample_rate, window))
    our_power, their_power = (power @ filters for power in (ours, theirs))
    quietest = QUIETEST_POWER * window**2 / 4  # by Parseval's theorem, half of the window's power being lost
    gain = 10 ** (LISTENING_DB / 10) / their_power.sum(2).mean(1).clamp_min(quietest)[:, None, None]
    our_power, their_power = our_power * gain, their_power * gain
    our_loudness, their_loudness = loudness(our_power, threshold), loudness(their_power, threshold)
    hidden = HIDDEN * torch.minimum(our_loudness, their_loudness)
    heard = ((our_loudness - their_loudness).abs() - hidden).clamp_min(0)
    added = ((our_power + ADDED_POWER) / (their_power + ADDED_POWER)) ** ADDED_EXPONENT
    added = torch.where(added < ADDED_FROM, 0.0, added.clamp_max(ADDED_MOST))
    # Loud frames count a little less.
    counts = ((their_power.sum(2) + 1e5) / 1e7) ** -0.04
    width = filters.shape[1] * BAND_BARK
    symmetric = width * (heard.square().mean(2) + EPSILON).sqrt() * counts
    asymmetric = width * (heard * added).mean(2) * counts
    symmetric, asymmetric = ((x.square().mean(1) + EPSILON).sqrt() for x in (symmetric, asymmetric))
    return (SYMMETRIC * symmetric + ADDED * asymmetric).mean()


def loudness(power: Tensor, threshold: Tensor) -> Tensor:
    """Zwicker's law: sone a Bark of `power` in bands whose threshold in quiet is `threshold`; below it negative."""
    excited = (0.5 + 0.5 * power / threshold) ** EXPONENT - 1
    return SCALE * (2 * threshold) ** EXPONENT * excited


@lru_cache(maxsize=4)
def critical_bands(sample_rate: int, window: int) -> tuple[Tensor, Tensor]:
    """Filters (window / 2 + 1, bands), triangles in Bark that overlap by half, and the bands' thresholds in quiet."""
    frequencies = torch.linspace(0, sample_rate / 2, window // 2 + 1, dtype=torch.float64)
    lowest, highest = (bark(torch.tensor(hz, dtype=torch.float64)) for hz in (LOWEST_HZ, HIGHEST_HZ))
    centres = torch.arange(float(lowest) + BAND_BARK, float(highest), BAND_BARK, dtype=torch.float64)
    filters = (1 - (bark(frequencies)[:, None] - centres).abs() / BAND_BARK).clamp_min(0)
    khz = 1.960 * (centres + 0.53) / (26.28 - centres)
    decibels = 3.64 * khz**-0.8 - 6.5 * torch.exp(-0.6 * (khz - 3.3) ** 2) + 1e-3 * khz**4
    return filters.float(), (10 ** (decibels / 10)).float()


def bark(hz: Tensor) -> Tensor:
    return 26.81 * hz / (1960 + hz) - 0.53
