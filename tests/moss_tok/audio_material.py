"""Encoded audio for the tests, made from a seeded signal by the writers of libsndfile and FFmpeg."""

from __future__ import annotations

import io
import struct
from functools import lru_cache

import av
import numpy as np
import soundfile

_SAMPLE_FORMATS = {"wavpack": "s16p", "tta": "s16", "alac": "s16p", "flac": "s16"}  # the encoders' first is 8 bits


def signal(rate: int, channels: int, seconds: float) -> np.ndarray:
    """A (channels, samples) float32 waveform: a rising tone per channel and a little noise, on the 16-bit grid."""
    time = np.arange(round(rate * seconds)) / rate
    noise = np.random.default_rng(7).standard_normal((channels, len(time)))
    tones = [np.sin(2 * np.pi * (150 * (channel + 1) + 400 * time) * time) for channel in range(channels)]
    return (np.round((0.4 * np.stack(tones) + 0.02 * noise) * 2**15) / 2**15).astype(np.float32)


@lru_cache(maxsize=64)
def with_soundfile(kind: str, subtype: str, rate: int, channels: int, seconds: float) -> bytes:
    buffer = io.BytesIO()
    samples = signal(rate, channels, seconds).T
    with soundfile.SoundFile(buffer, "w", rate, channels, subtype=subtype, format=kind) as sound:
        for start in range(0, len(samples), 4096):  # libvorbis overflows the stack on long writes
            sound.write(samples[start : start + 4096])
    return buffer.getvalue()


def encode_pyav(waveform: np.ndarray, rate: int, kind: str, codec: str, **options: str) -> bytes:
    """Encode (channels, samples); `options` go to the muxer, but `quality` makes MP3 of variable bit rate."""
    quality = options.pop("quality", None)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono" if len(waveform) == 1 else "stereo")
        if codec in _SAMPLE_FORMATS:
            stream.codec_context.format = av.AudioFormat(_SAMPLE_FORMATS[codec])
        if quality is not None:
            stream.codec_context.flags |= 2  # AV_CODEC_FLAG_QSCALE
            stream.codec_context.global_quality = int(quality) * 118  # FF_QP2LAMBDA
        resampler = av.AudioResampler(format=stream.codec_context.format.name, layout=stream.layout, rate=rate)
        for start in range(0, waveform.shape[1], 4096):
            piece = np.ascontiguousarray(waveform[:, start : start + 4096])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=stream.layout.name)
            frame.sample_rate, frame.pts = rate, start
            for converted in resampler.resample(frame):
                container.mux(stream.encode(converted))
        for converted in resampler.resample(None):
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return buffer.getvalue()


@lru_cache(maxsize=64)
def with_pyav(kind: str, codec: str, rate: int, channels: int, seconds: float, *options: tuple[str, str]) -> bytes:
    return encode_pyav(signal(rate, channels, seconds), rate, kind, codec, **dict(options))


def raw_wav(payload: bytes, *, tag: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16) -> bytes:
    """A WAV file with a canonical 44-byte header around any payload."""
    block = channels * bits // 8
    fields = struct.pack("<HHIIHH", tag, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, bits)
    size = struct.pack("<I", 36 + len(payload))
    return b"RIFF" + size + b"WAVEfmt " + struct.pack("<I", 16) + fields + b"data" + size_of(payload) + payload


def size_of(payload: bytes) -> bytes:
    return struct.pack("<I", len(payload))


def with_wav_data_size(wav: bytes, size: int, riff_size: int | None = None) -> bytes:
    at = wav.index(b"data") + 4
    forged = wav[:at] + struct.pack("<I", size) + wav[at + 4 :]
    return forged if riff_size is None else forged[:4] + struct.pack("<I", riff_size) + forged[8:]


def with_flac_total(flac: bytes, total: int) -> bytes:
    """Replace the 36 bits of total samples in STREAMINFO."""
    fields = int.from_bytes(flac[18:26], "big") >> 36 << 36 | total
    return flac[:18] + fields.to_bytes(8, "big") + flac[26:]


LOSSLESS = {
    "wav 16": ("soundfile", "WAV", "PCM_16", 8_000, 1),
    "wav 24 stereo": ("soundfile", "WAV", "PCM_24", 44_100, 2),
    "wav float": ("soundfile", "WAV", "FLOAT", 16_000, 1),
    "wav double": ("soundfile", "WAV", "DOUBLE", 16_000, 1),
    "wavex": ("soundfile", "WAVEX", "PCM_16", 22_050, 2),
    "rf64": ("soundfile", "RF64", "PCM_16", 16_000, 1),
    "flac 16": ("soundfile", "FLAC", "PCM_16", 16_000, 1),
    "flac 24 stereo": ("soundfile", "FLAC", "PCM_24", 48_000, 2),
    "aiff": ("soundfile", "AIFF", "PCM_16", 44_100, 2),
    "au": ("soundfile", "AU", "PCM_16", 8_000, 1),
    "caf": ("soundfile", "CAF", "PCM_24", 16_000, 2),
    "w64": ("soundfile", "W64", "PCM_16", 16_000, 1),
    "nist": ("soundfile", "NIST", "PCM_16", 16_000, 1),
    "ogg flac": ("pyav", "ogg", "flac", 16_000, 2),
    "matroska flac": ("pyav", "matroska", "flac", 44_100, 1),
    "wavpack": ("pyav", "wv", "wavpack", 44_100, 2),
    "tta": ("pyav", "tta", "tta", 44_100, 2),
    "alac": ("pyav", "ipod", "alac", 44_100, 2),
    "alac caf": ("soundfile", "CAF", "ALAC_16", 44_100, 2),
    "mov pcm": ("pyav", "mov", "pcm_s16le", 44_100, 2),
}
LOSSY = {
    "mp3": ("soundfile", "MP3", "MPEG_LAYER_III", 44_100, 2),
    "mp3 low rate": ("soundfile", "MP3", "MPEG_LAYER_III", 16_000, 1),
    "mp3 without header": ("pyav", "mp3", "libmp3lame", 22_050, 1, ("write_xing", "0")),
    "vorbis": ("soundfile", "OGG", "VORBIS", 22_050, 2),
    "opus": ("pyav", "ogg", "libopus", 48_000, 2),
    "opus webm": ("pyav", "webm", "libopus", 48_000, 1),
    "m4a": ("pyav", "ipod", "aac", 44_100, 2),
    "m4a fragmented": ("pyav", "mp4", "aac", 16_000, 1, ("movflags", "frag_keyframe+empty_moov+default_base_moof")),
    "adts": ("pyav", "adts", "aac", 32_000, 1),
    "ulaw": ("soundfile", "WAV", "ULAW", 8_000, 1),
    "ima adpcm": ("soundfile", "WAV", "IMA_ADPCM", 16_000, 1),
    "gsm": ("soundfile", "WAV", "GSM610", 8_000, 1),
    "g722 wav": ("pyav", "wav", "g722", 16_000, 1),
    "g722": ("pyav", "g722", "g722", 16_000, 1),
}
CLIPS = LOSSLESS | LOSSY


def clip(name: str, seconds: float = 1.37) -> bytes:
    writer, kind, codec, rate, channels, *options = CLIPS[name]
    make = with_soundfile if writer == "soundfile" else with_pyav
    return make(kind, codec, rate, channels, seconds, *options)


def source_of(name: str, seconds: float = 1.37) -> np.ndarray:
    _, _, _, rate, channels, *_ = CLIPS[name]
    return signal(rate, channels, seconds)


def key_of(name: str) -> str | None:
    """The clip's name, given only where the format has no signature."""
    return "prompt.g722" if name == "g722" else None
