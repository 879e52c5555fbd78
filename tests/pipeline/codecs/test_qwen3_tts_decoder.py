"""The decoder of Qwen3-TTS, part for part, against modules of transformers that have the same arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.codecs import CodecError, find_codec, load_codec
from pipeline.codecs.plain_models import fill
from pipeline.codecs.qwen3_tts import Tokenizer
from pipeline.codecs.qwen3_tts_config import DecoderConfig
from pipeline.codecs.qwen3_tts_decoder import CHUNK_FRAMES, CONTEXT_FRAMES, Decoder
from pipeline.codecs.registry import family_named
from tests.pipeline.codecs.test_registry import changed

pytestmark = pytest.mark.slow  # transformers is imported

Folder = Callable[[str], Path]
PUBLISHED = {
    "codebook_size": 2048, "codebook_dim": 512, "num_quantizers": 16, "latent_dim": 1024, "hidden_size": 512,
    "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 64,
    "intermediate_size": 1024, "sliding_window": 72, "rms_norm_eps": 1e-5, "rope_theta": 10_000,
    "upsampling_ratios": [2, 2], "upsample_rates": [8, 5, 4, 3], "decoder_dim": 1536, "hidden_act": "silu",
    "attention_bias": False,
}  # fmt: skip
"""The section `decoder_config` of Qwen/Qwen3-TTS-Tokenizer-12Hz, as far as it is read."""
PUBLISHED_ENCODER = {
    "_frame_rate": 12.5, "audio_channels": 1, "codebook_dim": 256, "codebook_size": 2048, "compress": 2,
    "dilation_growth_rate": 2, "head_dim": 64, "hidden_act": "gelu", "hidden_size": 512, "intermediate_size": 2048,
    "kernel_size": 7, "last_kernel_size": 3, "norm_eps": 1e-5, "num_attention_heads": 8, "num_filters": 64,
    "num_hidden_layers": 8, "num_key_value_heads": 8, "num_quantizers": 32, "num_residual_layers": 1,
    "num_semantic_quantizers": 1, "pad_mode": "constant", "residual_kernel_size": 3, "rope_theta": 10_000.0,
    "sampling_rate": 24_000, "sliding_window": 250, "upsample_groups": 512, "upsampling_ratios": [8, 6, 5, 4],
    "use_causal_conv": True, "use_conv_shortcut": False, "vector_quantization_hidden_dimension": 256,
}  # fmt: skip
PUBLISHED_CONFIG = {
    "model_type": "qwen3_tts_tokenizer_12hz", "encoder_config": PUBLISHED_ENCODER, "decoder_config": PUBLISHED,
    "encoder_valid_num_quantizers": 16, "input_sample_rate": 24_000, "output_sample_rate": 24_000,
    "encode_downsample_rate": 1920, "decode_upsample_rate": 1920,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(model_folder: Folder) -> Tokenizer:
    source = find_codec(str(model_folder("qwen3_tts")))
    config = json.loads((source.checkpoint.folder / "config.json").read_text())
    model = fill(Tokenizer(config), source.checkpoint)
    assert isinstance(model, Tokenizer)
    return model.eval().requires_grad_(False)


@pytest.fixture
def decoder(tokenizer: Tokenizer) -> Decoder:
    return tokenizer.decoder


def random_codes(frames: int, books: int = 4) -> torch.Tensor:
    return torch.randint(64, (2, books, frames), generator=torch.Generator().manual_seed(1))


def omni(width: int, **changes: Any) -> Any:
    """Qwen3-Omni's decoder of the same form, with its upsampling cut at the end only, as Qwen3-TTS corrected it."""
    from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeCode2WavConfig
    from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import (
        Qwen3OmniMoeCausalTransConvNet,
        Qwen3OmniMoeCode2Wav,
    )

    settings = {
        "codebook_size": 64, "hidden_size": width, "num_attention_heads": 4, "num_key_value_heads": 2,
        "sliding_window": 5, "intermediate_size": 32, "num_hidden_layers": 2, "num_quantizers": 4, "decoder_dim": 32,
        "rms_norm_eps": 1e-5, "head_dim": 8,
    }  # fmt: skip
    model = Qwen3OmniMoeCode2Wav(Qwen3OmniMoeCode2WavConfig(**settings | changes)).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, Qwen3OmniMoeCausalTransConvNet):
            module.left_pad, module.right_pad = 0, module.conv.kernel_size[0] - module.conv.stride[0]
    return model


