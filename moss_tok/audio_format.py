"""What a file's own bytes say it is: the container, who reads it, and how much audio it declares.

Only the signature counts, never a name, and only formats of a closed list are opened: FFmpeg's own guessing would
also accept playlists that point at other files. Declared lengths are claims, used to find files that were cut; every
format hides that in its own way (see `Container.declared`).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from moss_tok.audio_limits import AudioError

_MAX_CHUNKS = 1_000_000  # a file of empty chunks must not keep the walk busy for minutes
_WAV_SLACK = 64  # writers that count their own 44-byte header as data are common
_WAV_TAGS = frozenset({0x01, 0x02, 0x03, 0x06, 0x07, 0x11, 0x31, 0xFFFE})  # what libsndfile decodes
_OFFSET_START = 60  # s; an Ogg stream whose first page is later than this was recorded mid-broadcast


@dataclass(frozen=True, slots=True)
class Container:
    """A recognised file.

    `demuxer` is FFmpeg's name for the format, or None where libsndfile reads it. `declared` is how many samples per
    channel, at `declared_rate` Hz (None: the stream's own), an intact file gives at least by its own headers; None where
    they promise nothing.
    """

    format: str
    demuxer: str | None = None
    declared: int | None = None
    declared_rate: int | None = None


_PYAV_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (rb"FORM....AIF[FC]", "aiff", "aiff"),
    (rb"\.snd", "au", "au"),
    (rb"caff", "caf", "caf"),
    (rb"riff\x2e\x91\xcf\x11", "w64", "w64"),
    (rb"wvpk", "wavpack", "wv"),
    (rb"TTA1", "tta", "tta"),
    (rb"#!AMR", "amr", "amr"),
    (rb"NIST_1A", "nist", "nistsphere"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf", "asf"),
)


def identify(file: BinaryIO, name: str | None = None) -> Container:
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
    start = _after_id3(file, head)
    head = _at(file, start, 64) if start else head
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _wav(file, size, head)
    if head[:4] == b"fLaC":
        return _flac(head)
    if head[:4] == b"OggS":
        return _ogg(file, size)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _mp4(file, size, head)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska(file, size, head)
    if _is_adts(head):
        return Container("aac", "aac")
    if _mpeg_frame(head) or (start and _mpeg_frame(head.lstrip(b"\0"))):
        return _mp3(_at(file, start, 4096))
    for pattern, format_name, demuxer in _PYAV_SIGNATURES:
        if re.match(pattern, head, re.DOTALL):
            return Container(format_name, demuxer)
    if name is not None and name.lower().endswith(".g722") and not _is_text(head):
        return Container("g722", "g722")
    shown = head[:12].decode("latin-1").encode("unicode_escape").decode("ascii")
    raise AudioError(
        "not_audio",
        f"the first bytes are {shown!r}, no audio signature; read are WAV, FLAC, MP3, Ogg (Vorbis, Opus, FLAC, Speex), "
        "M4A/MP4, AAC, WebM/Matroska, AIFF, AU, CAF, W64, WavPack, TTA, AMR, WMA, NIST, and G.722 named *.g722",
    )


def _at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _is_text(head: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)


def _after_id3(file: BinaryIO, head: bytes) -> int:
    """The offset behind ID3v2 tags (10-byte header, 28-bit length in bytes of 7 bits), 0 without one."""
    offset = 0
    while head[:3] == b"ID3" and len(head) >= 10:
        length = 0
        for byte in head[6:10]:
            length = length << 7 | byte & 0x7F
        offset += 10 + length + (10 if head[5] & 0x10 else 0)
        head = _at(file, offset, 64)
    return offset


def _truncated(what: str, declared: int, present: int) -> AudioError:
    return AudioError("truncated", f"{what} declares {declared} bytes and the file has {present} of them: it was cut")


def _wav(file: BinaryIO, size: int, head: bytes) -> Container:
    """Walk the chunks to `data`. A size of 0 or the largest of its kind is what writers to a pipe leave: legal."""
    order = ">" if head[:4] == b"RIFX" else "<"
    riff_size = struct.unpack(order + "I", head[4:8])[0]
    offset, tag, data_size64 = 12, None, None
    for _ in range(_MAX_CHUNKS):
        header = _at(file, offset, 8)
        if len(header) < 8:
            break
        chunk, length = header[:4], struct.unpack(order + "I", header[4:])[0]
        offset += 8
        if chunk == b"fmt ":
            tag = struct.unpack(order + "H", _at(file, offset, 2).ljust(2, b"\0"))[0]
        elif chunk == b"ds64":
            data_size64 = struct.unpack("<Q", _at(file, offset + 8, 8).ljust(8, b"\0"))[0]
        elif chunk == b"data":
            if length == 0xFFFFFFFF and data_size64:
                length = data_size64
            streamed = 0x7FFFF000 <= length <= 0x80000000 or 0xFFFFF000 <= length <= 0xFFFFFFFF
            if not streamed and length > size - offset + _WAV_SLACK:
                raise _truncated("the WAV data chunk", length, size - offset)
            if length == 0 and riff_size + 8 == size:
                raise AudioError("no_samples", "the WAV data chunk is empty")
            return Container("wav", None if tag in _WAV_TAGS else "wav")
        offset += length + (length & 1)
    if riff_size + 8 > size:
        raise _truncated("the RIFF header", riff_size + 8, size)
    raise AudioError("no_samples", "the WAV file has no data chunk")


def _flac(head: bytes) -> Container:
    """STREAMINFO: 20 bits of sample rate, 3 of channels, 5 of sample size, 36 of total samples (0: unknown, legal)."""
    total = int.from_bytes(head[18:26], "big") & (1 << 36) - 1
    return Container("flac", declared=total or None)


def _ogg(file: BinaryIO, size: int) -> Container:
    """Walk all pages (RFC 3533): sequence numbers without a gap, an end-of-stream page, and the last granule."""
    offset, codec, serial, rate = 0, b"", None, None
    preskip, declared, expected, ended, positioned = 0, 0, 0, True, False
    granule, skipped_start = 0, False
    while offset + 27 <= size:
        header = _at(file, offset, 27)
        if header[:4] != b"OggS":
            break
        flags, position, page_serial, sequence = struct.unpack("<xxxxxBqII", header[:22])
        lacing = file.read(header[26])
        body = sum(lacing)
        if len(lacing) < header[26] or offset + 27 + len(lacing) + body > size:
            raise AudioError(
                "truncated", f"the Ogg page at byte {offset} of {size} goes beyond the file's end: it was cut"
            )
        found = _ogg_codec(file.read(min(body, 64))) if flags & 2 else None
        if found and ended:  # the first audio stream, or the next link of a chain
            codec, rate, preskip = found
            serial, expected, ended, positioned, granule = page_serial, sequence, False, False, 0
        if page_serial == serial and not ended:
            if sequence != expected:
                raise AudioError(
                    "truncated", f"Ogg page {expected} is missing: page {sequence} follows at byte {offset}"
                )
            expected += 1
            if position > 0:
                skipped_start |= not positioned and position > _OFFSET_START * (rate or 48_000)
                positioned, granule = True, position
            if flags & 4:
                ended, declared = True, declared + max(0, granule - preskip)
        offset += 27 + len(lacing) + body
    if serial is None:
        raise AudioError("no_audio_stream", "the Ogg file holds no Vorbis, Opus, FLAC or Speex stream")
    if not ended:
        raise AudioError("truncated", "the Ogg stream has no end-of-stream page: it was cut")
    return Container(
        "ogg",
        None if codec == b"vorbis" else "ogg",
        None if skipped_start or codec == b"speex" else declared,
        48_000 if codec == b"opus" else None,
    )


def _ogg_codec(packet: bytes) -> tuple[bytes, int | None, int] | None:
    """Codec, granule rate (None: unknown) and pre-skip of a first packet, None where it is not audio."""
    if packet[:7] == b"\x01vorbis" and len(packet) >= 16:
        return b"vorbis", struct.unpack("<I", packet[12:16])[0], 0
    if packet[:8] == b"OpusHead" and len(packet) >= 12:
        return b"opus", 48_000, struct.unpack("<H", packet[10:12])[0]
    if packet[:5] == b"\x7fFLAC":
        return b"flac", None, 0
    if packet[:8] == b"Speex   ":
        return b"speex", None, 0
    return None


def _mp4(file: BinaryIO, size: int, head: bytes) -> Container:
    """Walk the top-level boxes: one that goes beyond the file, or no `moov`, is a cut file."""
    offset, has_index = 0, False
    for _ in range(_MAX_CHUNKS):
        header = _at(file, offset, 16)
        if len(header) < 8:
            break
        length, kind = struct.unpack(">I4s", header[:8])
        if length == 1 and len(header) == 16:
            length = struct.unpack(">Q", header[8:])[0]
        has_index |= kind == b"moov"
        if length < 8:  # 0: up to the end of the file; less than its own header: FFmpeg will judge
            break
        if offset + length > size:
            raise _truncated(f"the MP4 box {kind!r}", length, size - offset)
        offset += length
    if not has_index:
        raise AudioError("truncated", "the MP4 file has no 'moov' box, the index of its samples: it was cut")
    brand = head[8:12] if head[4:8] == b"ftyp" else b"qt  "
    name = {b"M4A ": "m4a", b"M4B ": "m4a", b"qt  ": "mov"}.get(brand, "mp4")
    return Container(name, "mov")


def _matroska(file: BinaryIO, size: int, head: bytes) -> Container:
    """EBML header, then the Segment; a Segment of unknown size (all ones) is how live streams are written."""
    length, used = _ebml_size(head[4:])
    offset = 4 + used + length
    segment = _at(file, offset, 12)
    if segment[:4] == b"\x18\x53\x80\x67":
        length, used = _ebml_size(segment[4:])
        if length != (1 << 7 * used) - 1 and offset + 4 + used + length > size:
            raise _truncated("the Matroska segment", length, size - offset - 4 - used)
    return Container("webm" if b"webm" in head else "matroska", "matroska")


def _ebml_size(data: bytes) -> tuple[int, int]:
    """An EBML variable-length size and the bytes that it takes (RFC 8794, section 4)."""
    used = 9 - data[0].bit_length() if data and data[0] else 8
    return int.from_bytes(data[:used], "big") & (1 << 7 * used) - 1, used


def _is_adts(head: bytes) -> bool:
    return len(head) >= 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and (head[2] >> 2 & 15) < 13


def _mpeg_frame(head: bytes) -> bool:
    """Whether an MPEG audio frame header stands here: sync, a known version, layer, bit rate and sample rate."""
    return (
        len(head) >= 4
        and head[0] == 0xFF
        and head[1] & 0xE0 == 0xE0
        and head[1] >> 3 & 3 != 1
        and head[1] >> 1 & 3 != 0
        and head[2] >> 4 != 15
        and head[2] >> 2 & 3 != 3
    )


def _mp3(frame: bytes) -> Container:
    """The frame count of a Xing, Info or VBRI header in the first frame. Without one a cut MP3 cannot be told."""
    frame = frame.lstrip(b"\0")
    mpeg1, mono = frame[1] >> 3 & 3 == 3, frame[3] >> 6 == 3
    per_frame = 1152 if mpeg1 else 576
    tag = 4 + ((17 if mono else 32) if mpeg1 else (9 if mono else 17))
    frames, trimmed = None, 2 * per_frame  # decoders may drop the tag's frame and the first one
    if frame[tag : tag + 4] in (b"Xing", b"Info") and len(frame) >= tag + 144:
        flags, count = struct.unpack(">II", frame[tag + 4 : tag + 12])
        frames = count if flags & 1 else None
        if flags & 15 == 15 and frame[tag + 120 : tag + 124].strip(b"\0"):  # LAME: 12 bits each, delay and padding
            delays = int.from_bytes(frame[tag + 141 : tag + 144], "big")
            trimmed = (delays >> 12) + (delays & 0xFFF)
    elif frame[36:40] == b"VBRI" and len(frame) >= 54:
        frames = struct.unpack(">I", frame[50:54])[0]
    return Container("mp3", declared=None if frames is None else max(0, frames * per_frame - trimmed))
