"""Figures about the data files from a sample of bounded size: sizes, durations, levels, how often each code is used.

Ids of shards are hashes, so the first shards by id are a random sample, and always the same one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.dataset.dataset import Output
from pipeline.dataset.expression import Chosen
from pipeline.items import ShardSpec
from pipeline.report.tables import open_file

MAX_FRAMES = 2_000_000
"""At most this many frames are counted: 44 hours at 12.5 per second."""
MAX_SHARDS = 256
"""At most this many data files are opened: in an object store each costs some round trips."""
BATCH_ROWS = 256
NEAR_ROWS = 128
"""Only the first clips of a shard are shown: they are found quickly in their source."""
MAX_CANDIDATES = 20_000

_COLUMNS = (
    *("id", "duration", "peak", "rms", "clipping", "silence"),
    *("source_format", "source_sample_rate", "source_channels"),
)


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A clip that could be shown."""

    duration: float
    """Seconds."""
    clip_id: str
    audible: bool


@dataclass(slots=True)
class Sample:
    """Figures of the sampled rows."""

    counts: np.ndarray
    """int64 (num_quantizers, codebook_size): how often each code is used."""
    shards: int = 0
    rows: int = 0
    frames: int = 0
    where: str | None = None
    """The condition that its rows fulfil."""
    whole: bool = True
    """Whether the sample is everything that is committed."""
    durations: list[np.ndarray] = field(default_factory=list)
    """Seconds."""
    rms: list[np.ndarray] = field(default_factory=list)
    peak: list[np.ndarray] = field(default_factory=list)
    clipped_rows: int = 0
    silent_rows: int = 0
    """Number of rows that are silent for at least nine tenths."""
    sources: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    """Number of rows by format, sample rate and channels of the source."""
    signals: dict[str, list[pa.Array]] = field(default_factory=dict)
    """Values of each column of the signals that were measured; null where a clip has none."""
    column_bytes: Counter[str] = field(default_factory=Counter)
    """Compressed bytes by column, of the whole files."""
    codes_in_files: int = 0
    """Number of codes in those files."""
    candidates: list[Candidate] = field(default_factory=list)

    @property
    def bits_per_code(self) -> float:
        """Stored bits per code; nan if there are no codes."""
        stored = sum(self.layer_bytes(layer) for layer in range(len(self.counts)))
        return 8 * stored / self.codes_in_files if self.codes_in_files else float("nan")

    def layer_bytes(self, layer: int) -> int:
        """Compressed bytes of the codes of one RVQ layer."""
        return self.column_bytes[schema.layer_column(layer)]


def take_sample(
    output: Output, max_frames: int = MAX_FRAMES, max_shards: int = MAX_SHARDS, chosen: Chosen | None = None
) -> Sample:
    """Read the first shards by id until there are enough frames; only the chosen rows.

    Raises StorageError or FileNotFoundError for data that cannot be read, ValueError if it is damaged.
    """
    model = output.record.model
    sample = Sample(
        np.zeros((output.record.num_quantizers, model.codebook_size), np.int64), where=chosen and chosen.where
    )
    sample.signals = {column["name"]: [] for column in schema.signal_definitions(output.record.signals)}
    for spec in sorted(output.committed, key=lambda spec: spec.shard_id):
        if sample.shards == max_shards or sample.frames >= max_frames:
            sample.whole = False
            break
        _add_shard(sample, output, spec, max_frames, chosen)
    return sample


def _add_shard(sample: Sample, output: Output, spec: ShardSpec, max_frames: int, chosen: Chosen | None) -> None:
    layers = [schema.layer_column(layer) for layer in range(len(sample.counts))]
    with open_file(output.layout, output.layout.data(spec)) as file:
        _add_sizes(sample, file.metadata)
        columns = list(dict.fromkeys([*_COLUMNS, *sample.signals, *layers, *(chosen.columns if chosen else [])]))
        for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
            if sample.frames >= max_frames:
                sample.whole = False
                break
            kept = chosen.of(batch) if chosen else batch
            _add_rows(sample, kept)
            _add_codes(sample, kept, layers)
    sample.shards += 1


def _add_sizes(sample: Sample, footer: pq.FileMetaData) -> None:
    for group in range(footer.num_row_groups):
        row_group = footer.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            name = column.path_in_schema.partition(".")[0]
            sample.column_bytes[name] += column.total_compressed_size
            if name.startswith("codes_"):
                sample.codes_in_files += column.num_values


def _add_rows(sample: Sample, batch: pa.RecordBatch) -> None:
    column = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in _COLUMNS}
    sample.rows += batch.num_rows
    sample.durations.append(column["duration"].astype(np.float32))
    sample.rms.append(column["rms"])
    sample.peak.append(column["peak"])
    sample.clipped_rows += int(np.count_nonzero(column["clipping"] > 0))
    silent = column["silence"] >= 0.9
    sample.silent_rows += int(np.count_nonzero(silent))
    kinds = zip(column["source_format"], column["source_sample_rate"], column["source_channels"], strict=True)
    sample.sources.update((str(name), int(rate), int(channels)) for name, rate, channels in kinds)
    for name, values in sample.signals.items():
        values.append(batch.column(name))
    for clip_id, duration, is_silent in zip(column["id"], column["duration"], silent, strict=True):
        near = int(clip_id.rpartition("-")[2]) < NEAR_ROWS
        if near and len(sample.candidates) < MAX_CANDIDATES:
            sample.candidates.append(Candidate(float(duration), clip_id, not is_silent))


def _add_codes(sample: Sample, batch: pa.RecordBatch, layers: list[str]) -> None:
    size = sample.counts.shape[1]
    for layer, name in enumerate(layers):
        codes = batch.column(name).flatten().to_numpy()
        if codes.size and not 0 <= codes.min() <= codes.max() < size:
            raise LookupError(
                f"column {name} holds codes from {codes.min()} to {codes.max()}, not from 0 to {size - 1}"
            )
        sample.counts[layer] += np.bincount(codes, minlength=size)
    sample.frames += max(len(batch.column(name).flatten()) for name in layers)
