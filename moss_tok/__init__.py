"""The MOSS Audio Tokenizer: waveforms to discrete codes and back. Needs torch, numpy and safetensors only."""

from moss_tok.checkpoint import CheckpointError, HubUnreachableError, ModelNotFoundError, weights_sha256
from moss_tok.codec import MossAudioTokenizerModel, UntrainedModelWarning
from moss_tok.config import ConfigError, MossAudioTokenizerConfig
from moss_tok.outputs import DecoderOutput, EncoderOutput
from moss_tok.stack import StreamState
from moss_tok.streaming import StreamingDecoder, StreamingEncoder, decode_stream, encode_stream

__all__ = [
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
    "weights_sha256",
]
