"""The codec computes what the release computes, and refuses what it cannot mean."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from moss_tok import EncoderOutput, MossAudioTokenizerModel
from moss_tok.precision import exact_float32
from tests.support import ROOT


def test_reference_codes_are_equal_and_hidden_states_agree(golden):
    for index, clip in enumerate(golden.clips):
        output = golden.model.encode(clip[None])
        expected_codes = golden.vectors[f"{index}.codes"].long()
        assert output.audio_codes_lengths.tolist() == [expected_codes.shape[1]]
        assert torch.equal(output.audio_codes[:, 0], expected_codes)
        expected = golden.vectors[f"{index}.hidden"]
        assert (output.encoder_hidden_states[0] - expected).norm() / expected.norm() < 2e-6


def test_reference_audio_is_decoded_from_any_number_of_quantizers(golden):
    names = [name for name in golden.vectors if ".audio_nq" in name]
    assert names
    for name in names:
        index, count = name.split(".audio_nq")
        expected = golden.vectors[name].reshape(golden.model.number_channels, -1)
        codes = golden.vectors[f"{index}.codes"]
        for output in (
            golden.model.decode(codes[: int(count), None]),
            golden.model.decode(codes, num_quantizers=int(count)),
        ):
            assert output.audio_lengths.tolist() == [expected.shape[1]]
            assert (output.audio[0] - expected).norm() / expected.norm() < 2e-6


def test_published_usage_runs(v1_tiny):
    model = MossAudioTokenizerModel.from_pretrained(v1_tiny.folder).eval()
    wav = torch.randn(1, 1, 3200, generator=torch.Generator().manual_seed(0))
    enc = model.encode(wav, return_dict=True)
    assert enc.audio_codes.shape == (32, 1, 2)
    assert enc.audio_codes.dtype == torch.int64
    assert enc.encoder_hidden_states.shape == (1, 48, 2)
    dec = model.decode(enc.audio_codes, return_dict=True)
    assert dec.audio.shape == (1, 1, 2 * 1920)
    dec_rvq8 = model.decode(enc.audio_codes[:8], return_dict=True)
    assert dec_rvq8.audio.squeeze(0).shape == (1, 2 * 1920)
    streamed = model.encode(wav, return_dict=True, chunk_duration=0.08)
    assert torch.equal(streamed.audio_codes, enc.audio_codes)
    dec = model.decode(enc.audio_codes, return_dict=True, chunk_duration=0.08)
    assert dec.audio.shape == (1, 1, 2 * 1920)
    assert model.sampling_rate == model.config.sampling_rate == 24000
    assert model.downsample_rate == 1920


def test_tuples_hold_what_the_outputs_hold(v1_tiny):
    wav = v1_tiny.clips[1]
    codes, lengths, hidden = v1_tiny.model.encode(wav, return_dict=False)
    output = v1_tiny.model.encode(wav)
    assert torch.equal(codes, output.audio_codes)
    assert torch.equal(lengths, output.audio_codes_lengths)
    assert torch.equal(hidden, output.encoder_hidden_states)
    audio, audio_lengths = v1_tiny.model.decode(codes, return_dict=False)
    assert torch.equal(audio, v1_tiny.model.decode(codes).audio)
    assert audio_lengths.tolist() == [7 * 1920]


def test_every_frame_with_a_sample_is_encoded(cat_tiny):
    for samples, frames in ((1, 1), (1919, 1), (1920, 1), (1921, 2), (3840, 2)):
        clip = torch.linspace(-0.5, 0.5, samples)
        output = cat_tiny.encode(clip)
        assert output.audio_codes_lengths.tolist() == [frames]
        padded = torch.nn.functional.pad(clip, (0, frames * 1920 - samples))
        assert torch.equal(output.audio_codes, cat_tiny.encode(padded).audio_codes)


def test_shapes_mean_the_same_clip(cat_tiny):
    clip = torch.sin(torch.arange(5000) / 20)
    expected = cat_tiny.encode(clip).audio_codes
    for same in (clip[None], clip[None, None], clip.numpy(), clip.double()):
        assert torch.equal(cat_tiny.encode(same).audio_codes, expected)
    assert torch.equal(cat_tiny.batch_encode([clip]).audio_codes, expected)
    assert torch.equal(cat_tiny.batch_encode([clip[None]]).audio_codes, expected)


def test_padding_mask_ends_each_clip(cat_tiny):
    batch = torch.randn(2, 9000, generator=torch.Generator().manual_seed(1)) / 10
    lengths = torch.tensor([9000, 4000])
    output = cat_tiny.encode(batch, padding_mask=torch.arange(9000) < lengths[:, None])
    assert output.audio_codes_lengths.tolist() == [5, 3]
    assert torch.equal(output.audio_codes[:, 1, :3], cat_tiny.encode(batch[1, :4000]).audio_codes[:, 0])
    assert output.audio_codes[:, 1, 3:].eq(0).all()
    assert output.encoder_hidden_states[1, :, 3:].eq(0).all()


def test_decode_mask_ends_each_clip(cat_tiny):
    codes = torch.randint(0, 1024, (32, 2, 6), generator=torch.Generator().manual_seed(2))
    mask = torch.arange(6) < torch.tensor([[6], [2]])
    output = cat_tiny.decode(codes, padding_mask=mask)
    assert output.audio_lengths.tolist() == [6 * 1920, 2 * 1920]
    assert torch.equal(output.audio[1, :, : 2 * 1920], cat_tiny.decode(codes[:, 1, :2]).audio[0])
    assert output.audio[1, :, 2 * 1920 :].eq(0).all()


def test_fewer_quantizers_are_a_prefix(golden):
    clip = golden.clips[1]
    every = golden.model.encode(clip[None]).audio_codes
    for count in (1, 3, golden.model.num_quantizers):
        assert torch.equal(golden.model.encode(clip[None], num_quantizers=count).audio_codes, every[:count])


def test_batch_decode_is_decode_of_each(golden):
    codes = [golden.vectors[f"{index}.codes"] for index in range(len(golden.clips))]
    output = golden.model.batch_decode(codes)
    for index, clip in enumerate(codes):
        alone = golden.model.decode(clip)
        length = int(output.audio_lengths[index])
        assert length == int(alone.audio_lengths[0])
        assert torch.equal(output.audio[index, :, :length], alone.audio[0])


def test_autocast_and_process_precision_change_nothing(cat_tiny):
    clip = torch.randn(30000, generator=torch.Generator().manual_seed(3)) / 10
    expected = cat_tiny.encode(clip)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = cat_tiny.encode(clip)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(output.encoder_hidden_states, expected.encoder_hidden_states)


def test_only_the_loaded_half_runs(v1_tiny):
    encoder = MossAudioTokenizerModel.from_pretrained(v1_tiny.folder, parts="encoder")
    decoder = MossAudioTokenizerModel.from_pretrained(v1_tiny.folder, parts="decoder")
    assert encoder.decoder is None
    assert decoder.encoder is None
    codes = encoder.encode(v1_tiny.clips[1]).audio_codes
    assert torch.equal(codes, v1_tiny.model.encode(v1_tiny.clips[1]).audio_codes)
    assert torch.equal(decoder.decode(codes).audio, v1_tiny.model.decode(codes).audio)
    with pytest.raises(RuntimeError, match="parts='encoder': it cannot decode"):
        encoder.decode(codes)
    with pytest.raises(RuntimeError, match="parts='decoder': it cannot encode"):
        decoder.encode(v1_tiny.clips[1])


CODES = torch.zeros(32, 1, 4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.encode([0.0]), TypeError, "torch tensor or numpy array, got list"),
        (lambda m: m.encode(torch.zeros(1, 2, 1920)), ValueError, r"must be \(batch, 1, samples\)"),
        (lambda m: m.encode(torch.zeros(1, 1, 1, 1920)), ValueError, r"got \(1, 1, 1, 1920\)"),
        (lambda m: m.encode(torch.tensor(0.5)), ValueError, r"got \(\)"),
        (lambda m: m.encode(torch.zeros(0)), ValueError, "no samples"),
        (lambda m: m.encode(torch.zeros(0, 1, 1920)), ValueError, "no samples"),
        (lambda m: m.encode(torch.zeros(1920, dtype=torch.int16)), TypeError, "floating point in .*int16; divide"),
        (lambda m: m.encode(torch.full((1920,), float("nan"))), ValueError, "NaN"),
        (lambda m: m.encode(np.full(1920, 1e300)), ValueError, "beyond float32"),
        (lambda m: m.encode(torch.zeros(1920), num_quantizers=0), ValueError, r"in 1\.\.32, got 0"),
        (lambda m: m.encode(torch.zeros(1920), num_quantizers=33), ValueError, r"in 1\.\.32, got 33"),
        (lambda m: m.encode(torch.zeros(1920), num_quantizers=8.0), TypeError, "whole number, got 8.0"),
        (lambda m: m.encode(torch.zeros(1920), chunk_duration=0.1), ValueError, "whole number of frames of 0.08 s"),
        (lambda m: m.encode(torch.zeros(1920), chunk_duration=0), ValueError, "whole number of frames"),
        (lambda m: m.encode(torch.zeros(1920), chunk_duration=float("nan")), ValueError, "whole number of frames"),
        (lambda m: m.encode(torch.zeros(1920), chunk_duration="10"), TypeError, "number of seconds"),
        (lambda m: m.encode(torch.zeros(2, 1920), torch.ones(2, 1919)), ValueError, r"\(2, 1920\), got \(2, 1919\)"),
        (lambda m: m.encode(torch.zeros(1, 4), torch.tensor([[1, 0, 1, 0]])), ValueError, "prefix"),
        (lambda m: m.encode(torch.zeros(1, 4), torch.zeros(1, 4)), ValueError, "hides clip 0 whole"),
        (lambda m: m.batch_encode(torch.zeros(2, 1920)), TypeError, "takes a list"),
        (lambda m: m.batch_encode([]), TypeError, "at least one"),
        (lambda m: m.batch_encode([torch.zeros(5), torch.zeros(0)]), ValueError, "waveform 1 has no samples"),
        (lambda m: m.batch_encode([torch.zeros(2, 5)]), ValueError, r"waveform 0 must be \(samples,\)"),
        (lambda m: m.decode(CODES.float()), TypeError, "must be integers, got torch.float32"),
        (lambda m: m.decode(CODES + 1024), ValueError, r"0\.\.1023, got values from 1024"),
        (lambda m: m.decode(CODES - 1), ValueError, r"0\.\.1023, got values from -1"),
        (lambda m: m.decode(torch.zeros(33, 1, 4, dtype=torch.int64)), ValueError, "1 to 32 quantizers"),
        (lambda m: m.decode(CODES[:, :, :0]), ValueError, "no frames"),
        (lambda m: m.decode(CODES[0, 0]), ValueError, "quantizers"),
        (lambda m: m.decode(CODES[:4], num_quantizers=5), ValueError, r"in 1\.\.4, got 5"),
        (lambda m: m.decode(CODES, chunk_duration=0.05), ValueError, "whole number of frames"),
        (lambda m: m.batch_decode([CODES[:8, 0], CODES[:9, 0]]), ValueError, r"same num_quantizers, got \[8, 9\]"),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(cat_tiny, call, error, message):
    with pytest.raises(error, match=message):
        call(cat_tiny)


def test_stereo_models_want_two_channels(stereo_tiny):
    with pytest.raises(ValueError, match=r"\(batch, 2, samples\) or \(2, samples\)"):
        stereo_tiny.model.encode(torch.zeros(1, 1, 3840))
    assert isinstance(stereo_tiny.model.encode(torch.zeros(2, 3840)), EncoderOutput)


def test_sums_on_a_gpu_are_neither_split_nor_rounded_on_the_way():
    """Whatever the process has set, which has its settings again afterwards."""

    def settings():
        cublas = torch.backends.cuda.matmul
        return (
            cublas.allow_bf16_reduced_precision_reduction,
            cublas.allow_bf16_reduced_precision_reduction_split_k,
            torch.backends.cuda.preferred_blas_library(),
        )

    before = settings()
    torch.backends.cuda.preferred_blas_library("cublaslt")
    try:
        with exact_float32(torch.device("cpu")):
            assert settings() == (False, False, torch._C._BlasBackend.Cublas)
        assert settings() == (True, True, torch._C._BlasBackend.Cublaslt)
    finally:
        torch.backends.cuda.preferred_blas_library("cublas")
    assert settings() == before


def test_convolutions_on_a_gpu_are_not_rounded_to_tf32_nor_chosen_by_their_time():
    """torch lets cuDNN round to TF32 by default. The codecs of other families are made of convolutions."""

    def settings():
        cudnn = torch.backends.cudnn
        return cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic

    assert settings() == (True, False, False)
    torch.backends.cudnn.benchmark = True
    try:
        with exact_float32(torch.device("cpu")):
            assert settings() == (False, False, True)
        assert settings() == (True, True, False)
    finally:
        torch.backends.cudnn.benchmark = False


EITHER_INTERFACE = """
import os, torch
from moss_tok.precision import OPERATIONS, exact_float32

