"""The quality of a clip as listeners would rate it: DNSMOS P.835 (Reddy, Gopal and Cutler, ICASSP 2022).

The network is in the package speechmos, which is not imported: it would import librosa, and it computes another score
beside. Windows, the repeating of short clips and the mapping of the network's numbers are those of the package, so
that values are equal to its own and can be compared with published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from pipeline.signal_config import DnsmosConfig
from pipeline.steps.clip_signals.packaged_model import PackagedModel

SAMPLE_RATE = 16_000
SECONDS = 9.01
"""Of a window."""
LENGTH = round(SECONDS * SAMPLE_RATE)
NEEDED = 10 * SAMPLE_RATE
"""Samples from the beginning of a window on without which it is left out, unless it is the first."""
DIGITS = 3
"""Decimals of a value: a rating is not better known, and CPUs differ in later ones."""

_MAPPINGS = {
    "dnsmos_sig": (-0.08397278, 1.22083953, 0.0052439),
    "dnsmos_bak": (-0.13166888, 1.60915514, -0.39604546),
    "dnsmos": (-0.06766283, 1.11546468, 0.04602535),
}
"""From each number of the network to a rating: the polynomials of the official script, highest power first."""

MODEL = PackagedModel("signals.dnsmos", "speechmos", "speechmos/dnsmos_models/sig_bak_ovr.onnx")


class Dnsmos:
    """The columns `dnsmos`, `dnsmos_sig` and `dnsmos_bak`, from 1 to 5; null for silence."""

    sample_rate: int | None = SAMPLE_RATE
    packages: ClassVar[tuple[str, ...]] = (MODEL.package, "onnxruntime")

    def __init__(self, made_by: Mapping[str, Any]) -> None:
        self._hop: float = made_by["hop_seconds"]
        self._session = MODEL.session(made_by)

    @staticmethod
    def describe(config: DnsmosConfig) -> dict[str, Any]:
        return {"hop_seconds": config.hop_seconds, **MODEL.describe()}

    def start(self, sample_rate: int) -> Ratings:
        return Ratings(self._session, self._hop)


class Ratings:
    """The mean rating of the windows of one clip."""

    def __init__(self, session: Any, hop: float) -> None:
        self._session = session
        self._hop = hop
        self._held = np.empty(0, np.float32)
        self._before = 0
        """Samples before those that are held."""
        self._next = 0
        """Number of the next window."""
        self._ratings: list[np.ndarray] = []
        self._silent = True

    def add(self, samples: np.ndarray) -> None:
        self._silent = self._silent and not samples.any()
        self._held = np.concatenate([self._held, np.clip(samples, -1, 1)])
        self._run()

    def finish(self) -> dict[str, float | str | None]:
        if self._silent:
            return dict.fromkeys(_MAPPINGS)
        if not self._next:
            while len(self._held) < LENGTH:
                self._held = np.concatenate([self._held, self._held])
            self._rate()
            self._run()
        means = np.mean(self._ratings, axis=0)
        return {name: round(float(mean), DIGITS) for name, mean in zip(_MAPPINGS, means, strict=True)}

    def _run(self) -> None:
        """Rate the windows that have come, and drop what no later one needs."""
        while True:
            begin = int(self._next * self._hop * SAMPLE_RATE)
            drop = min(begin - self._before, len(self._held))
            self._held, self._before = self._held[drop:], self._before + drop
            if self._before < begin or len(self._held) < NEEDED:
                return
            self._rate()

    def _rate(self) -> None:
        """The next window, which begins with what is held."""
        if self._hop != 1 or not _loses_a_sample(self._next):
            (found,) = self._session.run(None, {"input_1": self._held[None, :LENGTH]})
            mappings = zip(_MAPPINGS.values(), found[0].tolist(), strict=True)
            self._ratings.append(np.array([np.polyval(mapping, number) for mapping, number in mappings]))
        self._next += 1


def _loses_a_sample(window: int) -> bool:
    """Whether the official script leaves a window out. Its end is a product that is not always rounded to a whole
    number of samples; the window then lacks one. These are the 8th to the 24th, the 120th, and others.
    """
    return int((window + SECONDS) * SAMPLE_RATE) - window * SAMPLE_RATE < LENGTH
