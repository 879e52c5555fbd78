"""Decoding of many shards as tasks, each of which any process of a cluster can do, and do again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from pipeline.codecs import Codec
from pipeline.dataset.dataset import Output, read_output
from pipeline.dataset.manifest import read_manifest
from pipeline.items import ShardSpec
from pipeline.loading.decode import Decoded, SoundFiles, decode_rows, decoding_precision, load_decoder
from pipeline.loading.rows import RowQuery, layers_of, row_ranges, rows_between

TASK_SECONDS = 36_000.0  # of sound, so that loading the decoder is little beside it

Range = tuple[ShardSpec, int, int]
"""A shard, and the positions of its rows from the first to one past the last."""


@dataclass(frozen=True, slots=True)
class DecodeTask:
    """Rows of an output, and where their sound goes."""

    output: str
    ranges: tuple[Range, ...]
    layers: int
    folder: str
    format: str
    model: str | None
    dtype: str

    @property
    def rows(self) -> int:
        return sum(stop - start for _, start, stop in self.ranges)


def decode_tasks(
    output: Output, query: RowQuery, num_quantizers: int | None, folder: str, form: str, model: str | None, dtype: str
) -> list[DecodeTask]:
    """The rows of a range of an output, whole shards together up to TASK_SECONDS. Raises what `select_rows` raises."""
    layers = layers_of(output, num_quantizers)
    groups = _groups(output, row_ranges(output, query))
    return [DecodeTask(output.layout.root, tuple(group), layers, folder, form, model, dtype) for group in groups]


def decode_task(task: DecodeTask) -> Decoded:
    """Write the sound of these rows. Files that are there are kept, so that a task can be done again."""
    output = _output(task.output)
    files = SoundFiles(task.folder, task.format, False, output.record, decoding_precision(output.record, task.dtype))
    rows = (row for spec, start, stop in task.ranges for row in rows_between(output, spec, start, stop, task.layers))
    return decode_rows(rows, files, lambda: _decoder(task.output, task.model, files.dtype))


def _groups(output: Output, ranges: Iterable[Range]) -> list[list[Range]]:
    groups: list[list[Range]] = []
    seconds = TASK_SECONDS
    for spec, start, stop in ranges:
        if seconds >= TASK_SECONDS:
            groups.append([])
            seconds = 0.0
        manifest = read_manifest(output.layout, spec.shard_id)
        seconds += manifest.audio_seconds * (stop - start) / manifest.rows
        groups[-1].append((spec, start, stop))
    return groups


@lru_cache(maxsize=1)
def _output(uri: str) -> Output:
    return read_output(uri)


@lru_cache(maxsize=1)
def _decoder(uri: str, model: str | None, dtype: str) -> Codec:
    """Kept for the next task of this process."""
    return load_decoder(_output(uri).record, model, dtype)
