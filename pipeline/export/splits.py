"""Which split a row goes to: a function of the row alone, so that it never depends on order, workers or restarts."""

from __future__ import annotations

from pipeline.export.config import SplitConfig
from pipeline.export.rows import ExportRow
from pipeline.items import stable_hash

_RANGE = 16**16  # values of a stable hash


def split_of(row: ExportRow, config: SplitConfig) -> str | None:
    """The name of the row's split; None where a speaker's name is needed and missing.

    With `by: speaker` all clips of a speaker are in one split; a clip of an unknown speaker could be of any, so it has
    no place. Splits are as large as their shares on average, over clips or over speakers.
    """
    if config.shares is None:
        return row.split
    key = row.speaker_id if config.by == "speaker" else row.id
    if key is None:
        return None
    point = int(stable_hash("split", str(config.seed), key), 16) / _RANGE * sum(config.shares.values())
    for name, share in config.shares.items():
        point -= share
        if point < 0:
            return name
    return next(reversed(config.shares))  # rounding may leave the last bit of the range over