def test_codes_are_looked_up_as_in_mimi(decoder: Decoder):
    import transformers

    settings = {
        "hidden_size": 16, "codebook_size": 64, "codebook_dim": 8, "vector_quantization_hidden_dimension": 8,
        "num_quantizers": 4, "num_filters": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "upsample_groups": 16,
    }  # fmt: skip
    theirs = transformers.MimiModel(transformers.MimiConfig(**settings)).quantizer
    names = {"rvq_first.vq": "semantic_residual_vector_quantizer", "rvq_rest.vq": "acoustic_residual_vector_quantizer"}
    renamed = {}
    for name, tensor in decoder.quantizer.state_dict().items():
        for ours, their in names.items():
            name = name.replace(ours, their).replace(ours.removesuffix(".vq"), their)
        renamed[name.replace("_codebook.embedding_sum", "codebook.embed_sum").replace("_codebook", "codebook")] = tensor
    missing, unexpected = theirs.load_state_dict(renamed, strict=False)
    assert all(name.endswith("initialized") for name in missing)
    assert not unexpected
    for books in (1, 2, 4):
        codes = random_codes(9, books)
        assert torch.allclose(decoder.quantizer(codes), theirs.decode(codes), atol=1e-6)


def test_the_transformer_is_that_of_qwen3_omni_between_two_projections(decoder: Decoder):
    theirs = omni(16).pre_transformer
    ours = decoder.pre_transformer
    own = {name: tensor for name, tensor in ours.state_dict().items() if "put_proj" not in name}
    theirs.load_state_dict(own, strict=True)
    latents = torch.randn(2, 23, 24, generator=torch.Generator().manual_seed(2))
    expected = ours.output_proj(theirs(inputs_embeds=ours.input_proj(latents)).last_hidden_state)
    assert torch.allclose(ours(latents), expected, atol=1e-5)


def test_the_convolutions_are_those_of_qwen3_omni(decoder: Decoder):
    theirs = omni(24)
    theirs.upsample.load_state_dict(decoder.upsample.state_dict(), strict=True)
    theirs.decoder.load_state_dict(decoder.decoder.state_dict(), strict=True)
    latents = torch.randn(2, 24, 6, generator=torch.Generator().manual_seed(3))
    hidden = latents
    for blocks in theirs.upsample:
        for block in blocks:
            hidden = block(hidden)
    assert torch.allclose(decoder.upsample(latents), hidden, atol=1e-5)
    for block in theirs.decoder:
        hidden = block(hidden)
    found = decoder.decoder(decoder.upsample(latents))
    assert found.shape == (2, 1, 6 * 1920)
    assert torch.allclose(found, hidden, atol=1e-4, rtol=1e-4)
    assert found.std() > 1e-3


def test_nothing_looks_ahead(decoder: Decoder):
    codes = random_codes(8)
    other = codes.clone()
    other[..., 5:] = (other[..., 5:] + 1) % 64
    one, two = decoder(codes), decoder(other)
    assert torch.allclose(one[..., : 5 * 1920], two[..., : 5 * 1920], atol=1e-6)
    assert not torch.allclose(one[..., 5 * 1920 :], two[..., 5 * 1920 :], atol=1e-3)