def get():
    return [torch._C._get_fp32_precision_getter(*operation) for operation in OPERATIONS]

def try_out(change):
    exec(change)
    before = get()
    with exact_float32(torch.device("cpu")):
        assert get() == ["ieee"] * 6, get()
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    assert get() == before, (change, before, get())

for change in (
    'torch.backends.fp32_precision = "tf32"',
    'torch.backends.cuda.matmul.fp32_precision = "tf32"',
    'torch.backends.cudnn.conv.fp32_precision = "ieee"',
    'torch.backends.mkldnn.matmul.fp32_precision = "bf16"',
    'torch.set_float32_matmul_precision("medium")',
):
    if os.fork() == 0:
        try_out(change)
        os._exit(0)
    assert os.wait()[1] == 0, change
"""


def test_the_process_may_have_used_either_interface_to_the_precision_of_float32():
    """Each time in another process: torch does not let one interface undo what the other did."""
    run = subprocess.run([sys.executable, "-c", EITHER_INTERFACE], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_precision_is_chosen_when_loading(cat_tiny):
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16"):
        MossAudioTokenizerModel.from_pretrained("cat-tiny", dtype="float16")
    with pytest.raises(ValueError, match="parts must be"):
        MossAudioTokenizerModel.from_pretrained("cat-tiny", parts="quantizer")
    with pytest.raises(TypeError, match="chosen when loading"):
        cat_tiny.to(torch.float16)
