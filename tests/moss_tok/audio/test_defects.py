"""Every defect ends as an AudioError with a reason of the closed list, and nothing is cut in silence."""

from __future__ import annotations

import pickle
import struct
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moss_tok.audio import REASONS, AudioError, AudioLimits, decode, decode_blocks
from tests.moss_tok.audio_material import (
    CLIPS,
    clip,
    encode_pyav,
    key_of,
    raw_wav,
    signal,
    with_flac_total,
    with_soundfile,
    with_wav_data_size,
)

CUT_IN_SILENCE = {"mp3 without header", "g722"}  # nothing in these formats tells their length
DAMAGED_AT_THE_CUT = {"adts", "wavpack", "tta", "flac 16", "flac 24 stereo"}  # the last packet is there in part


def refusal(source: bytes, name: str | None = None, limits: AudioLimits | None = None) -> AudioError:
    with pytest.raises(AudioError) as caught:
        decode(source, limits or AudioLimits(), name=name)
    return caught.value


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("name", [name for name in CLIPS if name not in CUT_IN_SILENCE])
def test_a_cut_file_is_refused(name, fraction):
    whole = clip(name, 3.0)
    expected = {"truncated", "decode_error"} if name in DAMAGED_AT_THE_CUT else {"truncated"}
    assert refusal(whole[: int(fraction * len(whole))]).reason in expected


