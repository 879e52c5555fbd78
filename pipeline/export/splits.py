"""Assigns rows to splits. The split depends only on the row, never on order, workers or restarts."""

from __future__ import annotations

from pipeline.export.config import SplitConfig
from pipeline.export.rows import ExportRow
from pipeline.items import stable_hash

_RANGE = 16**16  # values of a stable hash


def split_of(row: ExportRow, config: SplitConfig) -> str | None:
    """The name of the row's split; None if splits are by speaker and the row has no speaker.

    With `by: speaker` all clips of a speaker are in one split; the split of a clip without a speaker cannot be known.
    On average over clips or speakers, splits have the sizes of their shares.
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
    return next(reversed(config.shares))  # rounding may leave the end of the range unassigned
