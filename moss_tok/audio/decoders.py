"""The two decoders behind one interface: libsndfile and FFmpeg, each giving float32 blocks of (channels, samples)."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Iterator
from io import BufferedIOBase

import av
import numpy as np
import soundfile
from av.codec.context import Flags2
from numpy.typing import NDArray

from moss_tok.audio.container import Container
from moss_tok.audio.limits import AudioError, AudioInfo, AudioLimits

Waveform = NDArray[np.float32]

_BLOCK_SAMPLES = 2**22  # largest block over all channels, whatever rate and channels a header claims: 16 MiB
_PROBE_SAMPLES = 2**16  # read at once beyond the length that libsndfile reports
_CODECS = {"mpeg_layer_iii": "mp3", "mpeg_layer_ii": "mp2", "mpeg_layer_i": "mp1"}
_PCM = re.compile(r"pcm_([suf])(\d+)(le|be)")
_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}
_SLACK_SECONDS = {  # formats whose duration stands in a header (FFmpeg guesses the others'), and how exactly it does
    "aiff": 0.0,
    "au": 0.0,
    "caf": 0.0,
    "w64": 0.0,
    "tta": 0.0,
    "wv": 0.0,
    "nistsphere": 0.0,
    "mov": 0.25,  # the encoder's delay and padding may be counted
    "matroska": 0.25,  # milliseconds, the delay counted
    "asf": 0.25,
}


class _Tail:
    """A seekable view of a file from byte `start` on, because libsndfile refuses files with large ID3 tags before
    them."""

    def __init__(self, file: BufferedIOBase, start: int) -> None:
        self._file, self._start = file, start
        file.seek(start)

    def readinto(self, buffer: bytearray) -> int:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset + (self._start if whence == io.SEEK_SET else 0), whence) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start


class _ForwardSoundFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A SoundFile that is only read forwards.

    After every read of a seekable file soundfile seeks to the position that it has already. In an MP3 that restarts the
    decoder and changes the samples at every block border.
    """

    def seekable(self) -> bool:
        return False


def check_stream(sample_rate: int, channels: int, limits: AudioLimits) -> None:
    """Raise AudioError where a stream's rate or channel count is outside `limits`, before anything is allocated."""
    if not limits.min_sample_rate <= sample_rate <= limits.max_sample_rate:
        raise AudioError(
            "bad_sample_rate",
            f"the sample rate is {sample_rate} Hz; allowed is {limits.min_sample_rate} to {limits.max_sample_rate}",
        )
    if channels > limits.max_channels:
        raise AudioError(
            "too_many_channels", f"the clip has {channels} channels; at most {limits.max_channels} are allowed"
        )
    if channels < 1:
        raise AudioError("decode_error", "the stream declares 0 channels")


def check_length(samples: int, sample_rate: int, channels: int, limits: AudioLimits) -> None:
    """Raise AudioError where `samples` per channel, declared or decoded so far, are beyond `limits`."""
    if samples > limits.max_seconds * sample_rate:
        seconds = samples / sample_rate
        raise AudioError("too_long", f"the clip holds {seconds:.1f} s; at most {limits.max_seconds:g} s are allowed")
    if samples * channels > limits.max_samples:
        raise AudioError(
            "too_many_samples",
            f"the clip holds {samples * channels} samples over {channels} channels; "
            f"at most {limits.max_samples} are allowed",
        )


def read_soundfile(
    file: BufferedIOBase, container: Container, limits: AudioLimits, block_seconds: float
) -> tuple[AudioInfo, int | None, Iterator[Waveform]]:
    """Open with libsndfile. Gives what the clip is, its declared samples per channel, and its blocks.

    Raises AudioError if the stream is outside the limits, and whatever soundfile raises.
    """
    file.seek(0)
    sound = _ForwardSoundFile(_Tail(file, container.start) if container.start else file)
    check_stream(sound.samplerate, sound.channels, limits)
    codec = sound.subtype.lower()
    info = AudioInfo(container.format, _CODECS.get(codec, codec), sound.samplerate, sound.channels)
    return info, container.declared, _soundfile_blocks(sound, block_seconds)


