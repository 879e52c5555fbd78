"""Which column or field to use: the configured one, or the first of the usual ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

AUDIO_COLUMNS = ("audio", "audio_filepath", "audio_path", "path", "file")
LANGUAGE_COLUMNS = ("language", "lang", "locale")
SPEAKER_COLUMNS = ("speaker_id", "speaker", "client_id")
LABELS_COLUMNS = ("labels", "label", "human_labels", "positive_labels")
START_COLUMNS = ("offset", "start", "start_time", "start_seconds", "start_time_seconds")
STOP_COLUMNS = ("end", "end_time", "end_seconds", "end_time_seconds")


def find_column(names: Iterable[str], wanted: str | None, usual: Sequence[str]) -> str | None:
    """The configured name if it is present, else the first usual name that is; None if there is none."""
    present = set(names)
    candidates = usual if wanted is None else (wanted,)
    return next((name for name in candidates if name in present), None)


def find_audio_column(names: Iterable[str], wanted: str | None) -> str | None:
    """The name of the column that holds the audio or its path."""
    return find_column(names, wanted, AUDIO_COLUMNS)
