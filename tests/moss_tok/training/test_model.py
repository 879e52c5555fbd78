from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from moss_tok import MossAudioTokenizerModel
from moss_tok.training.export import load_tensors, write_checkpoint
from moss_tok.training.losses import distances
from moss_tok.training.model import TrainableCodec
from moss_tok.training.recipe import codec_config
from tests.moss_tok.training.conftest import SHAPE, voices


@pytest.fixture
def stirred(codec: TrainableCodec) -> TrainableCodec:
    """Layers that matter: at the start they hardly do, and an error in them would not be seen."""
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            if "layer_scale" in name:
                parameter.add_(0.5)
            elif "norm" in name:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    return codec


def test_plain_and_packed_codec_agree_on_the_same_weights(stirred, tmp_path):
    write_checkpoint(tmp_path, stirred, None, dtype=torch.float32)
    packed = MossAudioTokenizerModel.from_pretrained(tmp_path)
    clips = voices(3, 40 * 1920, seed=11)
    with torch.no_grad():
        latents = stirred.encode(clips)
        codes, _ = stirred.quantizer.codes_of(latents.flatten(0, 1))
        decoded = {
            count: stirred.decode(stirred.quantizer.parts(codes)[:, :count].sum(1).view_as(latents)) for count in (2, 8)
        }
    codes = codes.view(3, 40, 8).permute(2, 0, 1)
    theirs = packed.encode(clips[:, None]).audio_codes
    assert (codes == theirs).float().mean() > 0.995  # a tie within rounding may fall either way
    for count, audio in decoded.items():
        again = packed.decode(codes[:count]).audio[:, 0]
        assert (audio - again).abs().max() < 1e-4 * audio.abs().max()


def test_layers_change_what_the_codec_computes(stirred, codec, sound):
    with torch.no_grad():
        latents = stirred.encode(sound[:2])
        for stage in stirred.encoder.stages:
            for layer in stage.transformer.layers:
                layer.layer_scale_1.scale.zero_()
                layer.layer_scale_2.scale.zero_()
        assert (stirred.encode(sound[:2]) - latents).norm() > 0.05 * latents.norm()


def test_float16_weights_load_as_their_exact_values(codec, tmp_path):
    write_checkpoint(tmp_path, codec, None)
    stored = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    packed = MossAudioTokenizerModel.from_pretrained(tmp_path)
    loaded = dict(packed.named_parameters())
    for name in ("encoder.1.input_proj.weight", "quantizer.quantizers.3.codebook.weight"):
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], stored[name].float())


def test_a_checkpoint_comes_back_as_the_same_codec(codec, tmp_path, sound):
    write_checkpoint(tmp_path, codec, None, dtype=torch.float32)
    again = TrainableCodec(codec_config(SHAPE))
    load_tensors(again, load_file(tmp_path / "model.safetensors"))
    with torch.no_grad():
        assert torch.allclose(again.encode(sound), codec.encode(sound), atol=1e-4, rtol=1e-4)


def test_weights_too_large_for_float16_are_refused(codec, tmp_path):
    with torch.no_grad():
        codec.encoder.stages[0].input_proj.weight[0, 0] = 1e6
    with pytest.raises(OverflowError, match=r"encoder\.1\.input_proj\.weight"):
        write_checkpoint(tmp_path, codec, None)


def test_the_future_is_not_seen(stirred, sound):
    changed = sound[:2].clone()
    changed[:, 10 * 1920 :] = 0
    with torch.no_grad():
        before, after = stirred.encode(sound[:2]), stirred.encode(changed)
    assert torch.allclose(before[:, :10], after[:, :10], atol=1e-5)
    assert not torch.allclose(before[:, 10:], after[:, 10:], atol=1e-3)


def test_in_bfloat16_the_codec_computes_and_learns_nearly_the_same(stirred, sound):
    gradients, latents, decoded = {}, {}, {}
    for products in (torch.float32, torch.bfloat16):
        stirred.products = products
        stirred.zero_grad()
        latents[products] = stirred.encode(sound[:4])
        decoded[products] = stirred.decode(latents[products])
        losses = distances(decoded[products], sound[:4], 24000, torch.ones(4))
        (losses.log_mel + losses.magnitude + losses.waveform).backward()
        parameters = [*stirred.encoder.parameters(), *stirred.decoder.parameters()]
        gradients[products] = torch.cat([value.grad.flatten() for value in parameters])
    for exact, rounded in (latents.values(), decoded.values()):
        assert rounded.dtype == torch.float32
        assert 1e-5 * exact.norm() < (rounded - exact).norm() < 0.01 * exact.norm()
    assert torch.cosine_similarity(*gradients.values(), dim=0) > 0.98