def _soundfile_blocks(sound: _ForwardSoundFile, block_seconds: float) -> Iterator[Waveform]:
    block = max(1, min(round(block_seconds * sound.samplerate), _BLOCK_SAMPLES // sound.channels))
    done = 0
    with sound:
        while True:
            expected = sound.frames - done  # sizes the buffer; the end is where nothing more comes
            buffer = np.empty((min(block, expected if expected > 0 else _PROBE_SAMPLES), sound.channels), np.float32)
            count = sound.buffer_read_into(buffer, "float32")
            if count == 0:
                return
            done += count
            yield np.ascontiguousarray(buffer[:count].T)


def read_pyav(
    file: BufferedIOBase, container: Container, limits: AudioLimits, block_seconds: float
) -> tuple[AudioInfo, int | None, Iterator[Waveform]]:
    """Open with FFmpeg, as `read_soundfile` does. What the clip is comes from the first decoded frame, because headers
    do not tell SBR."""
    file.seek(0)
    # No protocol is allowed: a file can then refer to nothing but itself.
    source = av.open(
        file, "r", format=container.demuxer, metadata_errors="replace", options={"protocol_whitelist": "none"}
    )
    try:
        if not source.streams.audio:
            raise AudioError("no_audio_stream", f"the {container.format} file holds no audio stream")
        stream = source.streams.audio[0]
        if stream.codec_context is None:
            raise AudioError("decode_error", f"no decoder for the coding inside this {container.format} file")
        check_stream(stream.codec_context.sample_rate, stream.codec_context.channels, limits)
        stream.codec_context.thread_count = 1
        if (container.demuxer, stream.codec_context.name) == ("caf", "alac"):
            # The last packet holds only what is left of the clip, and FFmpeg would cut its padding off once more.
            stream.codec_context.flags2 |= Flags2.skip_manual
        frames = (frame for frame in source.decode(stream) if frame.samples)
        first = next(frames, None)
        if first is None:
            raise AudioError("no_samples", f"the {container.format} file decodes to 0 samples")
        info = AudioInfo(
            container.format,
            _codec_name(stream.codec_context.codec.canonical_name),
            first.sample_rate,
            first.layout.nb_channels,
        )
        check_stream(info.sample_rate, info.channels, limits)
    except BaseException:
        source.close()
        raise
    declared = _pyav_declared(source, stream, container, info.sample_rate)
    return info, declared, _pyav_blocks(source, info, first, frames, block_seconds)


def _codec_name(name: str) -> str:
    """FFmpeg's name of a codec. Uncompressed ones are named as by libsndfile: pcm_s16le is pcm_16."""
    pcm = _PCM.fullmatch(name)
    if pcm is None:
        return {"pcm_mulaw": "ulaw", "pcm_alaw": "alaw", "adpcm_g722": "g722"}.get(name, name)
    kind, bits = pcm[1], pcm[2]
    return {"32": "float", "64": "double"}[bits] if kind == "f" else f"pcm_{bits}"


def _pyav_declared(
    source: av.container.InputContainer, stream: av.AudioStream, container: Container, sample_rate: int
) -> int | None:
    """Samples per channel that an intact file gives at least: the figure of `identify`, or FFmpeg's if it is from a
    header."""
    if container.declared is not None:
        return container.declared * sample_rate // (container.declared_rate or sample_rate)
    slack = _SLACK_SECONDS.get(container.demuxer or "")
    if slack is None:
        return None
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif source.duration and len(source.streams) == 1:
        seconds = source.duration / av.time_base
    else:
        return None
    return max(0, math.floor((seconds - slack) * sample_rate))


def _pyav_blocks(
    source: av.container.InputContainer,
    info: AudioInfo,
    first: av.AudioFrame,
    rest: Iterator[av.AudioFrame],
    block_seconds: float,
) -> Iterator[Waveform]:
    block = max(1, min(round(block_seconds * info.sample_rate), _BLOCK_SAMPLES // info.channels))
    with source:
        held: list[Waveform] = []
        count = 0
        for frame in itertools.chain((first,), rest):
            held.append(_frame_waveform(frame, info))
            count += frame.samples
            if count >= block:
                yield np.concatenate(held, axis=1)
                held, count = [], 0
        if held:
            yield np.concatenate(held, axis=1)


def _frame_waveform(frame: av.AudioFrame, info: AudioInfo) -> Waveform:
    """A frame as float32 (channels, samples). FFmpeg gives integers unscaled, and packed formats interleaved."""
    if (frame.sample_rate, frame.layout.nb_channels) != (info.sample_rate, info.channels):
        raise AudioError(
            "format_change",
            f"the clip goes from {info.sample_rate} Hz with {info.channels} channels to {frame.sample_rate} Hz "
            f"with {frame.layout.nb_channels}; it must keep one form",
        )
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, info.channels).T
    kind = frame.format.name.removesuffix("p")
    if kind in _FULL_SCALE:
        centred = array.astype(np.float64) - (128.0 if kind == "u8" else 0.0)
        return (centred / _FULL_SCALE[kind]).astype(np.float32)
    return array.astype(np.float32, copy=False)
