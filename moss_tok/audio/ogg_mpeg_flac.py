"""How much audio a file really holds: the pages of Ogg, the frames of MP3, the last frame of FLAC.

The headers of these formats state a length, which decoders believe or ignore without a word. Walking the structure
costs a few percent of decoding and tells a cut file from a whole one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedIOBase

from moss_tok.audio.limits import AudioError

_LATE_START = 60  # s; an Ogg stream whose first page is later than this was recorded mid-broadcast
_ID3_PADDING = 2**16  # bytes of zeros skipped behind a tag that does not count its padding
_FLAC_TAIL = 2**17  # bytes searched for the last frame, beside the largest frame that the file declares
_FLAC_LARGEST = 2**20  # as much of that claim is believed
_FLAC_SYNCS = (b"\xff\xf8", b"\xff\xf9")  # blocks of a fixed size, and of any
_FLAC_BLOCKS = {1: 192, **{2 + i: 576 << i for i in range(4)}, **{8 + i: 256 << i for i in range(8)}}
_FLAC_MARKS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")  # the beginning of a stream, to STREAMINFO's size
_FLAC_RATES = (0, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
_MPEG1_KBPS = {  # by layer; index 0 is "free", which cannot be walked
    1: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_MPEG2_KBPS = {
    1: (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    3: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


@dataclass(frozen=True, slots=True)
class OggStream:
    """The first audio stream of an Ogg file: its codec, its number of chained links, and its samples per channel.

    `num_samples` counts at `sample_rate` Hz, or at the stream's own rate if that is None. It is None if the granule
    positions do not tell it.
    """

    codec: str
    links: int
    num_samples: int | None
    sample_rate: int | None


def walk_ogg(file: BufferedIOBase, size: int) -> OggStream:
    """Walk all pages (RFC 3533): sequence numbers without a gap, an end-of-stream page, and the last granule.

    Raises:
        AudioError: truncated, no_audio_stream, or format_change where links of a chain differ.
    """
    stream: _OggHead | None = None
    offset = serial = expected = links = samples = granule = 0
    open_link = positioned = late = False
    while offset + 27 <= size:
        file.seek(offset)
        header = file.read(27)
        if header[:4] != b"OggS":
            break
        flags, position, page_serial, sequence = struct.unpack("<xxxxxBqII", header[:22])
        lacing = file.read(header[26])
        end = offset + 27 + len(lacing) + sum(lacing)
        if len(lacing) < header[26] or end > size:
            raise AudioError("truncated", f"the Ogg page at byte {offset} goes beyond the file's end at {size}")
        head = _ogg_head(file.read(64)) if flags & 2 and not open_link else None
        if head:  # the first audio stream, or the next link of a chain
            if stream and (head.codec, head.form) != (stream.codec, stream.form):
                raise AudioError(
                    "format_change", f"an Ogg {stream.codec} stream goes on as {head.codec} in another form"
                )
            stream, serial, expected, links = head, page_serial, sequence, links + 1
            open_link, positioned, granule = True, False, 0
        if stream and open_link and page_serial == serial:
            if sequence != expected:
                raise AudioError("truncated", f"Ogg page {expected} is missing: {sequence} follows at byte {offset}")
            expected += 1
            if position > 0:
                late |= not positioned and position > _LATE_START * (stream.granule_rate or 48_000)
                positioned, granule = True, position
            if flags & 4:
                open_link, samples = False, samples + max(0, granule - stream.preskip - stream.start_slack)
        offset = end
    if stream is None:
        raise AudioError("no_audio_stream", "the Ogg file holds no Vorbis, Opus, FLAC or Speex stream")
    if open_link:
        raise AudioError("truncated", "the Ogg stream has no end-of-stream page: it was cut")
    counted = not late and stream.codec != "speex"
    return OggStream(stream.codec, links, samples if counted else None, 48_000 if stream.codec == "opus" else None)


@dataclass(frozen=True, slots=True)
class _OggHead:
    codec: str
    form: bytes  # channels and rate as the head packet spells them
    granule_rate: int | None
    preskip: int
    start_slack: int
    """Samples by which the first packet may start late: FFmpeg's muxer counts the pre-skip of Opus twice."""


def _ogg_head(packet: bytes) -> _OggHead | None:
    """The identification header of an audio stream, or None if the packet is something else."""
    if packet[:7] == b"\x01vorbis" and len(packet) >= 16:
        return _OggHead("vorbis", packet[11:16], struct.unpack("<I", packet[12:16])[0], 0, 0)
    if packet[:8] == b"OpusHead" and len(packet) >= 12:
        preskip = struct.unpack("<H", packet[10:12])[0]
        return _OggHead("opus", packet[9:10], 48_000, preskip, start_slack=preskip)
    if packet[:5] == b"\x7fFLAC":
        return _OggHead("flac", packet[27:30], None, 0, 0)
    if packet[:8] == b"Speex   ":
        return _OggHead("speex", packet[36:52], None, 0, 0)
    return None


def after_id3(file: BufferedIOBase, offset: int) -> int:
    """The byte after the ID3v2 tags at `offset` and the zeros that pad them, or `offset` itself if there are none."""
    start = offset
    while True:
        file.seek(offset)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        length = 0
        for byte in head[6:]:  # 28 bits in four bytes of 7
            length = length << 7 | byte & 0x7F
        offset += 10 + length + (10 if head[5] & 0x10 else 0)
    if offset > start:
        file.seek(offset)
        padding = file.read(_ID3_PADDING)
        offset += len(padding) - len(padding.lstrip(b"\0"))
    return offset


