"""Odd and hostile audio files, each with what must become of it: "row", or the reason of its reject."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf

from tests.moss_tok.audio_material import clip, encode_pyav, raw_wav, signal, with_flac_total, with_wav_data_size

MAX_SECONDS = 600.0
MAX_CLIP_BYTES = 4_000_000
GOOD = ("good-1.wav", "good-2.flac")


class Trap:
    """What unpickling this would leave behind shows that somebody did."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (SPRUNG,)


SPRUNG = "unpickled"


def floats(*values: float, rate: int = 16_000) -> bytes:
    samples = np.zeros(1_000, np.float32)
    samples[-len(values) :] = values
    return raw_wav(samples.tobytes(), tag=3, bits=32, rate=rate)


def half(name: str) -> bytes:
    whole = clip(name, 3.0)
    return whole[: len(whole) // 2]


def silence_as_flac(seconds: int) -> bytes:
    """At 8 kHz: an hour takes some ten kilobytes."""
    sink = io.BytesIO()
    with sf.SoundFile(sink, "w", 8_000, 1, subtype="PCM_16", format="FLAC") as sound:
        for _ in range(0, seconds, 600):
            sound.write(np.zeros(8_000 * min(600, seconds), np.int16))
    return sink.getvalue()


def flac_with_a_hole() -> bytes:
    flac = bytearray(clip("flac 16", 10.0))
    flac[len(flac) // 2 : len(flac) // 2 + 40] = bytes(40)
    return bytes(flac)


def long_clip(last: float) -> bytes:
    """400 s at 1 kHz: long enough to travel in parts."""
    samples = np.tile(signal(1_000, 1, 100.0)[0], 4)
    samples[-1] = last
    return raw_wav(samples.tobytes(), tag=3, bits=32, rate=1_000)


def archive() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Trap()))
    return sink.getvalue()


