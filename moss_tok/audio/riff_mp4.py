"""Containers of sized chunks. If a chunk claims more bytes than the file has, the file was cut.

RIFF/WAVE, CAF, Wave64, MP4 and Matroska all frame their content by sizes, and decoders stop at the end of the file
without a word.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BufferedIOBase

from moss_tok.audio.limits import AudioError

_MAX_CHUNKS = 1_000_000  # a file of empty chunks must not keep a walk busy for minutes
_WAV_SLACK = 64  # bytes that the data chunk alone may claim too many
_WAV_HEADER = 44  # bytes; writers that count their own header as data are common


_PLAIN_TAGS = (1, 3)  # integers and floats
_BLOCK_TAGS = (0x02, 0x11, 0x31)  # MS and IMA ADPCM, GSM 6.10: the last block is filled up with anything
_EXTENSIBLE = 0xFFFE
_WIDTHS = (1, 2, 3, 4, 8)  # bytes of a sample


@dataclass(frozen=True, slots=True)
class WavFile:
    """What a WAV file says of itself."""

    tag: int | None
    """Format tag; None without a `fmt ` chunk."""
    says_empty: bool
    """Whether the data chunk says 0 bytes though audio follows."""
    num_samples: int | None
    """Samples per channel without those that fill up the last block, where the coding has blocks and the file tells."""


def walk_wav(file: BufferedIOBase) -> WavFile:
    """Walk a RIFF, RIFX or RF64 file to its data chunk.

    A size of 0, or the largest of its kind, is what writers to a pipe leave: legal, and the audio is what follows.

    Raises:
        AudioError: truncated, no_samples, or decode_error where the header contradicts itself.
    """
    size = file.seek(0, 2)
    head = _at(file, 0, 12)
    order = ">" if head[:4] == b"RIFX" else "<"
    riff_size = struct.unpack(order + "I", head[4:8])[0] + 8
    offset, form, fact, data_size64 = 12, b"", 0, 0
    for _ in range(_MAX_CHUNKS):
        header = _at(file, offset, 8)
        if len(header) < 8:
            break
        chunk, length = header[:4], struct.unpack(order + "I", header[4:])[0]
        offset += 8
        if chunk == b"fmt ":
            form = _at(file, offset, min(length, 40))
        elif chunk == b"fact":
            fact = struct.unpack(order + "I", _at(file, offset, 4).ljust(4, b"\0"))[0]
        elif chunk == b"ds64":
            data_size64 = struct.unpack("<Q", _at(file, offset + 8, 8).ljust(8, b"\0"))[0]
        elif chunk == b"data":
            if length == 0xFFFFFFFF and data_size64:
                length = data_size64
            streamed = 0x7FFFF000 <= length <= 0x80000000 or 0xFFFFF000 <= length <= 0xFFFFFFFF
            missing = length - (size - offset)
            allowed = _WAV_SLACK if riff_size <= size else 0  # a cut is missed by both sizes, a miscount often by one
            if not streamed and missing > allowed and missing != _WAV_HEADER:
                raise _truncated("the WAV data chunk", length, size - offset)
            if length == 0 and not _audio_follows(_at(file, offset, 8), size - offset, order):
                raise AudioError("no_samples", "the WAV data chunk is empty")
            tag = _check_wav_format(form, order)
            present = size - offset if streamed or not length else min(length, size - offset)
            return WavFile(tag, length == 0, _wav_samples(tag, form, fact, present, order))
        offset += length + (length & 1)
    if riff_size > size:
        raise _truncated("the RIFF header", riff_size, size)
    raise AudioError("no_samples", "the WAV file has no data chunk")


def _check_wav_format(form: bytes, order: str) -> int | None:
    """The format tag. Raises AudioError where bits, bytes and channels cannot be right together.

    Decoders take the one or the other for granted: 24-bit samples read as 16-bit ones are noise at full scale.
    """
    if len(form) < 16:
        return struct.unpack(order + "H", form[:2])[0] if len(form) >= 2 else None
    tag, channels, rate, byte_rate, block, bits = struct.unpack(order + "HHIIHH", form[:16])
    coding = struct.unpack(order + "H", form[24:26])[0] if tag == _EXTENSIBLE and len(form) >= 26 else tag
    if coding not in _PLAIN_TAGS or not channels or not bits:
        return int(tag)
    width = (bits + 7) // 8
    others = {channels * other for other in _WIDTHS} - {channels * width}
    if block != channels * width or (rate and byte_rate % rate == 0 and byte_rate // rate in others):
        raise AudioError(
            "decode_error",
            f"the WAV header contradicts itself: samples of {bits} bits, {channels} channels, {block} bytes for one of "
            f"each, and {byte_rate} bytes a second at {rate} Hz",
        )
    return int(tag)


def _wav_samples(tag: int | None, form: bytes, fact: int, size: int, order: str) -> int | None:
    """What the fact chunk says, if it is that of a file of so many blocks, the last of them filled up."""
    if tag not in _BLOCK_TAGS or len(form) < 20:
        return None
    block, in_block = struct.unpack(order + "H", form[12:14])[0], struct.unpack(order + "H", form[18:20])[0]
    possible = -(-size // block) * in_block if block else 0
    return fact if fact and possible - in_block < fact <= possible else None


def _audio_follows(following: bytes, size: int, order: str) -> bool:
    """Whether what follows a data chunk of size 0 is audio, rather than nothing or another chunk."""
    if len(following) < 8:
        return False
    named = all(32 <= byte < 127 for byte in following[:4])
    return not (named and struct.unpack(order + "I", following[4:])[0] <= size - 8)


def check_caf(file: BufferedIOBase) -> None:
    """Raise AudioError where a chunk of a CAF file is cut; a data chunk of size -1 goes to the end of the file."""
    size, offset = file.seek(0, 2), 8
    for _ in range(_MAX_CHUNKS):
        header = _at(file, offset, 12)
        if len(header) < 12:
            return
        length = struct.unpack(">4xq", header)[0]
        if length < 0:
            return
        _check_fits("a chunk of the CAF file", offset + 12, length, size)
        offset += 12 + length


def check_wave64(file: BufferedIOBase) -> None:
    """Raise AudioError where a chunk of a Wave64 file is cut: GUID, size with its 24-byte header, aligned to 8."""
    size, offset = file.seek(0, 2), 40
    for _ in range(_MAX_CHUNKS):
        header = _at(file, offset, 24)
        if len(header) < 24:
            return
        length = struct.unpack("<16xQ", header)[0]
        if length < 24:
            return
        _check_fits("a chunk of the Wave64 file", offset, length, size)
        offset += length + 7 & ~7


def check_mp4(file: BufferedIOBase) -> None:
    """Raise AudioError where a top-level box of an MP4 file is cut, or where there is no `moov` box."""
    size, offset, has_index = file.seek(0, 2), 0, False
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
        _check_fits("a box of the MP4 file", offset, length, size)
        offset += length
    if not has_index:
        raise AudioError("truncated", "the MP4 file has no 'moov' box, the index of its samples: it was cut")


def check_matroska(file: BufferedIOBase) -> None:
    """Raise AudioError where the Segment is cut; one of unknown size (all ones) is how live streams are written."""
    size = file.seek(0, 2)
    length, used = _ebml_size(_at(file, 4, 8))
    offset = 4 + used + length
    segment = _at(file, offset, 12)
    if segment[:4] == b"\x18\x53\x80\x67":
        length, used = _ebml_size(segment[4:])
        if length != (1 << 7 * used) - 1:
            _check_fits("the Matroska segment", offset + 4 + used, length, size)


def _ebml_size(data: bytes) -> tuple[int, int]:
    """An EBML variable-length size and the bytes that it takes (RFC 8794, section 4)."""
    used = 9 - data[0].bit_length() if data and data[0] else 8
    return int.from_bytes(data[:used], "big") & (1 << 7 * used) - 1, used


def _at(file: BufferedIOBase, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _check_fits(what: str, offset: int, length: int, size: int) -> None:
    if offset + length > size:
        raise _truncated(what, length, size - offset)


def _truncated(what: str, declared: int, present: int) -> AudioError:
    return AudioError("truncated", f"{what} declares {declared} bytes and the file has {present} of them: it was cut")
