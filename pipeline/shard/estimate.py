"""Estimates what a run would make from a sample of its clips: hours, codes and bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pipeline.config import Config
from pipeline.dataset.statistics import evenly_spaced
from pipeline.items import Clip, ClipEnd, RawClip, Reject, ShardSpec
from pipeline.steps.prepare import Target, prepare_clip
from pipeline.steps.read import read_shard

BITS_PER_CODE = 10.2
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
    frames: float
    output_bytes: float


def estimate(
    specs: Sequence[ShardSpec], config: Config, target: Target, num_quantizers: int, codebook_size: int
) -> Estimate:
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
    frames = seconds * target.sample_rate / target.samples_per_frame
    dictionaries = 2 * min(
        frames, len(specs) * codebook_size
    )  # each column of a shard begins with the codes that occur in it
    column = frames * BITS_PER_CODE / 8 + dictionaries + len(specs) * COLUMN_BYTES
    return Estimate(clips, rejects, seconds / 3600, frames, num_quantizers * column)


def _by_format(specs: Sequence[ShardSpec]) -> Iterator[list[ShardSpec]]:
    groups: dict[str, list[ShardSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.format, []).append(spec)
    yield from groups.values()


def _first_clips(spec: ShardSpec, config: Config) -> list[RawClip | Reject]:
    return list(islice(read_shard(spec, config.input), CLIPS_PER_SAMPLED_SHARD))


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