def error_document() -> bytes:
    return b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "good-1.wav": (lambda: clip("wav 16"), "row"),
    "good-2.flac": (lambda: clip("flac 24 stereo"), "row"),
    # What is not audio, whatever its name says.
    "empty.wav": (lambda: b"", "empty"),
    "one-byte.wav": (lambda: b"R", "not_audio"),
    "page.mp3": (lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>" + b" " * 5_000, "not_audio"),
    "store-error.flac": (error_document, "not_audio"),
    "zeros.wav": (lambda: bytes(10_000), "not_audio"),
    "noise.wav": (lambda: np.random.default_rng(0).bytes(10_000), "not_audio"),
    "playlist.mp3": (lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not_audio"),
    "concat.wav": (lambda: b"ffconcat version 1.0\nfile /etc/passwd\n", "not_audio"),
    "picture.wav": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), "not_audio"),
    "weights.pickle": (lambda: pickle.dumps(Trap()), "not_audio"),
    "weights.pt": (archive, "not_audio"),
    "module.pyd": (lambda: b"MZ" + bytes(1_000), "not_audio"),
    "lfs-pointer.wav": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "not_audio"),
    # Cut in the middle.
    "cut.wav": (lambda: half("wav 16"), "truncated"),
    "cut.flac": (lambda: half("flac 16"), "truncated"),
    "cut.mp3": (lambda: half("mp3"), "truncated"),
    "cut.ogg": (lambda: half("vorbis"), "truncated"),
    "cut.opus": (lambda: half("opus"), "truncated"),
    "cut.m4a": (lambda: half("m4a"), "truncated"),
    "cut.webm": (lambda: half("opus webm"), "truncated"),
    "cut.aiff": (lambda: half("aiff"), "truncated"),
    "cut.caf": (lambda: half("caf"), "truncated"),
    "cut.w64": (lambda: half("w64"), "truncated"),
    "header-only.wav": (lambda: clip("wav 16")[:44], "truncated"),
    # Headers that lie, and lengths.
    "size-beyond.wav": (lambda: with_wav_data_size(clip("wav 16"), 2**30), "truncated"),
    "size-unknown.wav": (lambda: with_wav_data_size(clip("wav 16"), 0xFFFFFFFF, 0xFFFFFFFF), "row"),
    "size-zero.wav": (lambda: with_wav_data_size(clip("wav 16"), 0, 0), "row"),
    "flac-256-GiB.flac": (lambda: with_flac_total(clip("flac 16"), 2**36 - 1), "truncated"),
    "flac-too-short.flac": (lambda: with_flac_total(clip("flac 16"), 100), "decode_error"),
    "flac-unknown.flac": (lambda: with_flac_total(clip("flac 16"), 0), "row"),
    "flac-hole.flac": (flac_with_a_hole, "decode_error"),
    "bomb.flac": (lambda: silence_as_flac(3_600), "too_long"),
    "bomb-unknown.flac": (lambda: with_flac_total(silence_as_flac(3_600), 0), "too_long"),
    "too-many-bytes.wav": (lambda: raw_wav(bytes(MAX_CLIP_BYTES)), "too_many_bytes"),
    "no-samples.wav": (lambda: raw_wav(b""), "no_samples"),
    "no-data.wav": (lambda: b"RIFF\x04\x00\x00\x00WAVE", "no_samples"),
    "one-sample.wav": (lambda: raw_wav(b"\x00\x20"), "row"),
    "long.wav": (lambda: long_clip(0.5), "row"),
    # Values, channels and rates.
    "nan.wav": (lambda: floats(np.nan), "non_finite"),
    "infinity.wav": (lambda: floats(-np.inf), "non_finite"),
    "long-nan.wav": (lambda: long_clip(np.nan), "non_finite"),
    "1e38.wav": (lambda: floats(1e38), "bad_amplitude"),
    "integers-as-floats.wav": (lambda: floats(-32_768.0), "bad_amplitude"),
    "denormal.wav": (lambda: floats(1e-42), "row"),
    "over-full-scale.wav": (lambda: floats(1.5, -1.5), "row"),
    "silence.wav": (lambda: floats(0.0), "row"),
    "channels-1024.wav": (lambda: raw_wav(bytes(20_480), channels=1_024), "too_many_channels"),
    "channels-33.wav": (lambda: raw_wav(bytes(6_600), channels=33), "too_many_channels"),
    "channels-32.wav": (lambda: raw_wav(bytes(6_400), channels=32), "row"),
    "channels-0.wav": (lambda: raw_wav(bytes(100), channels=0), "decode_error"),
    "rate-0.wav": (lambda: raw_wav(bytes(100), rate=0), "decode_error"),
    "rate-99.wav": (lambda: raw_wav(bytes(100), rate=99), "bad_sample_rate"),
    "rate-100.wav": (lambda: raw_wav(bytes(100), rate=100), "row"),
    "rate-768000.wav": (lambda: raw_wav(bytes(100_000), rate=768_000), "row"),
    "rate-prime.wav": (lambda: raw_wav(bytes(20_000), rate=23_981), "row"),
    "rate-2147483647.wav": (lambda: raw_wav(bytes(100), rate=2_147_483_647), "bad_sample_rate"),
    "coding-unknown.wav": (lambda: raw_wav(bytes(100), tag=0xABCD), "decode_error"),
    # Containers.
    "flac-inside.wav": (lambda: clip("flac 16"), "row"),
    "mp3-inside.flac": (lambda: clip("mp3"), "row"),
    "no-extension": (lambda: clip("m4a"), "row"),
    "id3.mp3": (lambda: b"ID3\x04\x00\x00\x00\x00\x7f\x7f" + bytes(16_383) + clip("mp3"), "row"),
    "no-index.m4a": (lambda: clip("m4a").replace(b"moov", b"free"), "truncated"),
    "no-audio.opus": (lambda: clip("opus").replace(b"OpusHead", b"OpusTail"), "no_audio_stream"),
    "changes.ogg": (lambda: clip("opus") + clip("vorbis"), "format_change"),
    "joined.mp3": (lambda: 2 * encode_pyav(signal(44_100, 1, 1.0), 44_100, "mp3", "libmp3lame"), "decode_error"),
    "adpcm.wav": (lambda: clip("ima adpcm"), "row"),
    "prompt.g722": (lambda: clip("g722"), "row"),
}

LINES: dict[bytes, str] = {
    b'{"audio": "gone.wav"}': "missing",
    b'{"audio": "."}': "missing",
    b'{"audio": "fifo.wav"}': "not_a_file",
    b'{"audio": "/dev/zero"}': "not_allowed",
    b'{"audio": "a\\u0000b.wav"}': "missing",
    b'{"audio": "gone\\ud800.wav"}': "missing",
    b'{"audio": "reference://::https://127.0.0.1/x"}': "bad_record",
    b'{"audio": 5}': "bad_record",
    b'{"audio": ""}': "bad_record",
    b'{"wave": "good-1.wav"}': "bad_record",
    b"[1, 2]": "bad_record",
    b'{"audio": "good-1.wav"': "bad_record",
    b'{"audio": "\xff\xfe.wav"}': "bad_record",
    b"[" * 100_000: "bad_record",
    b'{"audio": "good-1.wav", "note": "' + b"x" * 17_000_000 + b'"}': "bad_record",
    b'{"audio": "good-1.wav", "text": NaN, "labels": {"a": [Infinity]}, "speaker": "\\udfff"}': "row",
}


def write_files(folder: Path, names: tuple[str, ...] = tuple(FILES)) -> None:
    """The files and two manifests: `files.jsonl` of the files, `lines.jsonl` of LINES."""
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(FILES[name][0]())
    os.mkfifo(folder / "fifo.wav")
    (folder / "files.jsonl").write_text("".join(json.dumps({"audio": name}) + "\n" for name in names))
    (folder / "lines.jsonl").write_bytes(b"".join(line + b"\n" for line in LINES))
