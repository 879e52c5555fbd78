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
    from moss_tok.config import ModelConfigError, MossAudioTokenizerConfig
    from moss_tok.outputs import DecoderOutput, EncoderOutput
    from moss_tok.stack import StreamState
    from moss_tok.streaming import StreamingDecoder, StreamingEncoder, decode_stream, encode_stream
    from moss_tok.tensor_resampler import resample_tensor

DEFAULT_MODEL = "OpenMOSS-Team/MOSS-Audio-Tokenizer"

__all__ = [
    "DEFAULT_MODEL",
    "CheckpointError",
    "DecoderOutput",
    "EncoderOutput",
    "HubUnreachableError",
    "ModelConfigError",
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

_MODULES = ("config", "outputs", "checkpoint", "stack", "streaming", "tensor_resampler", "codec")


def __getattr__(name: str) -> Any:
    """Look for a public name in the modules, the light ones first."""
    if name in __all__:
        for module in _MODULES:
            namespace = vars(import_module(f"moss_tok.{module}"))
            if name in namespace:
                return namespace[name]
    raise AttributeError(f"module 'moss_tok' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
