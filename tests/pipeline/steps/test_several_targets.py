"""Preparing for several codecs: each gets what it would get alone, from one decoding where the clip is short."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from moss_tok import audio
from pipeline.config import LoudnessConfig, PrepareConfig
from pipeline.input_config import InputConfig
from pipeline.items import Clip, ClipEnd, ClipPart, Prepared, Reject
from pipeline.shard.chunks import FROM_THE_START, Resumption, prepare_shard
from pipeline.steps import clip_decoder
from pipeline.steps.plan import plan_shards
from pipeline.steps.prepare import Target

TARGETS = (
    Target(sample_rate=24_000, channels=1, samples_per_frame=1920),
    Target(sample_rate=24_000, channels=1, samples_per_frame=1920, max_seconds=20.0),
    Target(sample_rate=24_000, channels=1, samples_per_frame=320),
    Target(sample_rate=48_000, channels=2, samples_per_frame=320),
)
"""The first two want the same waveform, the third that waveform with other frames, and the last two have long clips
of more than 26 and 13 seconds."""


ISOLATED = Resumption(first=2, isolated_clips=9)
LITTLE = 3_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """Clips that are short, cut, long for some targets and too long for one, and two parts of one file."""
    root = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(3)
    for name, seconds in {"a.wav": 1.3, "c.flac": 15.0, "d.wav": 28.0, "e.wav": 20.0}.items():
        sf.write(root / name, 0.1 * random.standard_normal((round(seconds * 16_000), 2)), 16_000)
    (root / "b.wav").write_bytes((corpus / "folder" / "broken" / "truncated-wav.wav").read_bytes())
    parts = [{"offset": 2.0, "duration": 21.0}, {"offset": 1.0, "duration": 0.5}, {"offset": 27.0, "duration": 5.0}]
    records: list[dict[str, Any]] = [{"audio": name} for name in ("a.wav", "b.wav", "c.flac", "d.wav", "e.wav")]
    lines = [json.dumps(record) for record in [*records, *({"audio": "d.wav", **part} for part in parts)]]
    (root / "list.jsonl").write_text("\n".join(lines))
    return root


def prepared(
    folder: Path, targets: tuple[Target, ...], resumption: Resumption = FROM_THE_START, **options: Any
) -> list[list[Prepared]]:
    """What becomes of the clips for each target."""
    config = InputConfig(splits={"train": (str(folder / "list.jsonl"),)})
    (spec,) = plan_shards(config)
    chunks = list(prepare_shard(spec, config, PrepareConfig(**options), targets, resumption))
    ends = [[sum(not isinstance(item, ClipPart) for item in items) for items in chunk.items] for chunk in chunks]
    assert all(len(set(counts)) == 1 for counts in ends), "a clip ends for all targets in one chunk"
    return [[item for chunk in chunks for item in chunk.items[position]] for position in range(len(targets))]


def comparable(items: list[Prepared]) -> Iterator[object]:
    for item in items:
        if isinstance(item, ClipPart):
            yield item.start, item.waveform.tobytes()
        elif isinstance(item, Clip):
            yield item.info, item.waveform.shape, item.waveform.tobytes()
        else:
            yield item


@pytest.mark.parametrize(
    ("options", "resumption", "kept"),
    [
        ({}, FROM_THE_START, clip_decoder.KEPT_BYTES),
        ({"loudness": LoudnessConfig()}, ISOLATED, clip_decoder.KEPT_BYTES),
        ({"min_seconds": 2.0}, FROM_THE_START, LITTLE),
        ({"loudness": LoudnessConfig()}, ISOLATED, LITTLE),
    ],
    ids=["all is kept", "isolated, loudness", "little is kept", "little is kept, isolated, loudness"],
)
def test_each_target_gets_what_it_gets_alone(
    folder: Path, options: dict[str, Any], resumption: Resumption, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_decoder, "KEPT_BYTES", kept)
    together = prepared(folder, TARGETS, resumption, **options)
    for target, items in zip(TARGETS, together, strict=True):
        (alone,) = prepared(folder, (target,), resumption, **options)
        assert list(comparable(items)) == list(comparable(alone))
    kinds = {type(item) for items in together for item in items}
    assert kinds == {Clip, ClipPart, ClipEnd, Reject}
    assert [item.reason for item in together[1] if isinstance(item, Reject)].count("too_long") == 2


def test_a_clip_is_decoded_and_resampled_once_unless_it_is_too_long_for_a_target(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    resampled: list[tuple[int, int]] = []
    decode, resampler = audio.decode_blocks, audio.StreamingResampler

    def decoding(data: Any, limits: Any, *, name: str) -> Any:
        decoded.append(name)
        return decode(data, limits, name=name)

    def resampling(source_rate: int, sample_rate: int, channels: int) -> Any:
        resampled.append((sample_rate, channels))
        return resampler(source_rate, sample_rate, channels)

    monkeypatch.setattr(audio, "decode_blocks", decoding)
    monkeypatch.setattr(audio, "StreamingResampler", resampling)
    items = prepared(folder, TARGETS)
    assert [decoded.count(name) for name in ("a.wav", "c.flac", "e.wav")] == [1, 1, 1]
    assert items[0][0] is items[1][0], "one waveform for two codecs"
    # Three targets want this. Once: three files and the short part. Twice: the file and the part that are too long for
    # one target. For each: the part that is not in its file.
    assert resampled.count((24_000, 1)) == 4 * 1 + 2 * 2 + 1 * 3
