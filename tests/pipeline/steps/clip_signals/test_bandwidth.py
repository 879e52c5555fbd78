"""The highest frequency with sound, whatever the blocks, the offset and the level."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.signal_config import BandwidthConfig
from pipeline.steps.clip_signals.bandwidth import WINDOW, Bandwidth

RATE = 48_000
GRID = RATE / WINDOW


def noise_up_to(hertz: float, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """White noise without anything above a frequency."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(round(rate * seconds)))
    spectrum[np.fft.rfftfreq(round(rate * seconds), 1 / rate) > hertz] = 0
    return (np.fft.irfft(spectrum) * 0.1).astype(np.float32)


def bandwidth(samples: np.ndarray, block: int = 4_000, rate: int = RATE, threshold_db: float = -50.0) -> float | None:
    clip = Bandwidth(Bandwidth.describe(BandwidthConfig(threshold_db=threshold_db))).start(rate)
    for start in range(0, len(samples), block):
        clip.add(samples[start : start + block])
    return clip.finish()["bandwidth"]


@pytest.mark.parametrize(("hertz", "rate"), [(3_400, 48_000), (7_000, 16_000), (11_025, 44_100), (16_000, 48_000)])
def test_it_is_where_the_sound_ends(hertz: float, rate: int):
    found = bandwidth(noise_up_to(hertz, rate=rate), rate=rate)
    assert found is not None
    assert abs(found - hertz) < 4 * rate / WINDOW  # the window spreads a frequency over 4 others on each side


def test_blocks_level_and_offset_do_not_matter():
    samples = noise_up_to(5_000)
    expected = bandwidth(samples)
    assert bandwidth(samples, block=97) == expected
    assert bandwidth(samples * np.float32(1e-4)) == expected
    assert bandwidth(samples + np.float32(0.5)) == expected


def test_what_is_below_the_threshold_does_not_count():
    samples = noise_up_to(4_000) + noise_up_to(20_000) * np.float32(1e-3)  # 60 dB less
    assert bandwidth(samples) < 4_000 + 4 * GRID
    assert bandwidth(samples, threshold_db=-70) > 19_000


def test_silence_has_none_and_a_short_clip_has_one():
    assert bandwidth(np.zeros(RATE, np.float32)) is None
    assert bandwidth(np.full(RATE, 0.25, np.float32)) is None
    assert bandwidth(np.zeros(0, np.float32)) is None
    assert bandwidth(noise_up_to(10_000)[: WINDOW // 2]) > 5_000
