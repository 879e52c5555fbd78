"""The clips that came out worst, to listen to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluate.measure import Work, hear_clips
from pipeline.evaluate.table import metric_named
from pipeline.items import ShardSpec

MAX_SECONDS = 12.0
"""Of a clip's sound on the page."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A clip and what a codec made of it: float32 (channels, samples)."""

    id: str
    source: str
    key: str
    subject: str
    num_quantizers: int
    value: float
    reference: np.ndarray
    reference_rate: int
    decoded: np.ndarray
    decoded_rate: int


def worst_clips(table: pa.Table, specs: Sequence[ShardSpec], work: Work, metric: str, count: int) -> list[Heard]:
    """Of each subject, decoded with most quantizers, the `count` clips of the worst value.

    Their sources are read again; a clip whose source cannot be read now is left out.
    """
    heard: list[Heard] = []
    by_id = {spec.shard_id: spec for spec in specs}
    order = "ascending" if metric_named(metric).better == "higher" else "descending"
    for subject in work.subjects:
        most = max(subject.num_quantizers)
        rows = table.filter((pc.field("subject") == subject.label) & (pc.field("num_quantizers") == most))
        rows = rows.filter(pc.is_valid(rows[metric])).sort_by([(metric, order), ("id", "ascending")]).slice(0, count)
        for row in rows.select(["id", "source", "key", metric]).to_pylist():
            spec = by_id[row["id"].rpartition("-")[0]]
            for reference, decoded in hear_clips(spec, work, subject, row["id"], most):
                about = subject.description
                heard.append(
                    Heard(
                        id=row["id"],
                        source=row["source"],
                        key=row["key"],
                        subject=subject.label,
                        num_quantizers=most,
                        value=row[metric],
                        reference=reference[:, : int(MAX_SECONDS * about.sample_rate)],
                        reference_rate=about.sample_rate,
                        decoded=decoded[:, : int(MAX_SECONDS * about.output_rate)],
                        decoded_rate=about.output_rate,
                    )
                )
    return heard
