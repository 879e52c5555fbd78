"""The sections of a configuration about what is heard in a clip: signals, and pauses at which it is cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from pipeline.yaml_config import Section


def switched(value: Any) -> Any:
    """What `true` and `false` stand for where a section may be left out."""
    if isinstance(value, bool):
        return {} if value else None
    return _settings(value, "give true, false, or settings in braces")


def _names_a_model(value: Any) -> Any:
    return _settings(value, "give the model to hear it with: {model: small}")


def _settings(value: Any, advice: str) -> Any:
    if value is not None and not isinstance(value, Mapping | Section):
        raise ValueError(advice)
    return value


class SplitAtPausesConfig(Section):
    """How long recordings become clips, cut at pauses that Silero VAD finds."""

    max_seconds: Annotated[float, Field(ge=1)] = 30.0
    """Longer recordings are cut into clips of this length at most."""
    min_seconds: Annotated[float, Field(ge=0.5)] = 10.0
    """Length of a clip at least; at most half of max_seconds."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability of speech from which a window of 32 ms is speech."""

    @model_validator(mode="after")
    def _two_clips_have_room(self) -> SplitAtPausesConfig:
        if self.min_seconds > self.max_seconds / 2:
            raise ValueError(f"min_seconds {self.min_seconds:g} is more than half of max_seconds {self.max_seconds:g}")
        return self


class BandwidthConfig(Section):
    """Up to which frequency a clip has sound, by its mean spectrum."""

    threshold_db: Annotated[float, Field(ge=-120, lt=0)] = -50.0
    """Level in dB of the spectrum's peak above which there is sound."""


class VoiceActivityConfig(Section):
    """Where a clip has speech, by Silero VAD."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability of speech from which a window of 32 ms is speech."""


class DnsmosConfig(Section):
    """How good a clip sounds, by DNSMOS."""

    hop_seconds: Annotated[float, Field(ge=0.5, le=3600)] = 1.0
    """Seconds from one window of 9 s to the next. 1 is the definition; 9 takes a ninth of the time, and a clip of less
    than 19 s has one window."""


class LanguageConfig(Section):
    """Which language is spoken in a clip, by Whisper."""

    model: Annotated[str, Field(min_length=1)]
    """A multilingual Whisper model in the format of CTranslate2: a folder, a hub repo, or one of the names that
    faster-whisper knows, such as tiny or large-v3."""


class SignalsConfig(Section):
    """What else to measure of each clip, to filter by. Each is a column or more; codes do not depend on any of this."""

    bandwidth: Annotated[BandwidthConfig | None, BeforeValidator(switched)] = None
    """true or {threshold_db: -50} for the column bandwidth: the highest frequency at which there is sound."""
    voice_activity: Annotated[VoiceActivityConfig | None, BeforeValidator(switched)] = None
    """true or {threshold: 0.5} for the column speech_fraction, by Silero VAD. Needs the extra signals."""
    dnsmos: Annotated[DnsmosConfig | None, BeforeValidator(switched)] = None
    """true or {hop_seconds: 1} for the columns dnsmos, dnsmos_sig and dnsmos_bak. Needs the extra signals, and far more
    time than decoding."""
    language: Annotated[LanguageConfig | None, BeforeValidator(_names_a_model)] = None
    """{model: small} for the columns detected_language and language_probability, by the first half minute of a clip.
    Each reader has the model in its memory. Needs the extra signals."""
