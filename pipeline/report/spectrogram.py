"""Log-mel spectrograms for pictures."""

from __future__ import annotations

import numpy as np

MELS = 80
WINDOW_SECONDS = 0.040
COLUMNS = 560
"""At most about this many columns: more than a picture on the page has pixels."""
RANGE_DB = 80.0
"""Range below the loudest point; what is fainter is drawn black."""


def log_mel(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """float32 (MELS, columns) in dB, lowest band first; 0 dB is a sine of full scale that falls into one band.

    `waveform` is float32 (channels, samples), of at least one sample; channels are averaged. Hann windows of 40 ms.
    """
    signal = waveform.mean(axis=0)
    window = np.hanning(round(WINDOW_SECONDS * sample_rate))
    hop = max(round(sample_rate * 0.005), -(-signal.size // COLUMNS))
    # Twice the window's length: the lowest bands are narrower than its own frequency resolution.
    size = 2 ** (window.size - 1).bit_length() * 2
    padded = np.pad(signal, window.size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window.size)[::hop]
    # By Parseval's theorem the bins of a sine of full scale add up to size * sum(window^2) / 4.
    power = np.square(np.abs(np.fft.rfft(frames * window, size))) * (4 / (size * np.square(window).sum()))
    bands = mel_filters(size // 2 + 1, sample_rate) @ power.T
    return np.asarray(10 * np.log10(np.maximum(bands, 1e-12)), np.float32)


def mel_filters(bins: int, sample_rate: int) -> np.ndarray:
    """Triangles (MELS, bins) from 0 Hz to half the rate, equally wide on the mel scale."""
    corners = mel_to_hertz(np.linspace(0, hertz_to_mel(sample_rate / 2), MELS + 2))
    frequency = np.linspace(0, sample_rate / 2, bins)
    rising = (frequency - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - frequency) / np.diff(corners)[1:, None]
    return np.asarray(np.maximum(0, np.minimum(rising, falling)))


def hertz_to_mel(hertz: float) -> float:
    """2595 log10(1 + f / 700) (O'Shaughnessy, Speech Communication, 1987)."""
    return float(2595 * np.log10(1 + hertz / 700))


def mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    """The inverse of `hertz_to_mel`."""
    return np.asarray(700 * (10 ** (mel / 2595) - 1))


def shades(decibels: np.ndarray, top: float) -> np.ndarray:
    """float (rows, columns) from 0 (RANGE_DB below `top`) to 1 (`top`), highest band first, as a picture has it."""
    return np.asarray(np.clip((decibels[::-1] - top) / RANGE_DB + 1, 0, 1))
