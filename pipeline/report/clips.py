"""Chooses a few clips to look at and listen to; gets their codes, their original sound, and the decoded sound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moss_tok import audio
from pipeline import schema
from pipeline.codecs import Codec, Coded
from pipeline.dataset.dataset import Output
from pipeline.items import ShardSpec, as_matrix, join_codes
from pipeline.loading.decode import decode_row
from pipeline.loading.rows import Row
from pipeline.report.originals import OriginalGone, read_original
from pipeline.report.sample import NEAR_ROWS, Candidate
from pipeline.report.tables import open_file

DEPTHS = (1, 4, 8, 16, 32)
"""Clips are decoded from so many layers, as far as the output has them."""
MAX_SECONDS = 8.0
MAX_SOUND_BYTES = 5_000_000
"""Clips are cut to MAX_SECONDS, and so that all sounds of a clip have at most MAX_SOUND_BYTES as 16-bit samples."""
SHORTEST = 0.5
"""Seconds. Shorter clips are shown only if there are not enough longer ones."""


@dataclass(frozen=True, slots=True)
class ShownClip:
    """One clip with its sounds, each float32 (channels, samples), cut to what the page can hold."""

    row: dict[str, Any]
    """Its row, without the codes."""
    codes: np.ndarray
    """(num_quantizers, frames): see `as_matrix`."""
    original: np.ndarray | None
    why_no_original: str
    """Why there is no original; empty if there is one."""
    decoded: dict[int, np.ndarray]
    """Decoded sound by number of layers."""


def choose(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """At most `count` clips that are not silent: sorted by duration, cut into equal groups, the middle clip of each."""
    telling = [candidate for candidate in candidates if candidate.audible and candidate.duration >= SHORTEST]
    ranked = sorted(telling if len(telling) >= count else candidates)
    count = min(count, len(ranked))
    return [ranked[(2 * place + 1) * len(ranked) // (2 * count)] for place in range(count)]


def show(output: Output, clip_ids: Sequence[str], codec: Codec) -> Iterator[ShownClip]:
    """These clips, each a row of the output, with their sounds, in the order given."""
    specs = {spec.shard_id: spec for spec in output.specs}
    for clip_id in clip_ids:
        shard_id, _, index = clip_id.rpartition("-")
        spec = specs[shard_id]
        row = _read_row(output, spec, clip_id)
        samples = min(row["num_samples"], _most_samples(output))
        codes = _shown_codes(output, row, samples)
        original, why_not = None, ""
        try:
            original = read_original(output, spec, int(index), row["audio_xxh3"], samples)
        except OriginalGone as error:
            why_not = str(error)
        decoded = {depth: _decoded(codes, depth, row, samples, codec) for depth in _depths(output)}
        yield ShownClip(row, as_matrix(codes.codes), original, why_not, decoded)


def _shown_codes(output: Output, row: dict[str, Any], samples: int) -> Coded:
    """The codes of the beginning of the clip; of one in chunks, all: a chunk cut short is encoded otherwise."""
    description = output.record.model.codec
    dtype = schema.code_type(output.record.model.codebook_size)
    layers = [np.array(row.pop(name), dtype) for name in output.record.code_columns.names]
    scales = np.array(row.pop(schema.SCALES), np.float32) if description.scales else None
    if description.chunking is None:
        lengths = description.lengths(samples)
        layers = [layer[:length] for layer, length in zip(layers, lengths, strict=False)]
    return Coded(join_codes(layers), scales)


def _decoded(codes: Coded, depth: int, row: dict[str, Any], samples: int, codec: Codec) -> np.ndarray:
    """(channels, samples) at the rate of the encoded sound, from the first `depth` codebooks."""
    description = codec.description
    length = samples if description.chunking is None else row["num_samples"]
    sound = decode_row(Row(row["id"], codes.codes[:depth], length, row["sample_rate"], codes.scales), codec)
    if description.output_rate != description.sample_rate:
        sound = audio.resample(sound, description.output_rate, description.sample_rate)
    return sound[:, :samples]


def _most_samples(output: Output) -> int:
    """Number of samples per channel that are shown of a clip."""
    model = output.record.model
    sounds = 1 + len(_depths(output))
    return min(round(MAX_SECONDS * model.sample_rate), MAX_SOUND_BYTES // (2 * model.channels * sounds))


def _depths(output: Output) -> list[int]:
    """Numbers of codebooks that are decoded: only all, where they decode together."""
    number = output.record.num_quantizers
    return [*(depth for depth in DEPTHS if depth < number and output.record.model.codec.prefix), number]


def _read_row(output: Output, spec: ShardSpec, clip_id: str) -> dict[str, Any]:
    columns = [
        "id",
        "key",
        "source",
        "duration",
        "num_samples",
        "sample_rate",
        "audio_xxh3",
        "text",
        "rms",
        *output.record.code_columns.names,
        *([schema.SCALES] if output.record.code_columns.scales else []),
    ]
    with open_file(output.layout, output.layout.data(spec)) as file:
        for batch in file.iter_batches(NEAR_ROWS, columns=columns, use_threads=False):
            ids = batch.column("id").to_pylist()
            if clip_id in ids:
                row: dict[str, Any] = batch.slice(ids.index(clip_id), 1).to_pylist()[0]
                return row
    raise LookupError(f"{clip_id}: gone from its data file while the report was made")
