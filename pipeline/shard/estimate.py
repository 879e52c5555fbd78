"""Estimates what a run would make from a sample of its clips: hours, codes and bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pipeline.codecs.protocol import Codebook
from pipeline.config import Config
from pipeline.dataset.statistics import evenly_spaced
from pipeline.items import Clip, ClipEnd, RawClip, Reject, ShardSpec
from pipeline.steps.prepare import Target, prepare_clip
from pipeline.steps.read import read_recordings

BITS_MORE_THAN_SAID = 1.02
"""Stored bits of a code, of those that its codebook's size asks for."""
COLUMN_BYTES = 500
"""Overhead of one layer's column in a shard: page headers, statistics, its part of the footer."""
SAMPLED_SHARDS = 8
CLIPS_PER_SAMPLED_SHARD = 16


@dataclass(frozen=True, slots=True)
class Estimate:
    """Figures for the whole plan, scaled up from `clips` sampled clips, of which `rejects` cannot be used."""

    clips: int
    rejects: int
    hours: float
    codes: float
    output_bytes: float


def estimate(specs: Sequence[ShardSpec], config: Config, target: Target, codebooks: Sequence[Codebook]) -> Estimate:
    """Decode the first clips of shards spread evenly over the plan.

    Hours scale with the number of clips if the listing has it; for tars, whose size is nearly all audio, with bytes.
    """
    clips = rejects = 0
    seconds = 0.0
    for group in _by_format(specs):
        items = [item for spec in evenly_spaced(group, SAMPLED_SHARDS) for item in _first_clips(spec, config)]
        lengths = [_num_samples(item, config, target) for item in items]
        clips += len(items)
        rejects += lengths.count(None)
        sampled_seconds = sum(length or 0 for length in lengths) / target.sample_rate
        seconds += sampled_seconds * _scale(group, items)
    codes = [seconds * target.sample_rate / codebook.samples_per_code for codebook in codebooks]
    columns = sum(
        _column_bytes(count, codebook.size, len(specs)) for count, codebook in zip(codes, codebooks, strict=True)
    )
    return Estimate(clips, rejects, seconds / 3600, sum(codes), columns)


def _column_bytes(codes: float, codebook_size: int, shards: int) -> float:
    """Of a codebook in all shards: each begins with the codes that occur in it."""
    dictionaries = (2 if codebook_size <= 2**15 else 4) * min(codes, shards * codebook_size)
    return codes * BITS_MORE_THAN_SAID * math.log2(codebook_size) / 8 + dictionaries + shards * COLUMN_BYTES


def _by_format(specs: Sequence[ShardSpec]) -> Iterator[list[ShardSpec]]:
    groups: dict[str, list[ShardSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.format, []).append(spec)
    yield from groups.values()


def _first_clips(spec: ShardSpec, config: Config) -> list[RawClip | Reject]:
    return list(islice(read_recordings(spec, config.input), CLIPS_PER_SAMPLED_SHARD))


def _num_samples(raw: RawClip | Reject, config: Config, target: Target) -> int | None:
    """Samples of a clip at the model's rate; None if it is rejected."""
    if isinstance(raw, Reject):
        return None
    for item in prepare_clip(raw, config.prepare, target):
        last = item
    return last.info.num_samples if isinstance(last, Clip | ClipEnd) else None


def _scale(group: Sequence[ShardSpec], sample: Sequence[RawClip | Reject]) -> float:
    """Size of the group divided by the size of its sample."""
    if not sample:
        return 0.0
    if all(spec.clips is not None for spec in group):
        return sum(spec.clips or 0 for spec in group) / len(sample)
    return sum(spec.size for spec in group) / max(
        1, sum(len(clip.data) for clip in sample if isinstance(clip, RawClip))
    )
