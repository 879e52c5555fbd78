"""Where a clip has speech, by Silero VAD (Silero Team, 2021), whose model is in the package silero-vad.

From its probabilities to speech is the package's own rule, with its default lengths and without padding. The package is
not imported, because it would import torch into every reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pipeline.signal_config import VoiceActivityConfig
from pipeline.steps.clip_signals.packaged_model import PackagedModel

SAMPLE_RATE = 16_000
WINDOW = 512
"""Samples of one probability: 32 ms."""
CONTEXT = 64
"""Samples before a window that the model hears again."""
GROUP = 256
"""Windows that are computed at once."""
STATE = (1, 1, 128)

HYSTERESIS = 0.15
"""Speech ends where the probability is so much below the threshold."""
PAUSE = 0.1
"""Seconds without speech that end it; shorter ones are part of it."""
SHORTEST = 0.25
"""Seconds of speech that is not longer than this, and does not count."""

MODEL = PackagedModel("signals.voice_activity", "silero-vad", "silero_vad/data/silero_vad_16k_sequence.onnx")


class VoiceActivity:
    """The column `speech_fraction`."""

    sample_rate: int | None = SAMPLE_RATE
    packages: ClassVar[tuple[str, ...]] = (MODEL.package, "onnxruntime")

    def __init__(self, made_by: Mapping[str, Any]) -> None:
        self._threshold: float = made_by["threshold"]
        self._session = MODEL.session(made_by)

    @staticmethod
    def describe(config: VoiceActivityConfig) -> dict[str, Any]:
        return {"threshold": config.threshold, **MODEL.describe()}

    def start(self, sample_rate: int) -> SpeechDetector:
        return SpeechDetector(self._session, self._threshold)


class SpeechDetector:
    """Finds the speech of one clip, whose samples come at SAMPLE_RATE."""

    def __init__(self, session: Any, threshold: float) -> None:
        self._session = session
        self._threshold = threshold
        self._state = (np.zeros(STATE, np.float32), np.zeros(STATE, np.float32))
        self._rest = np.zeros(CONTEXT, np.float32)  # what the next window needs: at first there is silence before it
        self._probabilities: list[np.ndarray] = []
        self.num_samples = 0

    def add(self, samples: np.ndarray) -> None:
        self.num_samples += len(samples)
        self._rest = np.concatenate([self._rest, samples])
        while len(self._rest) >= CONTEXT + GROUP * WINDOW:
            self._run(GROUP)

    def finish(self) -> dict[str, float | str | None]:
        speech = sum(stop - start for start, stop in self.speech())
        return {"speech_fraction": speech / self.num_samples if self.num_samples else None}

    def speech(self) -> list[tuple[int, int]]:
        """First sample and the one past the last of each stretch of speech, once all samples have come."""
        if (left := len(self._rest) - CONTEXT) > 0:
            windows = -(-left // WINDOW)
            self._rest = np.pad(self._rest, (0, windows * WINDOW - left))
            self._run(windows)
        return speech_of(self.probabilities.tolist(), self.num_samples, self._threshold)

    @property
    def probabilities(self) -> np.ndarray:
        """Of speech in each window, as far as it is computed."""
        return np.concatenate([np.empty(0, np.float32), *self._probabilities])

    def _run(self, windows: int) -> None:
        count = CONTEXT + windows * WINDOW
        views = np.lib.stride_tricks.sliding_window_view(self._rest[:count], CONTEXT + WINDOW)[::WINDOW]
        inputs = dict(zip(("input", "h", "c"), (np.ascontiguousarray(views), *self._state), strict=True))
        found, *self._state = self._session.run(["speech_probs", "hn", "cn"], inputs)
        self._probabilities.append(found.reshape(-1))
        self._rest = self._rest[count - CONTEXT :]


def speech_of(probabilities: Sequence[float], num_samples: int, threshold: float) -> list[tuple[int, int]]:
    """The stretches of speech in samples, from the probability of speech of each window."""
    found: list[tuple[int, int]] = []
    start = quiet = None
    for window, probability in enumerate(probabilities):
        if probability >= threshold:
            start, quiet = window if start is None else start, None
        elif probability < max(threshold - HYSTERESIS, 0.01) and start is not None:
            quiet = window if quiet is None else quiet
            if (window - quiet) * WINDOW >= PAUSE * SAMPLE_RATE:
                found.append((start * WINDOW, quiet * WINDOW))
                start = quiet = None
    if start is not None:
        found.append((start * WINDOW, num_samples))
    return [(first, stop) for first, stop in found if stop - first > SHORTEST * SAMPLE_RATE]
