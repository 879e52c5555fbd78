"""The MOSS Audio Tokenizer: waveforms to discrete codes and back. Needs torch, numpy and safetensors only.

Names are imported when they are first used, so that a process which only decodes audio (`moss_tok.audio`) never loads
torch: 50 MB instead of 540 MB in each of many reader processes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moss_tok.checkpoint import CheckpointError, HubUnreachableError, ModelNotFoundError, weights_sha256
    from moss_tok.codec import MossAudioTokenizerModel, UntrainedModelWarning
    from moss_tok.config import ConfigError, MossAudioTokenizerConfig
    from moss_tok.outputs import DecoderOutput, EncoderOutput
    from moss_tok.resample_tensor import resample_tensor
    from moss_tok.stack import StreamState
    from moss_tok.streaming import StreamingDecoder, StreamingEncoder, decode_stream, encode_stream

DEFAULT_MODEL = "OpenMOSS-Team/MOSS-Audio-Tokenizer"

__all__ = [
    "DEFAULT_MODEL",
    "CheckpointError",
    "ConfigError",
    "DecoderOutput",
    "EncoderOutput",
    "HubUnreachableError",
    "ModelNotFoundError",
    "MossAudioTokenizerConfig",
    "MossAudioTokenizerModel",
    "StreamState",
    "StreamingDecoder",
    "StreamingEncoder",
    "UntrainedModelWarning",
    "decode_stream",
    "encode_stream",
    "resample_tensor",
    "weights_sha256",
]

_MODULES = {
    "checkpoint": ("CheckpointError", "HubUnreachableError", "ModelNotFoundError", "weights_sha256"),
    "codec": ("MossAudioTokenizerModel", "UntrainedModelWarning"),
    "config": ("ConfigError", "MossAudioTokenizerConfig"),
    "outputs": ("DecoderOutput", "EncoderOutput"),
    "resample_device": ("resample_tensor",),
    "stack": ("StreamState",),
    "streaming": ("StreamingDecoder", "StreamingEncoder", "decode_stream", "encode_stream"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"moss_tok.{module}"), name)
    raise AttributeError(f"module 'moss_tok' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
