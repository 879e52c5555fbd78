"""Small random models of every family, saved as a trained one would be: `config.json` and `model.safetensors`.

Codebooks are filled: an untrained codebook of zeros would give code 0 everywhere, and prove nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SEED = 7


Latents = Callable[[Any, torch.Tensor], torch.Tensor]
"""What a model's first codebook quantizes, (1, dimension, frames), from sound (1, channels, samples)."""


def _fill(model: torch.nn.Module, latents: torch.Tensor | None = None) -> None:
    """Codebooks of the latents' own mean and size, so that many of their codes occur."""
    generator = torch.Generator().manual_seed(SEED)
    first = True
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith(("codebook.embed", "embed_sum", "embed_avg", "codebook.weight", "embedding_sum")):
                values = torch.randn(tensor.shape, generator=generator)
                if latents is not None and latents.shape[1] == tensor.shape[1]:
                    values = values * latents.std(dim=(0, 2)) + (latents.mean(dim=(0, 2)) if first else 0)
                    first = "avg" in name  # a copy of the same codebook comes next
                tensor.copy_(values)
            elif name.endswith(("cluster_size", "inited")):
                tensor.fill_(1)
            elif "layer_scale" in name:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)


def noise(channels: int, samples: int) -> torch.Tensor:
    """Sound (1, channels, samples) that always is the same."""
    generator = torch.Generator().manual_seed(SEED)
    return 0.1 * torch.randn(1, channels, samples, generator=generator)


def _save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def _transformers(name: str, latents: Latents | None = None, **settings: Any) -> Any:
    import transformers

    torch.manual_seed(SEED)
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**settings))
    model.eval()
    with torch.no_grad():
        _fill(model, latents(model, noise(getattr(model.config, "audio_channels", 1), 24_000)) if latents else None)
    return model


def mimi(folder: Path, **changes: Any) -> Path:
    settings = {
        "hidden_size": 32, "num_filters": 4, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "head_dim": 16, "intermediate_size": 64, "codebook_size": 64, "codebook_dim": 16, "num_quantizers": 6,
        "vector_quantization_hidden_dimension": 16, "upsample_groups": 32,
    }  # fmt: skip
    return _save(_transformers("Mimi", **settings | changes), folder)


def qwen3_tts(folder: Path) -> Path:
    """The encoder's weights are those of the Mimi model in the folder `mimi` within, as that library writes them."""
    from safetensors.torch import load_file

    from pipeline.codecs.qwen3_tts_config import DecoderConfig
    from pipeline.codecs.qwen3_tts_decoder import Decoder

    mimi(folder / "mimi")
    encoder = json.loads((folder / "mimi" / "config.json").read_text())
    decoder = {
        "codebook_size": 64, "codebook_dim": 16, "num_quantizers": 4, "latent_dim": 24, "hidden_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "intermediate_size": 32, "sliding_window": 5, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0,
        "upsampling_ratios": [2, 2], "upsample_rates": [8, 5, 4, 3], "decoder_dim": 32, "hidden_act": "silu",
        "attention_bias": False,
    }  # fmt: skip
    config = {
        "model_type": "qwen3_tts_tokenizer_12hz", "encoder_config": {**encoder, "_frame_rate": 12.5},
        "decoder_config": decoder, "encoder_valid_num_quantizers": 4, "input_sample_rate": 24_000,
        "output_sample_rate": 24_000, "encode_downsample_rate": 1920, "decode_upsample_rate": 1920,
    }  # fmt: skip
    torch.manual_seed(SEED)
    model = Decoder(DecoderConfig.from_json(decoder))
    _fill(model)
    with torch.no_grad():
        for name, tensor in model.named_parameters():  # at their first values these would hide a fault
            if name.endswith(("alpha", "beta", "gamma", "cluster_usage", "norm.weight", "layernorm.weight")):
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
    left_out = ("decoder", "upsample")
    tensors = {f"decoder.{name}": tensor for name, tensor in model.state_dict().items()} | {
        f"encoder.{name}": tensor
        for name, tensor in load_file(folder / "mimi" / "model.safetensors").items()
        if not name.startswith(left_out)
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def encodec(folder: Path, **changes: Any) -> Path:
    settings = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64, "target_bandwidths": [0.9, 1.8, 2.7]}
    return _save(_transformers("Encodec", lambda model, sound: model.encoder(sound), **settings | changes), folder)


def encodec_48k(folder: Path) -> Path:
    return encodec(
        folder, sampling_rate=48_000, audio_channels=2, normalize=True, chunk_length_s=1.0, overlap=0.01,
        norm_type="time_group_norm", use_causal_conv=False, target_bandwidths=[1.8, 3.6],
    )  # fmt: skip


def dac(folder: Path, **changes: Any) -> Path:
    settings = {
        "encoder_hidden_size": 4, "decoder_hidden_size": 32, "downsampling_ratios": [2, 4, 5, 8], "n_codebooks": 5,
        "codebook_size": 64, "codebook_dim": 4, "sampling_rate": 24_000,
    }  # fmt: skip
    return _save(_transformers("Dac", **settings | changes), folder)


