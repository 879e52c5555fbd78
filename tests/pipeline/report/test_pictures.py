"""Spectrograms and PNGs: what is drawn is what is there."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.report.images import SHADES, palette, png
from pipeline.report.spectrogram import COLUMNS, MELS, hertz_to_mel, log_mel, mel_filters, shades


@pytest.mark.parametrize("rate", [24_000, 48_000])
@pytest.mark.parametrize("hertz", [200, 1000, 6000])
def test_a_tone_stands_where_its_frequency_is(rate: int, hertz: int):
    tone = np.sin(2 * np.pi * hertz * np.arange(rate) / rate).astype(np.float32)[None]
    decibels = log_mel(tone, rate)
    middle = decibels[:, decibels.shape[1] // 2]
    band = hertz_to_mel(hertz) / hertz_to_mel(rate / 2) * (MELS + 1) - 1
    assert abs(int(middle.argmax()) - band) <= 1
    assert -4 < middle.max() <= 0.1, "full scale is about 0 dB, or half of it where two bands share it"


@pytest.mark.parametrize("samples", [1, 7, 2_000, 192_000, 5_000_000])
def test_any_length_makes_a_picture_of_bounded_width(samples: int):
    decibels = log_mel(np.zeros((2, samples), np.float32), 24_000)
    assert decibels.shape[0] == MELS
    assert 1 <= decibels.shape[1] <= COLUMNS + 1
    assert (shades(decibels, 0.0) == 0).all()


def test_no_band_of_the_filters_is_empty():
    for rate in (8000, 24_000, 48_000):
        assert (mel_filters(1025, rate).sum(axis=1) > 0).all()


def test_a_png_holds_the_shades_row_by_row():
    picture = np.random.default_rng(0).random((5, 9))
    image = Image.open(io.BytesIO(png(picture)))
    assert (image.format, image.mode, image.size) == ("PNG", "P", (9, 5))
    indices = np.rint(picture * (SHADES - 1)).astype(int)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), palette()[indices])


def test_louder_is_lighter_all_the_way():
    lightness = palette() @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()
