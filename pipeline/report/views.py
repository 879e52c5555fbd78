"""Makes the pictures, sounds and words of the clips on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.pages.numerals import decibels, quantity, shown
from pipeline.pages.plots import steps
from pipeline.pages.sound import flac
from pipeline.report.clips import ShownClip
from pipeline.report.images import data_uri, png
from pipeline.report.measures import measured
from pipeline.report.spectrogram import RANGE_DB, hertz_to_mel, log_mel, shades

Marks = Sequence[tuple[float, str]]
"""Labels along an edge of a picture: position in percent, and text."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One spectrogram with its player."""

    title: str
    note: str
    picture: str
    """PNG as a data URI."""
    alt: str
    sound: str
    """FLAC as a data URI."""


@dataclass(frozen=True, slots=True)
class ClipView:
    """One clip on the page."""

    clip_id: str
    key: str
    source: str
    text: str | None
    facts: list[str]
    why_no_original: str
    panels: list[Panel]
    frequencies: Marks
    """Labels of the frequency axis, in percent from the top."""
    times: Marks
    codes: str
    """The code matrix, PNG as a data URI."""
    codes_alt: str
    layers: int


def view(clip: ShownClip, bit_rates: np.ndarray, codebook_size: int | np.ndarray) -> ClipView:
    """The view of a clip. All its pictures have one scale, so that they can be compared.

    `bit_rates` are bits per second of the first 1, 2, … layers.
    """
    rate = int(clip.row["sample_rate"])
    name = shown(clip.row["key"], 80)
    decoded = {depth: log_mel(sound, rate) for depth, sound in clip.decoded.items()}
    original = None if clip.original is None else log_mel(clip.original, rate)
    reference = decoded[max(decoded)] if original is None else original
    top = float(reference.max())
    panels = []
    if original is not None and clip.original is not None:
        alt = f"Spectrogram of {name}, as it was encoded"
        note = quantity(rate / 1000, "kHz", 2)
        panels.append(_panel("Original", note, alt, shades(original, top), clip.original, rate))
    for depth, sound in clip.decoded.items():
        layers = f"{depth} layer{'s' * (depth > 1)}"
        note = quantity(bit_rates[depth - 1] / 1000, "kbit/s")
        if original is not None and clip.original is not None:
            off = f"{quantity(_distance(original, decoded[depth], top), 'dB', 2)} off"
            note = " · ".join([note, off, *measured(clip.original, sound, rate)])
        alt = f"Spectrogram of {name}, decoded from {layers}"
        panels.append(_panel(layers, note, alt, shades(decoded[depth], top), sound, rate))
    length = next(iter(clip.decoded.values())).shape[1] / rate
    layer_count, frames = clip.codes.shape
    return ClipView(
        clip_id=clip.row["id"],
        key=name,
        source=shown(clip.row["source"]),
        text=shown(clip.row["text"]) if clip.row["text"] else None,
        facts=_facts(clip, length),
        why_no_original=shown(clip.why_no_original),
        panels=panels,
        frequencies=_frequency_marks(rate),
        times=[(100 * value / length, f"{value:g}") for value in steps(0, length, 4) if value < 0.97 * length],
        codes=data_uri("image/png", png(clip.codes / (codebook_size - 1))),
        codes_alt=f"The codes of {name}: {layer_count} layers from top to bottom, {frames} frames from left to right",
        layers=layer_count,
    )


def _panel(title: str, note: str, alt: str, picture: np.ndarray, sound: np.ndarray, rate: int) -> Panel:
    return Panel(title, note, data_uri("image/png", png(picture)), alt, data_uri("audio/flac", flac(sound, rate)))


def _facts(clip: ShownClip, length: float) -> list[str]:
    duration = clip.row["duration"]
    cut = f", the first {quantity(length, 's', 2)} shown" if length < duration - 1e-3 else ""
    return [f"{quantity(duration, 's')}{cut}", quantity(decibels(clip.row["rms"]), "dBFS")]


def _distance(reference: np.ndarray, other: np.ndarray, top: float) -> float:
    """Mean difference of two spectrograms in dB, within the range that the pictures show."""
    columns = min(reference.shape[1], other.shape[1])
    difference = shades(reference[:, :columns], top) - shades(other[:, :columns], top)
    return float(RANGE_DB * np.abs(difference).mean())


def _frequency_marks(sample_rate: int) -> Marks:
    top = hertz_to_mel(sample_rate / 2)
    marks = ((500, "500 Hz"), (1000, "1 kHz"), (2000, "2 kHz"), (4000, "4 kHz"), (8000, "8 kHz"), (16000, "16 kHz"))
    places = [(100 - 100 * hertz_to_mel(hertz) / top, text) for hertz, text in marks]
    return [(place, text) for place, text in places if place > 3]
