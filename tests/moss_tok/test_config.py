"""A config.json is read strictly where it shapes the computation, and leniently where it does not."""

from __future__ import annotations

import copy
import json

import pytest

from moss_tok import ModelConfigError, MossAudioTokenizerConfig
from moss_tok.config import TransformerConfig


def v1_config() -> dict:
    """The shape of the released v1 model."""

    def transformer(inputs, outputs, d_model, layers, heads):
        return {
            "module_type": "Transformer", "input_dimension": inputs, "output_dimension": outputs, "d_model": d_model,
            "num_heads": heads, "num_layers": layers, "dim_feedforward": 4 * d_model, "causal": True,
            "norm": "layer_norm", "positional_embedding": "rope", "max_period": 10000, "gating": "none",
            "layer_scale": 0.01, "conv_layout": True,
        }  # fmt: skip

    def patch(size):
        return {"module_type": "PatchedPretransform", "patch_size": size}

    return {
        "model_type": "speech_tokenizer", "sample_rate": 24000, "downsample_rate": 1920, "code_dim": 768,
        "causal_transformer_context_duration": 10, "reversed_decoder_kwargs": [], "attention_implementation": "sdpa",
        "encoder_kwargs": [
            patch(240), transformer(240, 384, 768, 12, 12), patch(2), transformer(768, 384, 768, 12, 12),
            patch(2), transformer(768, 640, 768, 12, 12), patch(2), transformer(1280, 768, 1280, 32, 20),
        ],
        "decoder_kwargs": [
            transformer(768, 1280, 1280, 32, 20), patch(2), transformer(640, 768, 768, 12, 12), patch(2),
            transformer(384, 768, 768, 12, 12), patch(2), transformer(384, 240, 768, 12, 12), patch(240),
        ],
        "quantizer_kwargs": {
            "quantizer_type": "rlfq", "input_dim": 768, "rvq_dim": 512, "output_dim": 768, "num_quantizers": 32,
            "codebook_size": 1024, "codebook_dim": 8,
        },
    }  # fmt: skip


def test_contexts_of_the_released_model():
    config = MossAudioTokenizerConfig.from_dict(v1_config())
    stages = [module for module in (*config.encoder, *config.decoder) if isinstance(module, TransformerConfig)]
    assert [stage.context for stage in stages] == [1000, 500, 250, 125, 125, 250, 500, 1000]
    assert {stage.head_dim for stage in stages} == {64}
    assert config.sampling_rate == config.sample_rate == 24000
    assert config.frame_rate == 12.5
    assert config.trained


def test_per_module_contexts_and_interleaved_channels(stereo_tiny):
    stages = [stage.config for stage in stereo_tiny.model.encoder.stages]
    assert [stage.context for stage in stages] == [200, 200, 200, 100]
    assert [float(stage.frame_rate) for stage in stages] == [200, 100, 50, 12.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["encoder_kwargs"][1].update(gating="swiglu"),
            r"encoder_kwargs\[1\]\.gating = 'swiglu' is not implem",
        ),
        (lambda c: c["encoder_kwargs"][1].update(norm="rms_norm"), r"norm = 'rms_norm' is not implemented"),
        (
            lambda c: c["decoder_kwargs"][0].update(positional_embedding="sin"),
            r"decoder_kwargs\[0\]\.positional_embedding",
        ),
        (lambda c: c["decoder_kwargs"][0].update(causal=False), "causal = False is not implemented"),
        (lambda c: c["encoder_kwargs"][0].update(module_type="Conv"), r"encoder_kwargs\[0\]\.module_type = 'Conv'"),
        (lambda c: c["quantizer_kwargs"].update(quantizer_type="rvq"), "quantizer_type = 'rvq' is not implemented"),
        (lambda c: c["encoder_kwargs"][1].update(num_heads=7), "d_model = 768 does not split into 7 heads"),
        (
            lambda c: c["encoder_kwargs"][1].update(output_dimension=383),
            r"encoder_kwargs\[3\]\.input_dimension is 768, but",
        ),
        (lambda c: c["encoder_kwargs"][0].update(patch_size=120), "25 frames per second"),
        (
            lambda c: c["encoder_kwargs"][0].update(patch_size=-2),
            r"patch_size must be a whole number of at least 1, got -2",
        ),
        (
            lambda c: c["quantizer_kwargs"].pop("rvq_dim"),
            r"quantizer_kwargs\.rvq_dim must be a whole number .* got None",
        ),
        (lambda c: c.pop("downsample_rate"), "downsample_rate must be a whole number"),
        (lambda c: c.update(encoder_kwargs="big"), "encoder_kwargs must be a list of modules"),
        (lambda c: c.update(number_channels=2), "enable_channel_interleave"),
        (lambda c: c.update(causal_transformer_context_duration=float("inf")), "must be a number above 0"),
        (lambda c: c.update(causal_transformer_context_duration=0.001), "shorter than one step"),
        (lambda c: c["decoder_kwargs"].pop(), "the decoder's patches give"),
    ],
)
def test_what_is_not_implemented_or_contradictory_is_named(change, message):
    config = copy.deepcopy(v1_config())
    change(config)
    with pytest.raises(ModelConfigError, match=message):
        MossAudioTokenizerConfig.from_dict(config)


def test_a_file_that_is_no_config(tmp_path):
    path = tmp_path / "config.json"
    for content in (b"<html>", b"\xff\xfe", b"[1]", b"{}"):
        path.write_bytes(content)
        with pytest.raises(ModelConfigError, match=r"config\.json"):
            MossAudioTokenizerConfig.from_file(path)
    path.write_text(json.dumps(v1_config()))
    assert MossAudioTokenizerConfig.from_file(path).to_dict() == v1_config()
