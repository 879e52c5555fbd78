"""Decodes originals, encodes clips, and measures what a clip decodes to; the same input gives the same bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
import numpy as np
import soundfile as sf
from av.audio.stream import AudioStream

Waveform = np.ndarray  # float32, (channels, samples)

# FFmpeg otherwise writes version strings and, in Ogg, random stream serial numbers.
BITEXACT = {"fflags": "+bitexact"}


@dataclass(frozen=True)
class Encoding:
    """How a clip is stored. `bit_rate` is in bits per second and channel; None where the codec is lossless."""

    suffix: str
    container: str
    codec: str
    sample_format: str
    bit_rate: int | None = None


WAV_16 = Encoding(".wav", "wav", "pcm_s16le", "s16")
WAV_24 = Encoding(".wav", "wav", "pcm_s24le", "s32")
WAV_FLOAT = Encoding(".wav", "wav", "pcm_f32le", "flt")
FLAC = Encoding(".flac", "flac", "flac", "s16")
MP3 = Encoding(".mp3", "mp3", "libmp3lame", "fltp", 32_000)
VORBIS = Encoding(".ogg", "ogg", "vorbis", "fltp")
OPUS = Encoding(".opus", "ogg", "libopus", "flt", 24_000)
AAC = Encoding(".m4a", "ipod", "aac", "fltp", 40_000)


@dataclass(frozen=True)
class Measured:
    """What a clip decodes to; `seconds` counts decoded samples, not what a header declares."""

    container: str
    codec: str
    sample_rate: int
    channels: int
    seconds: float


def decode(data: bytes, suffix: str) -> tuple[Waveform, int]:
    """The waveform (float32, (channels, samples)) of an original and its sample rate in Hz."""
    if suffix != ".g722":
        samples, sample_rate = sf.read(io.BytesIO(data), dtype="float32", always_2d=True)
        return np.ascontiguousarray(samples.T), sample_rate
    with av.open(io.BytesIO(data), format="g722") as source:
        stream = source.streams.audio[0]
        blocks = [frame.to_ndarray() for frame in source.decode(stream)]
        return np.concatenate(blocks, axis=1).astype(np.float32) / 32768, stream.rate


def encode(waveform: Waveform, sample_rate: int, encoding: Encoding, target_rate: int) -> bytes:
    """The bytes of a file that holds `waveform` (float32, (channels, samples)), resampled to `target_rate` Hz."""
    if encoding is VORBIS:
        return _encode_vorbis(waveform, sample_rate, target_rate)
    channels = waveform.shape[0]
    output = io.BytesIO()
    with av.open(output, "w", format=encoding.container, options=BITEXACT) as target:
        stream = target.add_stream(
            encoding.codec,
            rate=target_rate,
            layout=_layout(waveform),
            format=encoding.sample_format,
            options={"flags": "+bitexact"},
        )
        if encoding.bit_rate is not None:
            stream.bit_rate = encoding.bit_rate * channels
        for frame in _resampled(waveform, sample_rate, encoding.sample_format, target_rate):
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return output.getvalue()


def measure(data: bytes) -> Measured:
    """Decode a whole clip with FFmpeg and say what came out."""
    with av.open(io.BytesIO(data)) as source:
        stream = source.streams.audio[0]
        samples = sum(frame.samples for frame in source.decode(stream))
        return Measured(
            container="m4a" if "m4a" in source.format.name else source.format.name,
            codec=stream.codec_context.codec.canonical_name,
            sample_rate=stream.rate,
            channels=stream.channels,
            seconds=round(samples / stream.rate, 4),
        )


def _encode_vorbis(waveform: Waveform, sample_rate: int, target_rate: int) -> bytes:
    if target_rate != sample_rate:
        frames = _resampled(waveform, sample_rate, "fltp", target_rate)
        waveform = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    # libsndfile encodes Vorbis well but draws a random serial number for the stream: copy its packets once more.
    drawn, output = io.BytesIO(), io.BytesIO()
    sf.write(drawn, waveform.T, target_rate, format="OGG", subtype="VORBIS")
    drawn.seek(0)
    with av.open(drawn) as source, av.open(output, "w", format="ogg", options=BITEXACT) as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        assert isinstance(stream, AudioStream)
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return output.getvalue()


def _resampled(waveform: Waveform, sample_rate: int, sample_format: str, target_rate: int) -> list[av.AudioFrame]:
    frame = av.AudioFrame.from_ndarray(waveform, format="fltp", layout=_layout(waveform))
    frame.sample_rate = sample_rate
    resampler = av.AudioResampler(format=sample_format, layout=_layout(waveform), rate=target_rate)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    for resampled in frames:
        resampled.pts = None  # the encoder then counts samples itself
    return frames


def _layout(waveform: Waveform) -> str:
    return {1: "mono", 2: "stereo"}[waveform.shape[0]]
