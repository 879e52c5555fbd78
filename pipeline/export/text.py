"""Normalizes transcripts by the rules of Whisper's text normalizer.

The library whisper-normalizer (MIT, pure Python, no model) has the rules that most published word error rates are
computed with, so a model that is trained on such text is scored on the same spelling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pipeline.export.config import TextConfig

Normalize: TypeAlias = Callable[[str, "str | None"], str]
"""Takes a text and its language; returns the normalized text, empty if nothing is left."""


def normalizer(config: TextConfig) -> Normalize:
    """The function that the configuration asks for. Raises ValueError if its library is not installed."""
    if config.normalize == "none":
        return lambda text, language: text.strip()
    try:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise ValueError(f"text.normalize={config.normalize}: {error}: pip install 'moss-tok[export]'") from error
    # Combining marks are letters in Hindi, Thai and many other scripts; Whisper's own default drops them.
    basic: Callable[[str], str] = BasicTextNormalizer(preserve_marks=True)
    english: Callable[[str], str] = EnglishTextNormalizer() if config.normalize == "whisper" else basic
    return lambda text, language: (english if is_english(language) else basic)(text).strip()


def is_english(language: str | None) -> bool:
    """Whether a language tag (en, en-GB, en_US) or name means English."""
    return (language or "").lower().replace("_", "-").partition("-")[0] in ("en", "eng", "english")
