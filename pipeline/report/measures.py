"""How near a decoded clip is to its original, in the words of the page."""

from __future__ import annotations

import numpy as np

from pipeline.evaluate.metrics import METRICS, UndefinedMetric, comparable
from pipeline.extras import MissingPackage
from pipeline.pages.numerals import quantity

SHOWN = ("stoi", "mel")
"""Metrics that a few seconds of one clip say something about."""


def measured(original: np.ndarray, decoded: np.ndarray, sample_rate: int) -> list[str]:
    """Metrics of two waveforms (channels, samples), such as "STOI 0.91" and "mel loss 1.3".

    A metric that this clip has no value for, or whose package is not installed, is left out.
    """
    reference, other = comparable(original, sample_rate, decoded, sample_rate)
    found = []
    for name in SHOWN:
        try:
            value = METRICS[name].measure(reference, other)
        except (UndefinedMetric, MissingPackage):
            continue
        label = METRICS[name].label
        found.append(f"{label if label.isupper() else label.lower()} {quantity(value, '', 2)}")
    return found
