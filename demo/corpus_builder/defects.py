"""Broken clips, made from prompts that the corpus does not otherwise hold; each must end as a reject."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from .audio import FLAC, WAV_16, WAV_FLOAT, decode, encode
from .clip import Clip, Original, Packing
from .originals import prompt

PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>The requested file was not found on this server.</p></body>
</html>
"""

EMPTY = "empty file: 0 bytes"
NOT_AUDIO = "not audio: an HTML page"
TRUNCATED_FLAC = "truncated FLAC: the last 40 % of the bytes are missing"
TRUNCATED_WAV = "truncated WAV: the header declares twice the samples that are there"
OVERSOLD_WAV = "WAV whose header declares ten times the samples that are there"
NAN = "float WAV with NaN samples"
EMPTY_BYTES = "empty bytes in the audio column"
NULL_BYTES = "null bytes in the audio column, and its path leads nowhere"


def break_clips(root: Path) -> Iterator[Clip]:
    """Every broken clip of the corpus, made from the packages unpacked below `root`."""
    flac = prompt(root, "fr", "vm-undeleted", "g722")
    wav = prompt(root, "es", "vm-undeleted", "g722")
    poisoned = prompt(root, "ru", "vm-undeleted", "wav")

    yield _made_up("folder", "empty", ".wav", b"", EMPTY)
    yield _made_up("folder", "page", ".wav", PAGE, NOT_AUDIO)
    yield _broken("folder", flac, "truncated-flac", ".flac", truncated_flac(flac), TRUNCATED_FLAC)
    yield _broken("folder", wav, "truncated-wav", ".wav", truncated_wav(wav), TRUNCATED_WAV)
    yield _broken("folder", poisoned, "nan", ".wav", wav_with_nan(poisoned), NAN)

    yield _made_up("webdataset", "empty", ".mp3", b"", EMPTY)
    yield _made_up("webdataset", "page", ".mp3", PAGE, NOT_AUDIO)
    yield _broken("webdataset", flac, "truncated-flac", ".flac", truncated_flac(flac), TRUNCATED_FLAC)
    yield _broken("webdataset", wav, "oversold-wav", ".wav", oversold_wav(wav), OVERSOLD_WAV)
    yield _broken("webdataset", poisoned, "nan", ".wav", wav_with_nan(poisoned), NAN)

    yield _made_up("parquet", "empty-bytes", ".wav", b"", EMPTY_BYTES)
    yield replace(_made_up("parquet", "null-bytes", ".wav", b"", NULL_BYTES), data=None)
    yield _made_up("parquet", "page", ".wav", PAGE, NOT_AUDIO)
    yield _broken("parquet", flac, "truncated-flac", ".flac", truncated_flac(flac), TRUNCATED_FLAC)
    yield _broken("parquet", poisoned, "nan", ".wav", wav_with_nan(poisoned), NAN)


def truncated_flac(original: Original) -> bytes:
    """A FLAC file without the last 40 % of its bytes, as an upload that broke off leaves it."""
    waveform, sample_rate = decode(original.data, original.suffix)
    whole = encode(waveform, sample_rate, FLAC, sample_rate)
    return whole[: len(whole) * 6 // 10]


def truncated_wav(original: Original) -> bytes:
    """A WAV file whose second half of samples is missing while the header still promises it."""
    waveform, sample_rate = decode(original.data, original.suffix)
    whole = encode(waveform, sample_rate, WAV_16, sample_rate)
    return whole[: len(whole) - waveform.shape[1] // 2 * 2]


def oversold_wav(original: Original) -> bytes:
    """A WAV file that is whole, but whose RIFF and data sizes promise ten times the samples."""
    waveform, sample_rate = decode(original.data, original.suffix)
    whole = bytearray(encode(waveform, sample_rate, WAV_16, sample_rate))
    promised = waveform.shape[1] * 2 * 10
    start = whole.index(b"data") + 4
    struct.pack_into("<I", whole, start, promised)
    struct.pack_into("<I", whole, 4, start - 4 + promised)
    return bytes(whole)


def wav_with_nan(original: Original) -> bytes:
    """A float WAV file with 100 NaN samples in its middle."""
    waveform, sample_rate = decode(original.data, original.suffix)
    whole = bytearray(encode(waveform, sample_rate, WAV_FLOAT, sample_rate))
    middle = whole.index(b"data") + 8 + waveform.shape[1] // 2 * 4
    whole[middle : middle + 400] = np.full(100, np.nan, dtype="<f4").tobytes()
    return bytes(whole)


def _broken(packing: Packing, original: Original, name: str, suffix: str, data: bytes, defect: str) -> Clip:
    return Clip(
        packing=packing,
        stem=f"broken/{name}",
        suffix=suffix,
        data=data,
        text=original.text,
        language=original.language,
        speaker=original.speaker,
        labels=(),
        license=original.license,
        copyright=original.copyright,
        origin=original.origin,
        changes=f"decoded, stored as {suffix} and broken on purpose: {defect}",
        defect=defect,
    )


def _made_up(packing: Packing, name: str, suffix: str, data: bytes, defect: str) -> Clip:
    return Clip(
        packing=packing,
        stem=f"broken/{name}",
        suffix=suffix,
        data=data,
        text=None,
        language=None,
        speaker=None,
        labels=(),
        license="Apache-2.0",
        copyright="this project",
        origin="made by demo/build_corpus.py",
        changes="none",
        defect=defect,
    )