def _semantic() -> dict[str, Any]:
    return {
        "model_type": "wav2vec2-bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "feature_projection_input_dim": 160, "add_adapter": False,
    }  # fmt: skip


def xcodec2(folder: Path, name: str = "Xcodec2") -> Path:
    settings = {
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 32, "encoder_hidden_size": 4, "quantization_dim": 96,
        "semantic_model_config": _semantic(),
    }  # fmt: skip
    model = _transformers(name, **settings)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():  # its first weights are so small that every clip has one code and decodes to silence
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
    return _save(model, folder)


def neucodec(folder: Path) -> Path:
    return xcodec2(folder, "NeuCodec")


def _hubert() -> dict[str, Any]:
    return {
        "model_type": "hubert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    }  # fmt: skip


def xcodec(folder: Path, name: str = "Xcodec", **changes: Any) -> Path:
    settings = {
        "target_bandwidths": [0.9, 1.8], "codebook_size": 64,
        "acoustic_model_config": {
            "model_type": "dac", "encoder_hidden_size": 4, "decoder_hidden_size": 64, "codebook_size": 64,
            "hidden_size": 16,
        },
        "semantic_model_config": _hubert(),
    }  # fmt: skip
    return _save(_transformers(name, **settings | changes), folder)


def higgs(folder: Path) -> Path:
    acoustic = {
        "model_type": "dac", "encoder_hidden_size": 4, "decoder_hidden_size": 64, "codebook_size": 64,
        "hidden_size": 16, "downsampling_ratios": [8, 5, 4, 2, 3], "upsampling_ratios": [8, 5, 4, 2, 3],
    }  # fmt: skip
    return xcodec(
        folder, "HiggsAudioV2Tokenizer", acoustic_model_config=acoustic, target_bandwidths=[0.15, 0.6], codebook_dim=16
    )


def wavtokenizer(folder: Path) -> Path:
    settings = {
        "num_filters": 4, "hidden_size": 16, "codebook_dim": 16, "codebook_size": 256, "decoder_hidden_size": 32,
        "decoder_intermediate_size": 64, "decoder_num_layers": 2, "decoder_attention_num_groups": 4,
    }  # fmt: skip
    model = _transformers("WavTokenizer", lambda model, sound: model.encoder_model.encoder(sound), **settings)
    return _save(model, folder)


def _amplify(encoder: torch.nn.Module, factor: float) -> None:
    """Weights as large as those of a trained encoder: at their first values, sound hardly reaches the latents."""
    with torch.no_grad():
        for name, tensor in encoder.named_parameters():
            if name.endswith("weight.original0"):
                tensor.mul_(factor)


def _save_plain(model: torch.nn.Module, config: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    return folder


def snac(folder: Path) -> Path:
    from snac import SNAC

    config = {
        "sampling_rate": 24_000, "encoder_dim": 4, "encoder_rates": [2, 4, 8, 8], "decoder_dim": 64,
        "decoder_rates": [8, 8, 4, 2], "attn_window_size": None, "codebook_size": 256, "codebook_dim": 4,
        "vq_strides": [4, 2, 1], "noise": True, "depthwise": True,
    }  # fmt: skip
    torch.manual_seed(SEED)
    model = SNAC(**config)
    _amplify(model.encoder, 1.5)
    return _save_plain(model, config, folder)


def speechtokenizer(folder: Path) -> Path:
    from pipeline.codecs.plain_models import import_without_init

    config = {
        "n_filters": 4, "dimension": 16, "semantic_dimension": 24, "strides": [8, 5, 4, 2], "lstm_layers": 2,
        "bidirectional": True, "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1,
        "activation": "ELU", "sample_rate": 16_000, "n_q": 4, "codebook_size": 64,
    }  # fmt: skip
    torch.manual_seed(SEED)
    model = import_without_init("speechtokenizer", "model", "speechtokenizer").SpeechTokenizer(config).eval()
    with torch.no_grad():
        _fill(model, model.encoder(noise(1, 16_000)))
    return _save_plain(model, config, folder)


def bigcodec(folder: Path) -> Path:
    from bigcodec import BigCodec

    config = {
        "ngf": 4, "use_rnn": True, "rnn_bidirectional": False, "rnn_num_layers": 1, "up_ratios": [2, 2, 2, 5, 5],
        "dilations": [1, 3, 9], "out_channels": 32, "codebook_size": 256, "vq_num_quantizers": 1, "codebook_dim": 8,
    }  # fmt: skip
    torch.manual_seed(SEED)
    model = BigCodec(**config).eval()
    _amplify(model.encoder, 4.0)
    return _save_plain(model, config, folder)


MODELS: dict[str, Callable[[Path], Path]] = {
    "mimi": mimi,
    "qwen3_tts": qwen3_tts,
    "encodec": encodec,
    "encodec_48k": encodec_48k,
    "dac": dac,
    "xcodec2": xcodec2,
    "neucodec": neucodec,
    "xcodec": xcodec,
    "higgs": higgs,
    "wavtokenizer": wavtokenizer,
    "snac": snac,
    "speechtokenizer": speechtokenizer,
    "bigcodec": bigcodec,
}
