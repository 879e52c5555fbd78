"""Preparing: what reaches the encoder is right, and whatever is wrong with a clip is its reject."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import xxhash

from moss_tok import audio
from pipeline.config import PrepareConfig
from pipeline.items import Clip, Description, Origin, RawClip, Reject
from pipeline.steps import prepare
from pipeline.steps.prepare import Target, prepare_clip
from pipeline.steps.reject_reasons import PREPARE_REASONS

MONO = Target(sample_rate=24_000, channels=1, samples_per_frame=1920)
STEREO = Target(sample_rate=48_000, channels=2, samples_per_frame=3840)
ORIGIN = Origin(index=3, source="folder/a.wav", key="a")
DESCRIPTION = Description(text="hello", speaker_id="1", metadata={"take": 2})


def raw_of(data: bytes, name: str = "a.wav") -> RawClip:
    return RawClip(origin=ORIGIN, name=name, data=data, description=DESCRIPTION)


def float_wav(samples: Any, rate: int = 24_000) -> bytes:
    sink = io.BytesIO()
    sf.write(sink, np.asarray(samples, np.float32), rate, format="WAV", subtype="FLOAT")
    return sink.getvalue()


def prepared(data: bytes, target: Target = MONO, **options: Any) -> Clip:
    (clip,) = prepare_clip(raw_of(data), PrepareConfig(**options), target)
    assert isinstance(clip, Clip), clip
    return clip


def rejected(data: bytes, **options: Any) -> Reject:
    (reject,) = prepare_clip(raw_of(data), PrepareConfig(**options), MONO)
    assert isinstance(reject, Reject), reject
    assert (reject.origin, reject.stage) == (ORIGIN, "prepare")
    assert reject.message
    return reject


@pytest.mark.parametrize("packing", ["folder", "webdataset", "parquet"])
def test_each_clip_of_the_corpus_is_what_the_inventory_says(
    corpus: Path, inventory: list[dict[str, Any]], read_all: Callable[..., Any], packing: str
) -> None:
    entries = {entry["key"]: entry for entry in inventory if entry["packing"] == packing}
    raw_clips = read_all(corpus / packing / ("manifest.jsonl" if packing == "folder" else ""))
    assert len(raw_clips) == len(entries)
    for raw in raw_clips:
        entry = entries[raw.origin.key]
        (item,) = [raw] if isinstance(raw, Reject) else prepare_clip(raw, PrepareConfig(), MONO)
        if entry["expected"] == "reject":
            assert isinstance(item, Reject), entry
            assert item.reason in {*audio.REASONS, "no_audio"}
            continue
        assert isinstance(item, Clip), (entry, item)
        assert (item.info.source_sample_rate, item.info.source_channels) == (entry["sample_rate"], entry["channels"])
        assert item.info.num_samples / 24_000 == pytest.approx(entry["seconds"], abs=0.06)
        assert item.waveform.dtype == np.float32
        assert item.waveform.flags.c_contiguous
        assert item.waveform.shape == (1, item.info.num_samples)
        assert 0 < item.info.rms <= item.info.peak < 2


def test_every_reason_to_reject_is_documented_once() -> None:
    assert not PREPARE_REASONS.keys() & audio.REASONS.keys()


def test_a_waveform_at_the_models_rate_is_not_touched() -> None:
    samples = np.sin(np.arange(5000)).astype(np.float32) * 0.3
    assert np.array_equal(prepared(float_wav(samples)).waveform, samples[None])


def test_stereo_is_mixed_to_mono_by_its_mean_and_mono_fills_both_sides() -> None:
    left, right = np.full(4800, 0.5, np.float32), np.full(4800, -0.25, np.float32)
    clip = prepared(float_wav(np.stack([left, right], 1)))
    assert np.array_equal(clip.waveform, np.full((1, 4800), 0.125, np.float32))
    assert clip.info.source_channels == 2
    clip = prepared(float_wav(left, 48_000), STEREO)
    assert np.array_equal(clip.waveform, np.stack([left, left]))
    assert clip.info.num_samples == 4800


@pytest.mark.parametrize(
    ("rate", "samples", "expected"), [(48_000, 48_001, 24_001), (16_000, 1, 2), (44_100, 44_100, 24_000)]
)
def test_other_rates_are_resampled_to_the_models(rate: int, samples: int, expected: int) -> None:
    time = np.arange(samples) / rate
    clip = prepared(float_wav(0.5 * np.sin(2 * np.pi * 440 * time), rate))
    assert clip.info.num_samples == expected == clip.waveform.shape[1]
    assert clip.info.source_sample_rate == rate
    if samples > 1000:
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(expected) / 24_000)
        assert np.abs(clip.waveform[0] - tone)[500:-500].max() < 1e-3


def test_statistics_of_a_known_signal() -> None:
    samples = np.zeros(1000, np.float32)
    samples[:100] = 1.0
    samples[100:200] = -0.5
    samples[200] = 0.0011
    info = prepared(float_wav(samples)).info
    assert info.peak == 1.0
    assert info.rms == pytest.approx(np.sqrt((100 + 25) / 1000), rel=1e-5)
    assert info.clipping == pytest.approx(0.1)
    assert info.silence == pytest.approx(0.799)
    assert info.audio_xxh3 == xxhash.xxh3_128_hexdigest(samples.astype("<f4").tobytes())
    assert (info.source_format, info.source_codec) == ("wav", "float")
    assert (info.origin, info.description) == (ORIGIN, DESCRIPTION)


def test_the_hash_is_of_the_audio_and_not_of_its_coding() -> None:
    samples = (np.arange(4000) % 200 - 100).astype(np.float32) / 256
    packed = io.BytesIO()
    sf.write(packed, samples, 24_000, format="FLAC", subtype="PCM_16")
    same = prepared(packed.getvalue()).info.audio_xxh3
    assert same == prepared(float_wav(samples)).info.audio_xxh3
    samples[7] += 1 / 256
    assert same != prepared(float_wav(samples)).info.audio_xxh3


def test_silence_and_a_single_sample_are_clips() -> None:
    info = prepared(float_wav(np.zeros(100))).info
    assert (info.peak, info.rms, info.silence) == (0.0, 0.0, 1.0)
    assert prepared(float_wav([0.5])).info.num_samples == 1


def test_limits_of_length_are_inclusive_and_named(wav: Callable[..., bytes]) -> None:
    second = wav(1.0)
    assert prepared(second, min_seconds=1.0, max_seconds=1.0).info.num_samples == 24_000
    assert rejected(second, min_seconds=1.001).reason == "too_short"
    assert rejected(second, min_seconds=1.001).message == "1.000 s; prepare.min_seconds is 1.001"
    assert rejected(second, max_seconds=0.999).reason == "too_long"


def test_too_many_channels_are_refused(wav: Callable[..., bytes]) -> None:
    assert prepared(wav(channels=3), max_channels=3).info.source_channels == 3
    assert rejected(wav(channels=4), max_channels=3).reason == "too_many_channels"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html></html>" * 50, "not_audio"),
        (bytes(10_000), "not_audio"),
        (float_wav([]), "no_samples"),
        (float_wav([0.0, np.nan]), "non_finite"),
        (float_wav([0.0, -np.inf]), "non_finite"),
        (float_wav([1e38]), "bad_amplitude"),
        (float_wav(np.zeros(1000))[:-100], "truncated"),
        (float_wav(np.zeros(1000), 2_147_483_647), "bad_sample_rate"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used_has_a_reason(data: bytes, reason: str) -> None:
    assert rejected(data).reason == reason


@pytest.mark.parametrize("error", [RuntimeError("no luck \udcff"), MemoryError(), IndexError("7"), RecursionError()])
def test_whatever_happens_inside_decoding_is_the_clips_reject(
    monkeypatch: pytest.MonkeyPatch, wav: Callable[..., bytes], error: Exception
) -> None:
    def crash(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(prepare.audio, "to_channels", crash)
    reject = rejected(wav())
    assert reject.reason == "crashed"
    assert reject.message.startswith(type(error).__name__)
    reject.message.encode("utf-8")


def test_a_stop_request_is_not_swallowed(monkeypatch: pytest.MonkeyPatch, wav: Callable[..., bytes]) -> None:
    def interrupt(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare.audio, "decode_blocks", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(prepare_clip(raw_of(wav()), PrepareConfig(), MONO))


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (1919, 1), (1920, 1), (1921, 2), (24_000, 13)])
def test_a_started_frame_counts(samples: int, frames: int) -> None:
    assert MONO.frames(samples) == frames


def test_preparing_twice_gives_the_same_bits(corpus: Path) -> None:
    data = (
        corpus / "folder" / json.loads((corpus / "folder" / "manifest.jsonl").read_text().splitlines()[0])["audio"]
    ).read_bytes()
    first, second = prepared(data), prepared(data)
    assert first.info == second.info
    assert np.array_equal(first.waveform, second.waveform)
