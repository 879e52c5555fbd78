"""Means with confidence intervals: percentiles of a bootstrap over clips (Efron, 1979), 1,000 resamples, 95 %."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
LOW, HIGH = 2.5, 97.5


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval."""

    mean: float
    low: float
    high: float
    clips: int


class Draws:
    """Bootstrap resamples of clips: how often each clip is drawn, the same for all metrics and subjects."""

    def __init__(self, clips: int, seed: int) -> None:
        self.clips = clips
        self._seed = seed

    def estimate(self, values: np.ndarray) -> Estimate | None:
        """Of one value a clip, NaN where there is none; None without any value."""
        present = ~np.isnan(values)
        count = int(present.sum())
        if not count:
            return None
        filled = np.where(present, values, 0.0)
        means = []
        generator = np.random.default_rng(self._seed)
        for _ in range(RESAMPLES):  # one at a time: a million clips need no matrix of a thousand million
            drawn = np.bincount(generator.integers(0, self.clips, self.clips), minlength=self.clips)
            weight = float(drawn[present].sum())
            if weight:
                means.append(float(drawn @ filled) / weight)
        low, high = np.percentile(means, [LOW, HIGH]) if means else (np.nan, np.nan)
        return Estimate(float(values[present].mean()), float(low), float(high), count)
