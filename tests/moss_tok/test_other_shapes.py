"""Models of shapes that no release has, against the plain padded algorithm, and alone against batched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.codec_baseline import encode_padded
from benchmarks.codec_models import random_weights
from moss_tok import MossAudioTokenizerConfig, MossAudioTokenizerModel

# (patch size, input dimension, d_model, heads, layers, feed-forward, output dimension, context in seconds)
STAGES = {
    "narrow": ((100, 100, 20, 1, 2, 36, 10, 0.05), (4, 40, 28, 2, 1, 50, 6, 3)),
    "wide": ((20, 20, 48, 2, 1, 100, 30, 0.7), (10, 300, 72, 3, 2, 104, 44, 20), (2, 88, 88, 2, 1, 24, 6, 1)),
}


def make_model(name: str, folder: Path) -> MossAudioTokenizerModel:
    """A mono codec at 4 kHz and 10 frames per second with 5 quantizers of 200 x 6, and random weights."""

    def stage(inputs, d_model, heads, layers, feedforward, outputs, context):
        return {
            "module_type": "Transformer", "input_dimension": inputs, "output_dimension": outputs, "d_model": d_model,
            "num_heads": heads, "num_layers": layers, "dim_feedforward": feedforward, "causal": True, "gating": "none",
            "norm": "layer_norm", "positional_embedding": "rope", "max_period": 500, "context_duration": context,
        }  # fmt: skip

    def patch(size):
        return {"module_type": "PatchedPretransform", "patch_size": size}

    encoder = [module for size, *shape in STAGES[name] for module in (patch(size), stage(*shape))]
    source = {
        "sampling_rate": 4000, "downsample_rate": 400, "causal_transformer_context_duration": 10,
        "encoder_kwargs": encoder,
        "decoder_kwargs": [stage(12, 16, 2, 1, 20, 400, 2), patch(400)],
        "quantizer_kwargs": {
            "quantizer_type": "rlfq", "input_dim": 6, "rvq_dim": 10, "output_dim": 12, "num_quantizers": 5,
            "codebook_size": 200, "codebook_dim": 6,
        },
    }  # fmt: skip
    with torch.device("meta"):
        empty = MossAudioTokenizerModel(MossAudioTokenizerConfig.from_dict(source), set(), "all")
    shapes = {parameter: tuple(tensor.shape) for parameter, tensor in empty.named_parameters()}
    weights = random_weights(shapes)
    for parameter in weights:
        if parameter.endswith(".scale"):
            weights[parameter].fill_(0.7)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(source))
    return MossAudioTokenizerModel.from_pretrained(folder)


@pytest.fixture(scope="module", params=sorted(STAGES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MossAudioTokenizerModel:
    return make_model(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def clips() -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(samples, generator=draw) for samples in (1, 399, 400, 7_000, 30_001, 90_000)]


@pytest.mark.slow
def test_codes_are_those_of_the_plain_algorithm(model, clips):
    output = model.batch_encode(clips)
    for index, codes in enumerate(encode_padded(model, clips)):
        assert int(output.audio_codes_lengths[index]) == codes.shape[1]
        assert torch.equal(output.audio_codes[:, index, : codes.shape[1]], codes)
    assert len(output.audio_codes[0].unique()) > 20


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3, 4])
def test_no_neighbour_thread_or_chunk_is_seen(model, clips, threads):
    torch.set_num_threads(1)
    alone = [model.encode(clip) for clip in clips]
    torch.set_num_threads(threads)
    for chunk_duration in (None, 0.1, 1.7):
        batch = model.batch_encode(clips, chunk_duration=chunk_duration)
        for index, expected in enumerate(alone):
            length = int(expected.audio_codes_lengths[0])
            assert torch.equal(batch.audio_codes[:, index, :length], expected.audio_codes[:, 0])
            assert torch.equal(batch.encoder_hidden_states[index, :, :length], expected.encoder_hidden_states[0])
    codes = [output.audio_codes[:, 0] for output in alone]
    audio = model.batch_decode(codes, chunk_duration=0.9).audio
    torch.set_num_threads(1)
    for index, clip in enumerate(codes):
        expected = model.decode(clip).audio[0]
        assert torch.equal(audio[index, :, : expected.shape[1]], expected)
