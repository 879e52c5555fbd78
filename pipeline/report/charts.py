"""The plots of the page: which figures are drawn, on which axes."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from pipeline.pages.numerals import count, quantity, share, span
from pipeline.pages.plots import Axis, Bar, Line, axis, bar_plot, line_plot, roof, steps
from pipeline.report.history import Timeline
from pipeline.report.information import Information
from pipeline.report.sample import Sample

BINS = 32
QUIETEST = -80.0
"""Left end of the histogram of levels, in dBFS; fainter clips are counted in the first bar."""


def duration_plot(sample: Sample) -> Markup:
    """Histogram of durations; the longest hundredth of the clips is in the last bar."""
    seconds = np.concatenate(sample.durations)
    usual = float(np.quantile(seconds, 0.99))
    width = steps(0, usual, BINS)[1] if usual > 0 else 1.0
    bins = max(int(np.ceil(usual / width - 1e-6)), 1)
    counts = np.bincount(np.minimum((seconds / width).astype(np.int64), bins), minlength=bins + 1)
    beyond = bool(counts[bins])
    edges = [(index * width, (index + 1) * width) for index in range(bins + beyond)]
    bars = [
        Bar(low, high, float(counts[index]), _interval(index, bins, low, high, int(counts[index])))
        for index, (low, high) in enumerate(edges)
    ]
    x = axis(0, edges[-1][1], "duration in s; the last bar holds all longer clips" if beyond else "duration in s")
    alt = f"Histogram of {count(len(seconds))} durations, {_middle(seconds, 's')}"
    return bar_plot(x, _counts(counts), bars, alt)


def level_plot(sample: Sample) -> Markup:
    """Histogram of root mean square levels."""
    rms = np.concatenate(sample.rms).astype(np.float64)
    level = np.clip(20 * np.log10(np.maximum(rms, 1e-9)), QUIETEST, -1e-9)
    width = 2.5
    counts = np.bincount(((level - QUIETEST) / width).astype(np.int64), minlength=round(-QUIETEST / width))
    bars = [
        Bar(low, low + width, float(number), f"{low:g} to {low + width:g} dBFS: {count(number)} clips")
        for low, number in zip(QUIETEST + width * np.arange(len(counts)), counts, strict=True)
    ]
    alt = f"Histogram of {count(len(rms))} levels, {_middle(level, 'dBFS')}"
    return bar_plot(axis(QUIETEST, 0, "RMS level in dBFS"), _counts(counts), bars, alt)


def entropy_plot(information: Information) -> Markup:
    """Entropy of each layer in bits, with a line at the most that a code could hold."""
    most = information.nominal_bits
    y = Axis(0, 1.15 * most, [(value, f"{value:g}") for value in steps(0, most)], "bits per code")
    bars = [
        Bar(layer, layer + 1, float(bits), f"layer {layer}: {quantity(bits, 'bits')} of {most:g}")
        for layer, bits in enumerate(information.entropy)
    ]
    ends = f"from {quantity(information.entropy[0], 'bits')} in layer 0"
    alt = f"Entropy of each layer, {ends} to {quantity(information.entropy[-1], 'bits')} in layer {len(bars) - 1}"
    return bar_plot(_layers(len(bars)), y, bars, alt, limit=(most, f"most possible: {quantity(most, 'bits')}"))


def use_plot(information: Information) -> Markup:
    """Share of the codes of each layer's codebook that occur."""
    bars = [
        Bar(layer, layer + 1, 100 * float(used), f"layer {layer}: {share(used, 1)} of the codes occur")
        for layer, used in enumerate(information.used)
    ]
    low, high = 100 * information.used.min(), 100 * information.used.max()
    alt = f"Share of each layer's codebook that occurs, between {low:.1f} and {high:.1f} percent"
    return bar_plot(_layers(len(bars)), axis(0, 100, "% of the codebook", 4), bars, alt)


def rate_plot(information: Information, stored_rate: np.ndarray) -> Markup:
    """Kilobits per second of the first 1, 2, … layers: nominal, by entropy, and as stored."""
    layers = np.arange(1, len(stored_rate) + 1)
    lines = [
        Line(list(zip(layers, rate / 1000, strict=True)), name, kind)
        for rate, name, kind in (
            (stored_rate, "stored", "third"),
            (information.nominal_rate, "nominal", "second"),
            (information.entropy_rate, "by entropy", "first"),
        )
    ]
    most = float(max(stored_rate[-1], information.nominal_rate[-1])) / 1000
    x = Axis(
        0, len(layers), [(value, f"{value:g}") for value in steps(0, len(layers), 8)], "first layers that are used"
    )
    rates = ", ".join(f"{line.name} {quantity(line.points[-1][1], 'kbit/s')}" for line in lines)
    return line_plot(x, axis(0, roof(most), "kbit/s", 4), lines, f"Bit rate by the number of layers; with all: {rates}")


def throughput_plot(timeline: Timeline) -> Markup:
    """Throughput, in seconds of audio per second, over the time in which shards were made."""
    scales = [("h", 3600), ("min", 60), ("s", 1)]
    unit, seconds = next((scale for scale in scales if timeline.busy_seconds >= 2 * scale[1]), scales[-1])
    width = timeline.busy_seconds / len(timeline.speed) / seconds
    bars = [
        Bar(index * width, (index + 1) * width, float(speed), f"{index * width:.3g} {unit}: {speed:,.0f} x real time")
        for index, speed in enumerate(timeline.speed)
    ]
    x = axis(0, timeline.busy_seconds / seconds, f"time at work in {unit}")
    y = axis(0, roof(float(timeline.speed.max())), "audio seconds per second", 4)
    alt = f"Throughput over {span(timeline.busy_seconds)}: {timeline.mean_speed:,.0f} times real time on average"
    return bar_plot(x, y, bars, alt)


def _counts(counts: np.ndarray) -> Axis:
    return axis(0, roof(float(counts.max())), "clips", 4)


def _layers(number: int) -> Axis:
    """The axis of layers; each number is below the middle of its bar."""
    ticks = [(layer + 0.5, f"{layer:g}") for layer in steps(0, number - 1, 8)]
    return Axis(0, number, ticks, "RVQ layer")


def _interval(index: int, bins: int, low: float, high: float, number: int) -> str:
    reach = f"{low:g} s and more" if index == bins else f"{low:g} to {high:g} s"
    return f"{reach}: {count(number)} clips"


def _middle(values: np.ndarray, unit: str) -> str:
    low, middle, high = np.quantile(values, (0, 0.5, 1))
    return f"median {quantity(middle, unit)}, from {quantity(low, unit)} to {quantity(high, unit)}"
