"""One shard of an evaluation: every clip decoded with every subject and number of quantizers, and measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from pipeline.codecs import Codec, Coded
from pipeline.codecs.machine import Machine, describe_machine, name_machine
from pipeline.config import PrepareConfig
from pipeline.dataset.dataset import read_output
from pipeline.dataset.manifest import read_manifest
from pipeline.evaluate.agreement import Made, compare
from pipeline.evaluate.metrics import METRICS, UndefinedMetric, Waveform, comparable
from pipeline.evaluate.models import MODEL_METRICS, ClipText, ModelNames
from pipeline.evaluate.results import ClipValues
from pipeline.evaluate.subjects import Subject, decoded_with_each, encoded, load_subject
from pipeline.evaluate.threads import one_thread
from pipeline.input_config import InputConfig
from pipeline.items import Clip, ClipEnd, ClipPart, Origin, RawClip, Reject, ShardSpec
from pipeline.loading.rows import Row, RowQuery, select_rows
from pipeline.steps.prepare import prepare_clip
from pipeline.steps.read import read_shard
from pipeline.steps.records import clip_id

NO_CODES = "no_codes"
"""Why a clip of an output is rejected: it has no codes there, or its source has another length now."""


@dataclass(frozen=True, slots=True)
class Work:
    """What every shard of an evaluation shares; travels to worker processes."""

    subjects: tuple[Subject, ...]
    input: InputConfig
    prepare: PrepareConfig
    metrics: tuple[str, ...]
    names: ModelNames
    max_clips: int | None
    device: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The codes that an output holds of a shard."""

    rows: Mapping[str, Row]
    """By clip id."""
    machine: Machine
    """What made them."""


def measure_shard(spec: ShardSpec, work: Work) -> list[ClipValues]:
    """The values of every clip of the shard, in source order: a reject has one row, a clip one for each subject and
    number of quantizers.
    """
    stored = {subject: _stored(spec, subject) for subject in work.subjects}
    rows: list[ClipValues] = []
    for raw in _chosen(read_shard(spec, work.input), spec, work.max_clips):
        rows.extend(_measure_clip(spec, raw, work, stored))
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
            coded = _coded(wanted, clip, subject, work.device, _stored(spec, subject))
            if coded is not None:
                codec = _codec(subject, work.device)
                for _, sound in decoded_with_each(codec, coded, clip.info.num_samples, [num_quantizers]):
                    yield clip.waveform, sound
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


def _measure_clip(
    spec: ShardSpec, raw: RawClip | Reject, work: Work, stored: Mapping[Subject, Stored | None]
) -> list[ClipValues]:
    """Its rows: one alone, without a subject, where any subject cannot have the clip."""
    name = clip_id(spec.shard_id, raw.origin)
    rows: list[ClipValues] = []
    references: dict[tuple[str, int], Made] = {}
    """What the first subject of each model made, by number of quantizers."""
    for subject in work.subjects:
        clip = _prepare(raw, subject, work.prepare)
        if isinstance(clip, Reject):
            return [_rejected(name, raw.origin, clip.reason)]
        codes = stored[subject]
        coded = _coded(name, clip, subject, work.device, codes)
        if coded is None:
            return [_rejected(name, raw.origin, NO_CODES)]
        codec = _codec(subject, work.device)
        machine = name_machine(codes.machine if codes else describe_machine(codec, work.device))
        for row, made in _measure_subject(name, clip, subject, work, codec, coded):
            reference = references.setdefault((subject.config_hash, len(made.codes)), made)
            agreement = None if reference is made else compare(reference, made)
            rows.append(replace(row, machine=machine, agreement=agreement))
    return rows


def _rejected(name: str, origin: Origin, reason: str) -> ClipValues:
    return ClipValues(id=name, source=origin.source, key=origin.key, reject_reason=reason)


def _measure_subject(
    name: str, clip: Clip, subject: Subject, work: Work, codec: Codec, coded: Coded
) -> Iterator[tuple[ClipValues, Made]]:
    info, about = clip.info, subject.description
    text = ClipText(info.description.text, info.description.language)
    for count, (first, sound) in zip(
        subject.num_quantizers, decoded_with_each(codec, coded, info.num_samples, subject.num_quantizers), strict=True
    ):
        with one_thread():
            reference, decoded = comparable(clip.waveform, about.sample_rate, sound, about.output_rate)
            values, undefined = _values(reference, decoded, text, work)
        row = ClipValues(
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
        yield row, Made(subject.label, first.codes, decoded)


def _coded(name: str, clip: Clip, subject: Subject, device: str, stored: Stored | None) -> Coded | None:
    """The codes of a clip, made here or read; None where the output has none of this clip as it is now."""
    if stored is None:
        return encoded(_codec(subject, device), clip.waveform, max(subject.num_quantizers))
    row = stored.rows.get(name)
    if row is None or row.num_samples != clip.info.num_samples:
        return None
    return Coded(row.codes, row.scales)


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


def _stored(spec: ShardSpec, subject: Subject) -> Stored | None:
    """What the subject's output holds of a committed shard; None for a subject that encodes."""
    if subject.output is None:
        return None
    output = read_output(subject.output)
    _, rows = select_rows(output, RowQuery(shards=(spec.shard_id,)))
    machine = read_manifest(output.layout, spec.shard_id).machine
    return Stored({row.clip_id: row for row in rows}, machine)


@cache
def _codec(subject: Subject, device: str) -> Codec:
    """Loaded once in a process."""
    return load_subject(subject, device)
