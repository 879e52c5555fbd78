"""Measures the signals of clips while they are decoded: once for each clip, however often it is decoded."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from moss_tok import audio
from pipeline import schema
from pipeline.items import RawClip
from pipeline.steps.clip_signals import Measurement, Signal, Signals, Values, open_signals
from pipeline.steps.watchdog import Watchdog

logger = logging.getLogger(__name__)


class Meter:
    """Listens to clips, one after the other."""

    def __init__(self, signals: Signals, watchdog: Watchdog) -> None:
        """Raises what `open_signals` raises."""
        self._signals = open_signals(signals)
        self._watchdog = watchdog
        self._raw: RawClip | None = None
        self._values: Values = {}
        """Of the latest clip that was heard to its end."""

    def listen(self, raw: RawClip, info: audio.AudioInfo, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass on the blocks of a clip, float32 (channels, n) at the rate of its source, and measure them."""
        if not self._signals or raw is self._raw:
            return blocks
        return self._heard(raw, info.sample_rate, blocks)

    def values(self, raw: RawClip) -> Values:
        """What was measured of a clip that was heard to its end."""
        return self._values if raw is self._raw else {}

    def _heard(self, raw: RawClip, sample_rate: int, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        clip = _Clip(raw.origin.key, self._signals, sample_rate)
        for block in blocks:
            self._watchdog.restart()  # which counts the decoder's time, and a model may take longer
            clip.add(block)
            self._watchdog.restart()
            yield block
        self._watchdog.restart()
        self._raw, self._values = raw, clip.finish()


class _Clip:
    """The measurements of one clip. A signal that fails has no value for it, and the clip goes on."""

    def __init__(self, key: str, signals: dict[str, Signal], source_rate: int) -> None:
        self._key = key
        rates = {signal.sample_rate for signal in signals.values()} - {None, source_rate}
        self._resamplers = {rate: audio.StreamingResampler(source_rate, rate, 1) for rate in rates if rate}
        self._at = {name: signal.sample_rate or source_rate for name, signal in signals.items()}
        self._source_rate = source_rate
        self._running: dict[str, Measurement] = {name: signal.start(self._at[name]) for name, signal in signals.items()}
        self._values: Values = dict.fromkeys((column["name"] for column in schema.signal_definitions(signals)), None)

    def add(self, block: np.ndarray) -> None:
        mono = audio.to_channels(block, 1)
        self._pass_on({self._source_rate: mono} | {rate: each.push(mono) for rate, each in self._resamplers.items()})

    def finish(self) -> Values:
        self._pass_on({rate: each.flush() for rate, each in self._resamplers.items()})
        for name in list(self._running):
            try:
                self._values |= self._running[name].finish()
            except Exception as error:
                self._fail(name, error)
        return self._values

    def _pass_on(self, sound: dict[int, np.ndarray]) -> None:
        """The same sound at several rates, each (1, n)."""
        for name in list(self._running):
            samples = sound.get(self._at[name])
            try:
                if samples is not None and samples.size:
                    self._running[name].add(samples[0])
            except Exception as error:
                self._fail(name, error)

    def _fail(self, name: str, error: Exception) -> None:
        del self._running[name]
        logger.warning("%s: no %s: %s: %s", self._key, name, type(error).__name__, error)
