"""XY-Tokenizer, with a stand-in for its checkout: the same modules, constructor, encode and decode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from pipeline.codecs import CodecError, find_codec, load_codec
from pipeline.codecs.xy_tokenizer import CHECKOUT
from pipeline.config import parse_config
from pipeline.dataset.opening import with_absolute_uris
from pipeline.items import as_matrix
from pipeline.verify import verify
from tests.support import rows, tokenize_in_process

QUANTIZER = """
import torch

class ResidualVQ(torch.nn.Module):
    def __init__(self, num_quantizers, codebook_size, codebook_dim):
        super().__init__()
        self.register_buffer("codebooks", torch.zeros(num_quantizers, codebook_size, codebook_dim))

    def forward(self, latents):
        codes = []
        for book in self.codebooks:
            codes.append(torch.cdist(latents, book).argmin(dim=1))
            latents = latents - book[codes[-1]]
        return torch.stack(codes)

    def decode_codes(self, codes):
        return sum(book[layer] for book, layer in zip(self.codebooks, codes, strict=True))
"""
MODEL = """
import torch
from .nn.quantizer import ResidualVQ

class XY_Tokenizer(torch.nn.Module):
    def __init__(self, generator_params):
        super().__init__()
        self.rate = generator_params["input_sample_rate"]
        self.frame = generator_params["encoder_downsample_rate"]
        size = generator_params["quantizer_kwargs"]["codebook_dim"]
        self.encoder = torch.nn.Linear(self.frame, size)
        self.decoder = torch.nn.Linear(size, generator_params["decoder_upsample_rate"])
        self.quantizer = ResidualVQ(**generator_params["quantizer_kwargs"])

    def encode(self, wav_list, overlap_seconds=10):
        return {"codes_list": [self._encode(wav, (30 - overlap_seconds) * self.rate) for wav in wav_list]}

    def decode(self, codes_list, overlap_seconds=10):
        frames = [self.decoder(self.quantizer.decode_codes(codes)) for codes in codes_list]
        return {"syn_wav_list": [each.flatten() for each in frames]}

    def _encode(self, wav, valid):
        found = []
        for start in range(0, len(wav), valid):
            window = wav[start : start + 30 * self.rate]
            whole = window[: len(window) // self.frame * self.frame].reshape(-1, self.frame)
            found.append(self.quantizer(self.encoder(whole - window.mean()))[:, : valid // self.frame])
        return torch.cat(found, dim=1)[:, : len(wav) // self.frame]
"""
PARAMETERS: dict[str, Any] = {
    "input_sample_rate": 16_000, "output_sample_rate": 24_000, "encoder_downsample_rate": 1280,
    "decoder_upsample_rate": 1920, "semantic_encoder_adapter_kwargs": {},
    "quantizer_kwargs": {"num_quantizers": 8, "codebook_size": 64, "codebook_dim": 16},
}  # fmt: skip
QUANTIZERS = 8


def write_code(folder: Path) -> None:
    (folder / "xy_tokenizer" / "nn").mkdir(parents=True)
    (folder / "xy_tokenizer" / "model.py").write_text(MODEL)
    (folder / "xy_tokenizer" / "nn" / "quantizer.py").write_text(QUANTIZER)


def library() -> Any:
    """The model without the adapter."""
    code: dict[str, Any] = {}
    exec(QUANTIZER + MODEL.replace("from .nn.quantizer import ResidualVQ", ""), code)
    return code["XY_Tokenizer"](PARAMETERS)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "XY_Tokenizer"
    write_code(folder)
    monkeypatch.setenv(CHECKOUT, str(folder))
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """As docs/codecs.md has the published file converted, of random values."""
    generator = torch.Generator().manual_seed(7)
    sizes = {"encoder.weight": (16, 1280), "encoder.bias": (16,), "decoder.weight": (1920, 16), "decoder.bias": (1920,)}
    tensors = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    tensors["quantizer.codebooks"] = torch.randn((QUANTIZERS, 64, 16), generator=generator)
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"generator_params": PARAMETERS}))
    return folder


def test_codes_and_sound_are_those_of_the_checkout_on_each_clip_alone(checkout: Path, weights: Path):
    source = find_codec(str(weights))
    codec, model = load_codec(source, "cpu"), library()
    model.load_state_dict(load_file(weights / "model.safetensors"))
    random = np.random.default_rng(3)
    lengths = (1, 1279, 1280, 1281, 16_000, 31 * 16_000 + 7)
    clips = [(0.1 * random.standard_normal((1, length))).astype(np.float32) for length in lengths]
    for clip, coded in zip(clips, codec.launch(clips, QUANTIZERS).result(), strict=True):
        samples = clip.shape[1]
        sound = torch.nn.functional.pad(torch.from_numpy(clip[0]), (0, max(0, 1280 - samples)))
        with torch.inference_mode():
            (expected,) = model.encode([sound])["codes_list"]
            (audible,) = model.decode([expected])["syn_wav_list"]
        assert np.array_equal(as_matrix(coded.codes), expected.numpy())
        assert source.description.lengths(samples) == (max(1, samples // 1280),) * QUANTIZERS
        (decoded,) = codec.decode([coded], [samples])
        assert decoded.shape == (1, -(-samples * 24_000 // 16_000))
        heard = min(decoded.shape[1], len(audible))
        assert np.allclose(decoded[0, :heard], audible[:heard].numpy(), atol=1e-6)
        assert not decoded[0, heard:].any(), "what has no code is silence"
    assert len(np.unique(as_matrix(coded.codes))) > QUANTIZERS


def test_tokenized_rows_are_verified(checkout: Path, weights: Path, tmp_path: Path):
    sound = 0.1 * np.random.default_rng(5).standard_normal(20_000)
    soundfile.write(tmp_path / "a.wav", sound, 16_000)
    document = {
        "input": {"splits": {"train": [str(tmp_path / "a.wav")]}, "format": "auto"},
        "output": {"uri": str(tmp_path / "codes")},
        "model": {"name": str(weights), "device": "cpu"},
    }
    tokenize_in_process(with_absolute_uris(parse_config(document)))
    (row,) = rows(tmp_path / "codes")
    assert row["num_frames"] == 20_000 // 1280
    findings = verify(str(tmp_path / "codes"), sample=None)
    assert not findings.wrong, findings.as_json()
    (checkout / "xy_tokenizer" / "model.py").write_text(MODEL + "# changed\n")
    with pytest.raises(ValueError, match="has other weights"):
        verify(str(tmp_path / "codes"), sample=None)


def test_code_is_run_only_from_the_folder_that_is_named(
    checkout: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_code(weights)
    monkeypatch.chdir(weights)
    monkeypatch.delenv(CHECKOUT)
    with pytest.raises(CodecError, match=f"set the environment variable {CHECKOUT}"):
        find_codec(str(weights))
    monkeypatch.setenv(CHECKOUT, str(tmp_path / "elsewhere"))
    with pytest.raises(CodecError, match=r"elsewhere.*is not there"):
        find_codec(str(weights))


def test_the_code_decides_codes_as_the_weights_do(checkout: Path, weights: Path):
    before = find_codec(str(weights)).config_hash
    (checkout / "README.md").write_text("read me")
    assert find_codec(str(weights)).config_hash == before
    file = checkout / "xy_tokenizer" / "nn" / "quantizer.py"
    file.write_text(QUANTIZER.replace("argmin", "argmax"))
    assert find_codec(str(weights)).config_hash != before
    clip = np.random.default_rng(3).standard_normal((1, 16_000)).astype(np.float32)
    other = load_codec(find_codec(str(weights)), "cpu").launch([clip], QUANTIZERS).result()[0]
    file.write_text(QUANTIZER)
    usual = load_codec(find_codec(str(weights)), "cpu").launch([clip], QUANTIZERS).result()[0]
    assert not np.array_equal(as_matrix(other.codes), as_matrix(usual.codes))


def test_what_cannot_be_loaded_is_a_message(checkout: Path, weights: Path):
    with pytest.raises(CodecError, match="decode all 8 together"):
        find_codec(str(weights)).description.first(4)
    (weights / "model.safetensors").rename(weights / "xy_tokenizer.ckpt")
    with pytest.raises(CodecError, match="published as a pickle"):
        load_codec(find_codec(str(weights)), "cpu")
    file = checkout / "xy_tokenizer" / "model.py"
    file.write_text("import no_such_package\n")
    with pytest.raises(CodecError, match="not installed: No module named 'no_such_package'"):
        load_codec(find_codec(str(weights)), "cpu")
    file.write_text(MODEL.replace('"encoder_downsample_rate"', '"another_name"'))
    with pytest.raises(CodecError, match="KeyError: 'another_name'"):
        load_codec(find_codec(str(weights)), "cpu")