@dataclass(frozen=True, slots=True)
class MpegFrame:
    """One frame of MPEG audio: its layer, its length in bytes (0: free format) and in samples per channel."""

    layer: int
    mpeg1: bool
    mono: bool
    num_bytes: int
    num_samples: int


@lru_cache(maxsize=1024)  # a file repeats a handful of headers
def mpeg_frame(head: bytes) -> MpegFrame | None:
    """Parse a 4-byte frame header (ISO/IEC 11172-3 and 13818-3, and 2.5); None where the bytes are none."""
    if len(head) != 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate == 15 or rate == 3:
        return None
    mpeg1 = version == 3
    sample_rate = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    num_samples = 384 if layer == 1 else 1152 if layer == 2 or mpeg1 else 576
    kbps = (_MPEG1_KBPS if mpeg1 else _MPEG2_KBPS)[layer][bitrate]
    slot = 4 if layer == 1 else 1
    slots = num_samples // 8 * kbps * 1000 // (sample_rate * slot)
    num_bytes = (slots + (head[2] >> 1 & 1)) * slot if kbps else 0
    return MpegFrame(layer, mpeg1, head[3] >> 6 == 3, num_bytes, num_samples)


def count_mpeg_frames(file: BufferedIOBase, start: int) -> int:
    """Whole frames that follow one another from byte `start`. The count ends at anything that is not a frame."""
    size, offset, count = file.seek(0, 2), start, 0
    while True:
        file.seek(offset)
        frame = mpeg_frame(file.read(4))
        if frame is None and (behind := after_id3(file, offset)) > offset:
            offset = behind  # files joined end to end, each with its tag
        elif frame is None or frame.num_bytes == 0 or offset + frame.num_bytes > size:
            return count
        else:
            offset, count = offset + frame.num_bytes, count + 1


def check_flac_is_alone(file: BufferedIOBase, start: int) -> None:
    """Raise AudioError if a second stream follows the one at `start`: decoders stop before it without a word."""
    offset = file.seek(start + 4)
    held = b""
    while piece := file.read(2**20):
        window = held + piece
        for at in filter(lambda at: at >= 0, map(window.find, _FLAC_MARKS)):
            where = offset - len(held) + at
            raise AudioError("decode_error", f"a second FLAC stream begins at byte {where}: cat cannot join files")
        offset += len(piece)
        held = window[-7:]


def check_flac_end(file: BufferedIOBase, stream_info: bytes) -> None:
    """Raise AudioError unless a frame near the end of a FLAC file ends at the declared number of samples, at its rate.

    Args:
        stream_info: the 34 bytes of STREAMINFO (RFC 9639, section 8.2), with a total that is not 0.
    """
    total = int.from_bytes(stream_info[10:18], "big") & (1 << 36) - 1
    size = file.seek(0, 2)
    largest = int.from_bytes(stream_info[7:10], "big")
    file.seek(max(0, size - _FLAC_TAIL - min(largest, _FLAC_LARGEST)))
    tail = file.read()
    last = 0
    for sync in _FLAC_SYNCS:
        at = len(tail)
        while (at := tail.rfind(sync, 0, at)) >= 0:  # an intact file is done at its last frame
            end = _flac_frame_end(tail[at : at + 16], int.from_bytes(stream_info[0:2], "big"))
            if end == total:
                _check_flac_rate(tail[at + 2], int.from_bytes(stream_info[10:13], "big") >> 4)
                return
            last = max(last, end)
    if last > total:
        raise AudioError("decode_error", f"the FLAC file declares {total} samples and holds {last}")
    raise AudioError("truncated", f"the FLAC file declares {total} samples, but no frame near its end reaches them")


def _check_flac_rate(codes: int, declared: int) -> None:
    """Raise AudioError if the third byte of a frame names another rate. Rare rates are coded elsewhere."""
    rate = _FLAC_RATES[codes & 15] if codes & 15 < len(_FLAC_RATES) else 0
    if rate not in (0, declared):
        raise AudioError("decode_error", f"the FLAC file declares {declared} Hz and its frames {rate} Hz")


def _flac_frame_end(head: bytes, block_size: int) -> int:
    """The sample after the frame whose header begins here (RFC 9639, section 9.1), or 0 if none does."""
    if len(head) < 6:
        return 0
    ones = 8 - (head[4] ^ 0xFF).bit_length()  # the number is coded as UTF-8 codes a character
    number = head[4] & 0x7F >> ones
    at = 5 + max(0, ones - 1)
    for byte in head[5:at]:
        number = number << 6 | byte & 0x3F
    size_code, rate_code = head[2] >> 4, head[2] & 15
    size_bytes = {6: 1, 7: 2}.get(size_code, 0)
    samples = _FLAC_BLOCKS.get(size_code, 1 + int.from_bytes(head[at : at + size_bytes], "big"))
    at += size_bytes + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if size_code == 0 or rate_code == 15 or ones in (1, 8) or at >= len(head) or _crc8(head[:at]) != head[at]:
        return 0
    return samples + (number if head[1] & 1 else number * block_size)


def _crc8(data: bytes) -> int:
    """CRC-8 with the polynomial x^8 + x^2 + x + 1, as FLAC's frame headers carry it."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
    return crc
