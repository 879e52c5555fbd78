"""Decoding: the samples of every format, whole and in blocks."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from moss_tok.audio import AudioError, AudioInfo, AudioLimits, decode, decode_blocks, to_channels
from tests.moss_tok.audio_material import (
    CLIPS,
    LOSSLESS,
    LOSSY,
    clip,
    encode_pyav,
    key_of,
    raw_wav,
    signal,
    source_of,
    with_soundfile,
    with_wav_data_size,
)


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_format_gives_back_its_source_exactly(name):
    info, waveform = decode(clip(name))
    _, _, _, rate, channels, *_ = LOSSLESS[name]
    assert (info.sample_rate, info.channels) == (rate, channels)
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, source_of(name))


@pytest.mark.parametrize("name", LOSSY)
def test_a_lossy_format_keeps_length_and_content(name):
    info, waveform = decode(clip(name), name=key_of(name))
    source = source_of(name)
    assert info.channels == len(waveform) == len(source)
    assert 0 <= waveform.shape[1] - source.shape[1] <= 0.12 * info.sample_rate  # delay and padding, nothing lost
    spectrum = np.fft.rfft(waveform[0], 2 * waveform.shape[1]) * np.conj(np.fft.rfft(source[0], 2 * waveform.shape[1]))
    correlation = np.fft.irfft(spectrum).max() / (np.linalg.norm(waveform[0]) * np.linalg.norm(source[0]))
    assert correlation > (0.8 if name == "gsm" else 0.95)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wav 24 stereo", AudioInfo("wav", "pcm_24", 44_100, 2)),
        ("wav float", AudioInfo("wav", "float", 16_000, 1)),
        ("flac 16", AudioInfo("flac", "pcm_16", 16_000, 1)),
        ("mp3", AudioInfo("mp3", "mp3", 44_100, 2)),
        ("mp3 without header", AudioInfo("mp3", "mp3", 22_050, 1)),
        ("vorbis", AudioInfo("ogg", "vorbis", 22_050, 2)),
        ("opus", AudioInfo("ogg", "opus", 48_000, 2)),
        ("m4a", AudioInfo("m4a", "aac", 44_100, 2)),
        ("opus webm", AudioInfo("webm", "opus", 48_000, 1)),
        ("aiff", AudioInfo("aiff", "pcm_16", 44_100, 2)),
        ("g722", AudioInfo("g722", "g722", 16_000, 1)),
    ],
)
def test_what_a_clip_is_does_not_depend_on_the_decoder_that_read_it(name, expected):
    assert decode(clip(name), name=key_of(name))[0] == expected


@pytest.mark.parametrize("name", CLIPS)
def test_blocks_end_to_end_are_the_whole_clip(name):
    _, whole = decode(clip(name, 4.0), name=key_of(name))
    info, blocks = decode_blocks(clip(name, 4.0), block_seconds=0.1, name=key_of(name))
    pieces = list(blocks)
    assert len(pieces) >= 3
    assert max(piece.shape[1] for piece in pieces) <= 1.2 * info.sample_rate  # TTA's frames hold 1.04 s
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)


@pytest.mark.parametrize("name", ["flac 16", "mp3", "m4a", "opus"])
def test_a_file_is_read_like_its_bytes_and_its_name_does_not_matter(name, tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(clip(name))
    from_file, from_bytes = decode(path), decode(clip(name))
    assert from_file[0] == from_bytes[0]
    np.testing.assert_array_equal(from_file[1], from_bytes[1])


def test_a_missing_file_is_an_os_error_and_not_a_bad_clip(tmp_path):
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "gone.wav")


@pytest.mark.parametrize(("rate", "loud_first"), [(16_000, True), (16_000, False), (44_100, True)])
def test_a_variable_rate_mp3_without_a_header_is_read_to_its_end(rate, loud_first):
    """libsndfile guesses its length from the first frame and stops there, which loses most of this clip."""
    loud = signal(rate, 1, 4.0)
    halves = [loud, loud * 1e-4] if loud_first else [loud * 1e-4, loud]
    mp3 = encode_pyav(np.concatenate(halves, axis=1), rate, "mp3", "libmp3lame", write_xing="0", quality="4")
    assert soundfile.info(io.BytesIO(mp3)).frames != pytest.approx(8 * rate, rel=0.1)
    _, waveform = decode(mp3)
    assert waveform.shape[1] == pytest.approx(8 * rate, abs=0.2 * rate)


@pytest.mark.parametrize("name", ["mp3", "flac 16"])
@pytest.mark.parametrize("tag_bytes", [100, 5_000_000])
def test_an_id3_tag_of_any_size_and_its_padding_are_skipped(name, tag_bytes):
    length = bytes(tag_bytes >> shift & 0x7F for shift in (21, 14, 7, 0))
    tag = b"ID3\x04\x00\x00" + length + bytes(tag_bytes)
    np.testing.assert_array_equal(decode(tag + bytes(300) + clip(name))[1], decode(clip(name))[1])


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("riff_size", [0, 0xFFFFFFFF])
def test_a_wav_written_to_a_pipe_holds_what_follows_its_header(size, riff_size):
    wav = clip("wav 16")
    streamed = with_wav_data_size(wav, size, riff_size)
    info, waveform = decode(streamed)
    assert info == decode(wav)[0]
    np.testing.assert_array_equal(waveform, decode(wav)[1])


def test_a_chained_ogg_is_read_past_its_first_link():
    info, waveform = decode(clip("opus") + clip("opus"))
    assert waveform.shape[1] == 2 * source_of("opus").shape[1]
    info, waveform = decode(clip("vorbis") + clip("vorbis"))
    assert waveform.shape[1] == pytest.approx(2 * source_of("vorbis").shape[1], abs=0.05 * info.sample_rate)


def test_one_sample_is_a_clip():
    info, waveform = decode(raw_wav(b"\x00\x40"))
    assert (info.channels, waveform.tolist()) == (1, [[0.5]])


def test_unsigned_8_bit_is_centred():
    np.testing.assert_array_equal(decode(raw_wav(bytes([0, 128, 192]), bits=8))[1], [[-1.0, 0.0, 0.5]])


def test_a_block_stays_small_whatever_the_header_claims():
    limits = AudioLimits(max_channels=1024)
    wav = raw_wav(bytes(2 * 1024 * 20_000), channels=1024, rate=700_000)
    _, blocks = decode_blocks(wav, limits, block_seconds=1e9)
    assert [block.size for block in blocks] == [2**22] * 4 + [1024 * 20_000 - 4 * 2**22]


def test_an_iterator_left_early_closes_its_file(tmp_path):
    path = tmp_path / "clip"
    path.write_bytes(clip("flac 16", 5.0))
    _, blocks = decode_blocks(path, block_seconds=0.5)
    next(blocks)
    blocks.close()
    with pytest.raises(StopIteration):
        next(blocks)


def test_block_seconds_must_be_positive():
    with pytest.raises(ValueError, match="block_seconds must be above 0"):
        decode_blocks(clip("wav 16"), block_seconds=0)


def test_limits_refuse_impossible_bounds():
    with pytest.raises(ValueError, match="max_seconds must be above 0"):
        AudioLimits(max_seconds=0)
    with pytest.raises(ValueError, match="min_sample_rate 9000 is above max_sample_rate 8000"):
        AudioLimits(min_sample_rate=9000, max_sample_rate=8000)


def test_limits_hold_to_the_sample():
    wav = with_soundfile("WAV", "PCM_16", 8_000, 1, 1.0)
    assert decode(wav, AudioLimits(max_seconds=1.0))[1].shape == (1, 8_000)
    assert decode(wav, AudioLimits(max_samples=8_000, max_samples_in_memory=8_000))[1].shape == (1, 8_000)
    for limits, reason in [
        (AudioLimits(max_seconds=0.9999), "too_long"),
        (AudioLimits(max_samples=7_999), "too_many_samples"),
        (AudioLimits(max_samples_in_memory=7_999), "decode_too_large"),
    ]:
        with pytest.raises(AudioError) as caught:
            decode(wav, limits)
        assert caught.value.reason == reason


def test_down_and_up_mixing():
    left, right = np.float32([[1, 0, 0.5]]), np.float32([[0, 1, 0.5]])
    stereo = np.concatenate((left, right))
    np.testing.assert_array_equal(to_channels(stereo, 1), [[0.5, 0.5, 0.5]])
    np.testing.assert_array_equal(to_channels(left, 2), np.concatenate((left, left)))
    assert to_channels(stereo, 2) is stereo
    surround = np.repeat(np.arange(6, dtype=np.float32)[:, None], 4, axis=1)
    np.testing.assert_array_equal(to_channels(surround, 1), np.full((1, 4), 2.5))
    np.testing.assert_array_equal(to_channels(surround, 2), np.full((2, 4), 2.5))
    assert to_channels(surround, 2).dtype == np.float32


@pytest.mark.parametrize(("shape", "channels"), [((2, 5), 3), ((2, 5), 0), ((5,), 1), ((0, 5), 1)])
def test_mixing_refuses_other_shapes(shape, channels):
    with pytest.raises(ValueError, match="channels"):
        to_channels(np.zeros(shape, np.float32), channels)
