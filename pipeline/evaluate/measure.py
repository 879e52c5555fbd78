"""One shard of an evaluation: every clip decoded with every subject and number of quantizers, and measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from pipeline.codecs import Codec, Coded
from pipeline.config import InputConfig, PrepareConfig
from pipeline.dataset.dataset import read_output
from pipeline.evaluate.metrics import METRICS, UndefinedMetric, Waveform, comparable
from pipeline.evaluate.models import MODEL_METRICS, ClipText, ModelNames
from pipeline.evaluate.results import ClipValues
from pipeline.evaluate.subjects import Subject, decoded_with_each, first_layers, load_subject
from pipeline.evaluate.threads import one_thread
from pipeline.items import Clip, ClipEnd, ClipPart, RawClip, Reject, ShardSpec
from pipeline.loading.rows import RowQuery, select_rows
from pipeline.steps.prepare import prepare_clip
from pipeline.steps.read import read_shard
from pipeline.steps.records import clip_id


@dataclass(frozen=True, slots=True)
class Work:
    """What every shard of an evaluation shares; travels to worker processes."""

    subjects: tuple[Subject, ...]
    dataset: str | None
    """The output whose codes are decoded; None where the subjects encode."""
    input: InputConfig
    prepare: PrepareConfig
    metrics: tuple[str, ...]
    names: ModelNames
    max_clips: int | None
    device: str


def measure_shard(spec: ShardSpec, work: Work) -> list[ClipValues]:
    """The values of every clip of the shard, in source order: a reject has one row, a clip one for each subject and
    number of quantizers.
    """
    rows: list[ClipValues] = []
    codes = _codes_of(spec, work) if work.dataset is not None else None
    for raw in _chosen(read_shard(spec, work.input), spec, work.max_clips):
        for subject in work.subjects:
            prepared = _prepare(raw, subject, work.prepare)
            if isinstance(prepared, Reject):
                rows.append(_rejected(spec, prepared))
                break
            rows.extend(_measure_clip(spec, prepared, subject, work, codes))
    return rows


def hear_clips(
    spec: ShardSpec, work: Work, subject: Subject, wanted: str, num_quantizers: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The clip with this id and what the subject makes of it; nothing where it cannot be had any more."""
    for raw in read_shard(spec, work.input):
        if clip_id(spec.shard_id, raw.origin) != wanted:
            continue
        clip = _prepare(raw, subject, work.prepare)
        if isinstance(clip, Clip):
            codes = _codes_of(spec, work) if work.dataset is not None else None
            for count, decoded in _decoded(wanted, clip, subject, work, codes):
                if count == num_quantizers:
                    yield clip.waveform, decoded
        return


def _chosen(clips: Iterator[RawClip | Reject], spec: ShardSpec, most: int | None) -> Iterable[RawClip | Reject]:
    """All clips, or the first `most` of a shard whose clips are not counted, or `most` of them evenly spaced."""
    if most is None or (spec.clips is not None and spec.clips <= most):
        return clips
    if spec.clips is None:
        return (clip for clip in clips if clip.origin.index < most)
    positions = {index * spec.clips // most for index in range(most)}
    return (clip for clip in clips if clip.origin.index in positions)


def _prepare(raw: RawClip | Reject, subject: Subject, config: PrepareConfig) -> Clip | Reject:
    """The clip whole: `config.max_seconds` bounds how long it is."""
    if isinstance(raw, Reject):
        return raw
    parts: list[np.ndarray] = []
    for item in prepare_clip(raw, config, subject.target):
        if isinstance(item, ClipPart):
            parts.append(item.waveform)
        elif isinstance(item, ClipEnd):
            return Clip(item.info, np.concatenate(parts, axis=1))
        else:
            return item
    raise AssertionError("prepare_clip ends every clip")


def _rejected(spec: ShardSpec, reject: Reject) -> ClipValues:
    origin = reject.origin
    return ClipValues(
        id=clip_id(spec.shard_id, origin), source=origin.source, key=origin.key, reject_reason=reject.reason
    )


def _measure_clip(
    spec: ShardSpec, clip: Clip, subject: Subject, work: Work, codes: dict[str, Coded] | None
) -> Iterator[ClipValues]:
    info, about = clip.info, subject.description
    name = clip_id(spec.shard_id, info.origin)
    text = ClipText(info.description.text, info.description.language)
    for count, decoded in _decoded(name, clip, subject, work, codes):
        with one_thread():
            pair = comparable(clip.waveform, about.sample_rate, decoded, about.output_rate)
            values, undefined = _values(*pair, text, work)
        yield ClipValues(
            id=name,
            source=info.origin.source,
            key=info.origin.key,
            language=text.language,
            duration=info.num_samples / about.sample_rate,
            subject=subject.label,
            num_quantizers=count,
            bits_per_second=subject.bits_per_second(count),
            values=values,
            undefined=undefined,
        )


def _decoded(
    name: str, clip: Clip, subject: Subject, work: Work, codes: dict[str, Coded] | None
) -> Iterator[tuple[int, np.ndarray]]:
    codec = _codec(subject, work.device)
    if codes is None:
        yield from decoded_with_each(codec, clip.waveform, subject.num_quantizers)
        return
    for count in subject.num_quantizers:
        (sound,) = codec.decode([first_layers(codes[name], count)], [clip.info.num_samples])
        yield count, sound


def _values(
    reference: Waveform, decoded: Waveform, text: ClipText, work: Work
) -> tuple[dict[str, float], dict[str, str]]:
    values: dict[str, float] = {}
    undefined: dict[str, str] = {}
    for name in work.metrics:
        try:
            if name in METRICS:
                values[name] = METRICS[name].measure(reference, decoded)
            else:
                values[name] = MODEL_METRICS[name].measure(reference, decoded, text, work.names)
        except UndefinedMetric as error:
            undefined[name] = str(error)
    return values, undefined


def _codes_of(spec: ShardSpec, work: Work) -> dict[str, Coded]:
    """The codes of a committed shard by the ids of its rows."""
    assert work.dataset is not None
    _, rows = select_rows(read_output(work.dataset), RowQuery(shards=(spec.shard_id,)))
    return {row.clip_id: Coded(row.codes) for row in rows}


@cache
def _codec(subject: Subject, device: str) -> Codec:
    """Loaded once in a process."""
    return load_subject(subject, device)
