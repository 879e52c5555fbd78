"""What the bytes of a file say it is: the container, which decoder reads it, and how much audio it declares.

Only the signature counts, never the name, and only formats of a closed list are opened: the guessing of FFmpeg would
also accept playlists that point at other files. Declared lengths are claims. They are used to find files that were cut,
and every format declares them in its own way (see `Container.declared`).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from io import BufferedIOBase

from moss_tok.audio.limits import AudioError
from moss_tok.audio.ogg_mpeg_flac import (
    MpegFrame,
    after_id3,
    check_flac_end,
    check_flac_is_alone,
    count_mpeg_frames,
    mpeg_frame,
    walk_ogg,
)
from moss_tok.audio.riff_mp4 import check_caf, check_matroska, check_mp4, check_wave64, walk_wav

_WAV_TAGS = frozenset({0x01, 0x02, 0x03, 0x06, 0x07, 0x11, 0x31, 0xFFFE})  # what libsndfile decodes


@dataclass(frozen=True, slots=True)
class Container:
    """A recognised file.

    `demuxer` is FFmpeg's name for the format, or None if libsndfile reads it. `declared` is the number of samples per
    channel that an intact file gives at least by its own account, or None if it gives none; it counts at
    `declared_rate` Hz, or at the stream's own rate if that is None. If that is `exact`, what follows is padding and
    no audio. `start` is the byte where the format begins, after ID3 tags.
    """

    format: str
    demuxer: str | None = None
    declared: int | None = None
    declared_rate: int | None = None
    start: int = 0
    exact: bool = False


_PYAV_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (rb"FORM....AIF[FC]", "aiff", "aiff"),
    (rb"\.snd", "au", "au"),
    (rb"wvpk", "wavpack", "wv"),
    (rb"TTA1", "tta", "tta"),
    (rb"#!AMR", "amr", "amr"),
    (rb"NIST_1A", "nist", "nistsphere"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf", "asf"),
)


def identify(file: BufferedIOBase, name: str | None = None) -> Container:
    """Recognise the container of a seekable file by its signature.

    Args:
        name: the clip's name or key. Only its suffix is looked at, and only for G.722, which has no signature.

    Raises:
        AudioError: empty, not_audio, or truncated where the structure already shows it.
    """
    size = file.seek(0, 2)
    if size == 0:
        raise AudioError("empty", "the clip has 0 bytes; an audio file is expected")
    head = _at(file, 0, 64)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        wav = walk_wav(file)
        believed = wav.tag in _WAV_TAGS and not wav.says_empty  # libsndfile reads nothing where the size says 0
        return Container("wav", None if believed else "wav", wav.num_samples, exact=wav.num_samples is not None)
    if head[:4] == b"OggS":
        return _ogg(file, size)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        check_mp4(file)
        brand = head[8:12] if head[4:8] == b"ftyp" else b"qt  "
        return Container({b"M4A ": "m4a", b"M4B ": "m4a", b"qt  ": "mov"}.get(brand, "mp4"), "mov")
    if head[:4] == b"\x1a\x45\xdf\xa3":
        check_matroska(file)
        return Container("webm" if b"webm" in head else "matroska", "matroska")
    if head[:4] == b"caff":
        check_caf(file)
        return Container("caf", "caf")
    if head[:8] == b"riff\x2e\x91\xcf\x11":
        check_wave64(file)
        return Container("w64", "w64")
    start = after_id3(file, 0)
    behind = _at(file, start, 64)
    if behind[:4] == b"fLaC":
        return _flac(file, start)
    if _is_adts(behind):
        return Container("aac", "aac")
    if mpeg_frame(behind[:4]):
        return _mp3(file, start)
    for pattern, format_name, demuxer in _PYAV_SIGNATURES:
        if re.match(pattern, head, re.DOTALL):
            return Container(format_name, demuxer)
    if name is not None and name.lower().endswith(".g722") and not _is_text(head):
        return Container("g722", "g722")
    kind = "text" if _is_text(head) else "other data"
    raise AudioError(  # without a byte of it: whoever names this file may not be one who may read it
        "not_audio",
        f"the first bytes are no audio signature but {kind}; read are WAV, FLAC, MP3, Ogg (Vorbis, Opus, FLAC, Speex), "
        "M4A/MP4, AAC, WebM/Matroska, AIFF, AU, CAF, W64, WavPack, TTA, AMR, WMA, NIST, and G.722 named *.g722",
    )


def _at(file: BufferedIOBase, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _is_text(head: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)


def _flac(file: BufferedIOBase, start: int) -> Container:
    """STREAMINFO ends in 36 bits of total samples; 0 means unknown, which is legal."""
    stream_info = _at(file, start + 8, 34)
    total = int.from_bytes(stream_info[10:18], "big") & (1 << 36) - 1
    if total:
        check_flac_end(file, stream_info)
    check_flac_is_alone(file, start)
    return Container("flac", declared=total or None, start=start)


def _ogg(file: BufferedIOBase, size: int) -> Container:
    """libsndfile reads Vorbis, but only the first link of a chain."""
    stream = walk_ogg(file, size)
    demuxer = None if stream.codec == "vorbis" and stream.links == 1 else "ogg"
    return Container("ogg", demuxer, stream.num_samples, stream.sample_rate)


def _is_adts(head: bytes) -> bool:
    return len(head) >= 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and (head[2] >> 2 & 15) < 13


def _mp3(file: BufferedIOBase, start: int) -> Container:
    """libsndfile if a Xing, Info or VBRI header counts the frames, FFmpeg if there is none or more frames follow.

    libsndfile stops at the length that the header states, or that it guesses from the first bit rate.
    """
    head = _at(file, start, 4096)
    first = mpeg_frame(head[:4])
    assert first is not None
    stated, trimmed = _mp3_length(head, first)
    found = count_mpeg_frames(file, start)
    if stated is None or found > stated + 2:  # the frame of the header itself, and a partial one
        return Container("mp3", "mp3", None if stated is None else found * first.num_samples - 4 * first.num_samples)
    return Container("mp3", declared=max(0, stated * first.num_samples - trimmed), start=start)


def _mp3_length(head: bytes, first: MpegFrame) -> tuple[int | None, int]:
    """The frames that the header in the first frame counts, None if there is none, and the samples that decoders
    trim."""
    tag = 4 + ((17 if first.mono else 32) if first.mpeg1 else (9 if first.mono else 17))
    unstated = 2 * first.num_samples  # decoders may drop the header's frame and the first one
    if head[tag : tag + 4] in (b"Xing", b"Info") and len(head) >= tag + 144:
        flags, frames = struct.unpack(">II", head[tag + 4 : tag + 12])
        if flags & 15 == 15 and head[tag + 120 : tag + 124].strip(b"\0"):  # LAME: 12 bits each, delay and padding
            delays = int.from_bytes(head[tag + 141 : tag + 144], "big")
            return frames, (delays >> 12) + (delays & 0xFFF)
        return frames if flags & 1 else None, unstated
    if head[36:40] == b"VBRI" and len(head) >= 54:
        return struct.unpack(">I", head[50:54])[0], unstated
    return None, 0
