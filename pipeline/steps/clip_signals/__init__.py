"""What the section `signals` measures of each clip, for filtering by; each signal is one or more columns.

Signals hear the sound as the source has it, mixed to mono, block by block while it is decoded. So they do not depend
on the codec, nor on prepare.loudness, and codes do not depend on them. Where a signal has no value for a clip, or
fails, its columns are null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np

from pipeline.signal_config import SignalsConfig
from pipeline.steps.clip_signals.bandwidth import Bandwidth
from pipeline.steps.clip_signals.dnsmos import Dnsmos
from pipeline.steps.clip_signals.language import Language
from pipeline.steps.clip_signals.voice_activity import VoiceActivity

Signals: TypeAlias = "Mapping[str, Mapping[str, Any]]"
"""By name, what a run measures, and with which settings and models. It stands in the record of the run and is all that
a reader needs to measure the same."""

NO_SIGNALS: Signals = {}

Values: TypeAlias = "dict[str, float | str | None]"
"""By column."""


class Measurement(Protocol):
    """A signal of one clip, whose sound comes in blocks."""

    def add(self, samples: np.ndarray) -> None:
        """The next samples, float32 (n,), at the signal's sample rate."""

    def finish(self) -> Values:
        """The value for each column of the signal."""


class Signal(Protocol):
    """What can be measured of clips."""

    sample_rate: int | None
    """Rate in Hz of the sound that it hears; None for that of the source."""

    def start(self, sample_rate: int) -> Measurement:
        """Begin with a clip whose samples come at this rate."""


class SignalType(Protocol):
    """How a signal is made."""

    packages: tuple[str, ...]
    """Distributions whose versions are recorded."""

    def __call__(self, made_by: Mapping[str, Any]) -> Signal:
        """The signal as it is recorded. Raises ValueError where it cannot be the same here."""

    def describe(self, config: Any) -> dict[str, Any]:
        """What stands in the record of a run with this section. Raises MissingPackage."""


SIGNALS: dict[str, SignalType] = {
    "bandwidth": Bandwidth,
    "voice_activity": VoiceActivity,
    "dnsmos": Dnsmos,
    "language": Language,
}
"""By key of the section `signals`."""


def describe_signals(config: SignalsConfig) -> Signals:
    """What is to be measured, and by what. Raises MissingPackage, which names the extra to install."""
    asked = {name: getattr(config, name) for name in SIGNALS}
    return {name: SIGNALS[name].describe(section) for name, section in asked.items() if section is not None}


def signal_packages(signals: Signals) -> list[str]:
    """The distributions that measure them."""
    return sorted({package for name in signals for package in SIGNALS[name].packages})


def without_names(made_by: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the values of a signal: not where its model lies, which has a hash."""
    return {key: value for key, value in made_by.items() if key != "model"}


def with_labels(signals: Signals) -> Signals:
    """The signals with the last part of a model's name where that is a local path, so that none is in data files."""
    return {
        name: {key: value.rpartition("/")[2] if str(value).startswith("/") else value for key, value in made_by.items()}
        for name, made_by in signals.items()
    }


def open_signals(signals: Signals) -> dict[str, Signal]:
    """The signals of a record. Raises MissingPackage, and ValueError for a model that is another one here."""
    if unknown := signals.keys() - SIGNALS.keys():
        raise ValueError(f"this version cannot measure {', '.join(sorted(unknown))}, which the output has")
    return {name: SIGNALS[name](made_by) for name, made_by in signals.items()}