def test_formats_without_a_length_give_what_is_left_of_a_cut_file():
    for name in CUT_IN_SILENCE:
        info, waveform = decode(clip(name)[: len(clip(name)) // 2], name=key_of(name))
        assert waveform.shape[1] == pytest.approx(1.37 / 2 * info.sample_rate, rel=0.1)


@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_an_ogg_cut_between_pages_is_refused(fraction):
    whole = clip("opus", 5.0)
    page = whole.index(b"OggS", int(fraction * len(whole)))
    error = refusal(whole[:page])
    assert error.reason == "truncated"
    assert "no end-of-stream page" in str(error)


def test_an_ogg_that_lacks_a_page_in_the_middle_is_refused():
    whole = clip("vorbis", 5.0)
    first = whole.index(b"OggS", len(whole) // 2)
    second = whole.index(b"OggS", first + 4)
    error = refusal(whole[:first] + whole[second:])
    assert error.reason == "truncated"
    assert "is missing" in str(error)


def test_an_ogg_chain_that_changes_its_coding_is_refused():
    assert refusal(clip("opus") + clip("vorbis")).reason == "format_change"


def test_an_mp4_without_its_index_is_refused():
    whole = clip("m4a")
    error = refusal(whole[: whole.rindex(b"moov") - 4])
    assert error.reason == "truncated"
    assert "moov" in str(error)


def test_joined_mp3_files_are_never_shortened_to_the_first():
    """The first file's header counts only its own frames, and libsndfile stops there."""
    assert refusal(2 * encode_pyav(signal(44_100, 1, 1.0), 44_100, "mp3", "libmp3lame")).reason == "decode_error"
    _, waveform = decode(2 * clip("mp3"))
    assert waveform.shape[1] > 2.6 * 44_100


def test_an_mp3_header_that_counts_too_many_frames_is_refused():
    mp3 = bytearray(clip("mp3 low rate"))
    at = max(mp3.find(b"Xing"), mp3.find(b"Info")) + 8
    mp3[at : at + 4] = struct.pack(">I", 2 * struct.unpack(">I", mp3[at : at + 4])[0])
    assert refusal(bytes(mp3)).reason == "truncated"


@pytest.mark.parametrize(
    ("total", "reason"), [(100, "decode_error"), (30_000, "truncated"), (2**32, "truncated"), (2**36 - 1, "truncated")]
)
def test_a_flac_header_with_another_length_is_refused(total, reason):
    assert refusal(with_flac_total(clip("flac 16"), total)).reason == reason


def test_a_flac_header_with_another_rate_is_refused():
    flac = clip("flac 16")
    assert flac[18:20] == (16_000 >> 4).to_bytes(2, "big")
    error = refusal(flac[:18] + (48_000 >> 4).to_bytes(2, "big") + flac[20:])
    assert error.reason == "decode_error"
    assert "48000 Hz and its frames 16000 Hz" in str(error)


@pytest.mark.parametrize("total", [None, 0], ids=["declared length", "unknown length"])
def test_flac_files_joined_with_cat_are_refused(total):
    flac = clip("flac 16") if total is None else with_flac_total(clip("flac 16"), total)
    error = refusal(flac + flac)
    assert error.reason == "decode_error"
    assert f"a second FLAC stream begins at byte {len(flac)}" in str(error)


def test_a_flac_of_unknown_length_is_read_to_its_end():
    np.testing.assert_array_equal(decode(with_flac_total(clip("flac 16"), 0))[1], decode(clip("flac 16"))[1])


def test_damage_inside_a_flac_is_refused():
    flac = bytearray(with_soundfile("FLAC", "PCM_16", 16_000, 1, 30.0))
    middle = len(flac) // 2
    flac[middle : middle + 40] = bytes(40)
    error = refusal(bytes(flac))
    assert error.reason == "decode_error"
    assert "libsndfile cannot decode this flac file" in str(error)


def test_a_wav_data_size_beyond_the_file_is_refused_and_one_that_counts_its_header_is_not():
    wav = clip("wav 16")
    size = len(wav) - wav.index(b"data") - 8
    assert refusal(with_wav_data_size(wav, size + 1_000)).reason == "truncated"
    np.testing.assert_array_equal(decode(with_wav_data_size(wav, size + 44))[1], decode(wav)[1])


@pytest.mark.parametrize("lost", [1, 2, 43, 64])
def test_a_wav_that_lacks_its_last_bytes_is_refused(lost):
    assert refusal(clip("wav 16")[:-lost]).reason == "truncated"


def with_wav_fields(
    wav: bytes, block: int | None = None, bits: int | None = None, byte_rate: int | None = None
) -> bytes:
    """The WAV file with another header."""
    changed = bytearray(wav)
    for offset, kind, value in ((28, "<I", byte_rate), (32, "<H", block), (34, "<H", bits)):
        if value is not None:
            struct.pack_into(kind, changed, offset, value)
    return bytes(changed)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("bits", [8, 12, 16, 20, 24, 32, 64])
def test_a_wav_that_lies_about_its_bits_is_refused(subtype, channels, bits):
    wav = with_soundfile("WAV", subtype, 16_000, channels, 0.5)
    real = struct.unpack_from("<H", wav, 34)[0]
    if (bits + 7) // 8 == (real + 7) // 8:
        assert decode(with_wav_fields(wav, bits=bits))[1].shape == (channels, 8000)
        return
    assert refusal(with_wav_fields(wav, bits=bits)).reason == "decode_error"
    error = refusal(with_wav_fields(wav, bits=bits, block=channels * (bits + 7) // 8))  # only the rate of bytes is left
    assert error.reason == "decode_error"
    if bits < 64:
        assert f"samples of {bits} bits" in str(error)


def test_writers_that_leave_the_rate_of_bytes_out_are_read():
    wav = with_soundfile("WAV", "PCM_16", 16_000, 1, 0.5)
    for byte_rate in (0, 1, 12_345):
        assert decode(with_wav_fields(wav, byte_rate=byte_rate))[1].shape == (1, 8000)


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610"])
def test_what_fills_up_the_last_block_of_a_wav_is_no_sound(subtype):
    wav = bytearray(with_soundfile("WAV", subtype, 24_000, 1, 0.987))
    fact = wav.index(b"fact") + 8
    struct.pack_into("<I", wav, fact, 0)
    padded = decode(bytes(wav))[1]
    assert padded.shape[1] > 23_688
    struct.pack_into("<I", wav, fact, 23_688)
    waveform = decode(bytes(wav))[1]
    assert np.array_equal(waveform, padded[:, :23_688])
    blocks = list(decode_blocks(bytes(wav), block_seconds=0.1)[1])
    assert np.array_equal(np.concatenate(blocks, axis=1), waveform)
    for nonsense in (0, 1, 10, 10**9):  # no count of samples whose last block is filled up
        struct.pack_into("<I", wav, fact, nonsense)
        assert np.array_equal(decode(bytes(wav))[1], padded)


def nan_in(index: int, value: float) -> bytes:
    samples = np.zeros(1_000, np.float32)
    samples[index] = value
    return raw_wav(samples.tobytes(), tag=3, bits=32)


def html() -> bytes:
    return b"<!DOCTYPE html><html><body>404 Not Found</body></html>" + b" " * 5_000


DEFECTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "no bytes": (lambda: b"", "empty"),
    "HTML": (html, "not_audio"),
    "JSON": (lambda: b'{"error": "AccessDenied"}', "not_audio"),
    "zeros": (lambda: bytes(10_000), "not_audio"),
    "a playlist, which FFmpeg would follow": (lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not_audio"),
    "a concat script, which FFmpeg would follow": (lambda: b"ffconcat version 1.0\nfile /etc/passwd\n", "not_audio"),
    "a PNG": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), "not_audio"),
    "only RIFF": (lambda: b"RIFF", "not_audio"),
    "a WAV header alone": (lambda: clip("wav 16")[:44], "truncated"),
    "a WAV without samples": (lambda: raw_wav(b""), "no_samples"),
    "a WAV without a data chunk": (lambda: b"RIFF\x04\x00\x00\x00WAVE", "no_samples"),
    "an empty data chunk before another": (lambda: raw_wav(b"") + b"LIST\x04\x00\x00\x00abcd", "no_samples"),
    "a WAV of an unknown coding": (lambda: raw_wav(bytes(100), tag=0xABCD), "decode_error"),
    "a WAV of no channels": (lambda: raw_wav(bytes(100), channels=0), "decode_error"),
    "NaN": (lambda: nan_in(999, np.nan), "non_finite"),
    "infinity": (lambda: nan_in(0, -np.inf), "non_finite"),
    "1e38": (lambda: nan_in(500, 1e38), "bad_amplitude"),
    "floats scaled like 16-bit integers": (lambda: nan_in(500, -32_768.0), "bad_amplitude"),
    "a double beyond float32": (lambda: raw_wav(np.float64([1e300]).tobytes(), tag=3, bits=64), "non_finite"),
    "1,024 channels": (lambda: raw_wav(bytes(20_480), channels=1_024), "too_many_channels"),
    "33 channels": (lambda: raw_wav(bytes(6_600), channels=33), "too_many_channels"),
    "a rate of 2,147,483,647 Hz": (lambda: raw_wav(bytes(100), rate=2_147_483_647), "bad_sample_rate"),
    "a rate of 99 Hz": (lambda: raw_wav(bytes(100), rate=99), "bad_sample_rate"),
    "a rate of 0 Hz": (lambda: raw_wav(bytes(100), rate=0), "decode_error"),
    "a FLAC that ends in a megabyte of sync codes": (lambda: clip("flac 16")[:999] + b"\xff\xf8" * 2**19, "truncated"),
    "an Ogg without audio": (lambda: clip("opus").replace(b"OpusHead", b"OpusTail"), "no_audio_stream"),
    "an hour at 100 Hz, times 14": (lambda: raw_wav(bytes(2 * 100 * 3600 * 14), rate=100), "too_long"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_has_its_reason(defect):
    make, reason = DEFECTS[defect]
    error = refusal(make())
    assert error.reason == reason
    assert len(str(error)) > 15


def test_g722_is_believed_by_name_but_a_page_named_so_is_not():
    assert refusal(html(), name="prompt.g722").reason == "not_audio"
    assert refusal(clip("g722"), name="prompt.wav").reason == "not_audio"


def test_a_video_without_sound_has_no_audio_stream(tmp_path):
    import av

    path = tmp_path / "silent.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10, width=32, height=32)
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(stream.encode(None))
    assert refusal(path.read_bytes()).reason == "no_audio_stream"


def test_aac_that_changes_its_channels_midway_is_refused():
    mono, stereo = (encode_pyav(signal(44_100, n, 0.5), 44_100, "adts", "aac") for n in (1, 2))
    assert refusal(mono + stereo).reason == "format_change"


def test_a_flac_bomb_is_refused_in_bounded_memory():
    """12 hours of silence in some 100 KB: refused by its declared length, and again where it declares none."""
    import io

    import soundfile

    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 16_000, 1, subtype="PCM_16", format="FLAC") as sound:
        silence = np.zeros(16_000 * 600, np.int16)
        for _ in range(3):
            sound.write(silence)
    bomb = buffer.getvalue()
    limits = AudioLimits(max_seconds=1_200)
    assert refusal(bomb, limits=limits).reason == "too_long"
    tracemalloc.start()
    _, blocks = decode_blocks(with_flac_total(bomb, 0), limits)
    with pytest.raises(AudioError) as caught:
        for _ in blocks:
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason == "too_long"
    assert peak < 8 * 2**20


def test_an_error_crosses_process_borders_with_its_reason():
    error = pickle.loads(pickle.dumps(refusal(b"")))
    assert (error.reason, str(error)) == ("empty", str(refusal(b"")))


def test_a_reason_outside_the_list_cannot_be_made():
    with pytest.raises(KeyError, match="not one of the reasons"):
        AudioError("odd", "something")


def test_the_same_bad_clip_reads_alike_every_time():
    bad = raw_wav(bytes(100), channels=0)
    assert str(refusal(bad)) == str(refusal(bytes(bad)))
    assert "0x" not in str(refusal(bad))


def mutate(data: bytes, edits: list[tuple[int, int, int]]) -> bytes:
    """Flip, overwrite, remove, insert, repeat or cut at places given as fractions of 2^16."""
    out = bytearray(data)
    for kind, place, value in edits:
        at = (place * len(out)) >> 16 if value % 2 else min(place % 128, len(out))
        match kind:
            case 0:
                out[at : at + 1] = bytes([value % 256])
            case 1:
                out[at : at + 4] = [b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"][value % 4]
            case 2:
                del out[at : at + value % 300]
            case 3:
                out[at:at] = np.random.default_rng(value).bytes(value % 60)
            case 4:
                out[at:at] = out[at : at + value % 500]
            case _:
                del out[at:]
    return bytes(out)


def outcome_of(source: bytes, name: str | None) -> str:
    """ "waveform" where one came out, sound in shape and values; the reason where the clip was refused."""
    try:
        info, waveform = decode(source, name=name)
    except AudioError as refused:
        return refused.reason
    sound = waveform.dtype == np.float32 and waveform.shape[0] == info.channels and waveform.shape[1] > 0
    return "waveform" if sound and np.isfinite(waveform).all() else f"an odd waveform {waveform}"


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(CLIPS)),
    edits=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 65_535), st.integers(0, 65_535)), min_size=1, max_size=6
    ),
)
def test_any_bytes_give_a_waveform_or_an_audio_error(name, edits):
    started = time.process_time()
    outcome = outcome_of(mutate(clip(name, 0.4), edits), key_of(name))
    assert time.process_time() - started < 5
    assert outcome == "waveform" or outcome in REASONS


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=300), signature=st.sampled_from([clip(name, 0.4)[:48] for name in sorted(CLIPS)] + [b""])
)
def test_noise_behind_a_signature_gives_a_waveform_or_an_audio_error(data, signature):
    outcome = outcome_of(signature + data, "noise.g722")
    assert outcome == "waveform" or outcome in REASONS
