"""Reads all rows once before anything is written, for references and for the limits of buckets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from pipeline import storage
from pipeline.dataset.dataset import Output
from pipeline.export.buckets import Buckets, equal_hours
from pipeline.export.config import ExportConfig
from pipeline.export.selection import RowSelector
from pipeline.items import ShardSpec

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Is told what is being done, how many shards are finished, and of how many."""


def survey(
    root: str,
    config: ExportConfig,
    selection: RowSelector,
    output: Output,
    specs: Sequence[ShardSpec],
    progress: OnProgress,
) -> Buckets:
    """Collect the candidates for references in the database of `selection` and close it. Returns the buckets.

    Limits of buckets are stored, so that a resumed export has the same ones. Reads no rows if neither references nor
    buckets are asked for. Memory is that of `References`, and one number per length of clip.
    """
    buckets = _known_buckets(root, config)
    durations: Counter[float] = Counter()
    if buckets is None or config.references.enabled:
        for number, spec in enumerate(specs):
            progress("surveying", number, len(specs))
            durations.update(row.duration for row in selection.survey(output, spec))
    selection.close()
    if buckets is None:
        assert isinstance(config.asr.buckets, int)
        buckets = equal_hours(durations, config.asr.buckets)
        storage.publish(_uri(root), json.dumps(buckets.limits).encode())
    return buckets


def _known_buckets(root: str, config: ExportConfig) -> Buckets | None:
    """Buckets that are configured, not asked for, or stored by an earlier attempt; None if they must be estimated."""
    if config.export.to not in ("nemo", "lhotse") or config.asr.buckets is None:
        return Buckets(())
    if not isinstance(config.asr.buckets, int):
        return Buckets(config.asr.buckets)
    if storage.stat(_uri(root)) is None:
        return None
    return Buckets(tuple(json.loads(storage.read_bytes(_uri(root)))))


def _uri(root: str) -> str:
    return storage.join(root, "_moss_tok", "buckets.json")