def test_a_long_clip_is_decoded_in_chunks_with_what_came_before(decoder: Decoder):
    codes = random_codes(CHUNK_FRAMES + 7)[:1]
    sound = decoder(codes)
    assert sound.shape == (1, 1, codes.shape[-1] * 1920)
    assert torch.equal(sound[..., : CHUNK_FRAMES * 1920], decoder(codes[..., :CHUNK_FRAMES]))
    last = decoder(codes[..., CHUNK_FRAMES - CONTEXT_FRAMES :])[..., CONTEXT_FRAMES * 1920 :]
    assert torch.equal(sound[..., CHUNK_FRAMES * 1920 :], last)


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_weights_that_are_missing_or_unknown_are_refused(model_folder: Folder, tmp_path: Path, change: str):
    name = changed(model_folder("qwen3_tts"), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensor = tensors["encoder.downsample.conv.weight"]
    if change == "missing":
        del tensors["encoder.downsample.conv.weight"]
    else:
        tensors["encoder.upsample.conv.weight"] = tensor.clone()
    save_file(tensors, file)
    with pytest.raises(CodecError, match=r"do not fit its config\.json"):
        load_codec(find_codec(name), "cpu")


def test_a_decoder_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"decoder_config\.hidden_act: 'gelu'"):
        DecoderConfig.from_json(PUBLISHED | {"hidden_act": "gelu"})


def test_the_published_configuration_gives_tensors_of_the_published_names_and_shapes():
    """A few of each part, as a listing of the published file has them."""
    description = family_named("qwen3_tts").describe(PUBLISHED_CONFIG)
    assert description.sample_rate == 24_000
    assert {(book.size, book.samples_per_code) for book in description.codebooks} == {(2048, 1920)}
    assert len(description.codebooks) == 16
    with torch.device("meta"):
        model = Tokenizer(PUBLISHED_CONFIG)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    decoder = {
        "quantizer.rvq_first.input_proj.weight": (256, 512, 1),
        "quantizer.rvq_first.output_proj.weight": (512, 256, 1),
        "quantizer.rvq_first.vq.layers.0._codebook.cluster_usage": (2048,),
        "quantizer.rvq_rest.vq.layers.14._codebook.embedding_sum": (2048, 256),
        "pre_conv.conv.weight": (1024, 512, 3),
        "pre_transformer.input_proj.weight": (512, 1024),
        "pre_transformer.layers.7.self_attn.q_proj.weight": (1024, 512),
        "pre_transformer.layers.7.mlp.down_proj.weight": (512, 1024),
        "pre_transformer.layers.7.mlp_layer_scale.scale": (512,),
        "pre_transformer.output_proj.bias": (1024,),
        "upsample.1.1.dwconv.conv.weight": (1024, 1, 7),
        "upsample.1.1.pwconv1.weight": (4096, 1024),
        "decoder.2.block.1.conv.weight": (768, 384, 10),
        "decoder.4.block.4.conv1.conv.weight": (96, 96, 7),
        "decoder.5.alpha": (96,),
        "decoder.6.conv.weight": (1, 96, 7),
    }
    encoder = {
        "encoder.layers.1.block.1.conv.weight": (32, 64, 3),
        "encoder.layers.14.conv.weight": (512, 1024, 3),
        "encoder_transformer.layers.7.input_layernorm.bias": (512,),
        "encoder_transformer.layers.7.mlp.fc1.weight": (2048, 512),
        "encoder_transformer.layers.7.self_attn_layer_scale.scale": (512,),
        "downsample.conv.weight": (512, 512, 4),
        "quantizer.acoustic_residual_vector_quantizer.input_proj.weight": (256, 512, 1),
        "quantizer.acoustic_residual_vector_quantizer.layers.30.codebook.cluster_usage": (2048,),
        "quantizer.semantic_residual_vector_quantizer.layers.0.codebook.embed_sum": (2048, 256),
        "quantizer.semantic_residual_vector_quantizer.layers.0.codebook.initialized": (1,),
    }
    expected = {f"decoder.{name}": shape for name, shape in decoder.items()} | {
        f"encoder.{name}": shape for name, shape in encoder.items()
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert len(shapes) == 496
