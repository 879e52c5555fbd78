"""The MOSS Audio Tokenizer: waveforms to discrete codes and back.

    waveform (C, samples) -> frames -> encoder -> hidden (frames, D) -> quantizer -> codes (num_quantizers, frames)
    codes -> quantizer -> hidden -> decoder -> waveform (C, frames * downsample_rate)

Names and shapes of the public methods follow the release (https://huggingface.co/OpenMOSS-Team/MOSS-Audio-Tokenizer),
so that its published examples run with the import changed. Inside, a batch is packed: the frames of all clips are
joined in one matrix. A clip is zero-padded to whole frames, and every frame that holds at least one sample is encoded:
frames = ceil(samples / downsample_rate).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from moss_tok import arguments
from moss_tok.checkpoint import Checkpoint, resolve
from moss_tok.chunked import in_chunks
from moss_tok.config import MossAudioTokenizerConfig
from moss_tok.outputs import DecoderOutput, EncoderOutput
from moss_tok.packed_codec import PackedCodec, Parts
from moss_tok.weights import assign_weights, save_weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class UntrainedModelWarning(UserWarning):
    """The loaded weights are random. Codes are well defined, but decoding them does not give the sound back."""


class MossAudioTokenizerModel(PackedCodec):
    """A codec, made by `from_pretrained`. `parts` says whether it can encode, decode or both."""

    def __init__(self, config: MossAudioTokenizerConfig, keys: set[str], parts: Parts) -> None:
        super().__init__(config, keys, parts)
        self.checkpoint: Checkpoint | None = None
        """Where the weights came from; None for a codec that was not loaded."""

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: str | Path,
        *,
        revision: str | None = None,
        dtype: str | torch.dtype = "float32",
        device: str | torch.device = "cpu",
        parts: Parts = "all",
    ) -> MossAudioTokenizerModel:
        """Load a codec from a local folder, the name of an embedded codec ("cat-speech"), or the id of a hub repo.

        `dtype` ("float32" or "bfloat16") is the precision of the matrix products of the transformers; all else is
        float32. `parts` loads only what encoding or decoding needs. Weights are mapped from disk and assigned, without
        random initialisation; for float32 products on a CPU they are then copied into the layout of the kernels.

        Raises ModelNotFoundError, HubUnreachableError, ModelConfigError or CheckpointError, each saying what is wrong.
        """
        precision = DTYPES.get(str(dtype).removeprefix("torch."))
        if precision is None:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if parts not in ("all", "encoder", "decoder"):
            raise ValueError(f"parts must be 'all', 'encoder' or 'decoder', got {parts!r}")
        checkpoint = resolve(repo_or_folder, revision)
        with torch.device("meta"):
            model = cls(checkpoint.config, set(checkpoint.tensors), parts)
        expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        prefixes = [
            f"{half}." for half in ("encoder", "quantizer", "decoder") if half == "quantizer" or parts in ("all", half)
        ]
        tensors = checkpoint.load(expected, prefixes)
        assign_weights(model, tensors, precision)
        model.checkpoint = checkpoint
        if not model.trained:
            warnings.warn(
                f"{checkpoint.name} is an untrained codec: its codes are well defined, but it does not reproduce sound",
                UntrainedModelWarning, stacklevel=2,
            )  # fmt: skip
        return model.to(device).eval()

    # What the model is.

    @property
    def sampling_rate(self) -> int:
        """Samples per second of each channel."""
        return self.config.sampling_rate

    @property
    def downsample_rate(self) -> int:
        """Samples per channel in one frame."""
        return self.config.downsample_rate

    @property
    def number_channels(self) -> int:
        return self.config.number_channels

    @property
    def num_quantizers(self) -> int:
        return self.config.quantizer.num_quantizers

    @property
    def codebook_size(self) -> int:
        return self.config.quantizer.codebook_size

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.config.frame_rate

    @property
    def trained(self) -> bool:
        return self.config.trained

    @property
    def name_or_path(self) -> str | None:
        return self.checkpoint.name if self.checkpoint else None

    @property
    def revision(self) -> str | None:
        """The commit of the hub repo that it came from; None for a local or embedded codec."""
        return self.checkpoint.revision if self.checkpoint else None

    @property
    def weights_sha256(self) -> str | None:
        """SHA-256 over the weights files, computed at the first call."""
        return self.checkpoint.weights_sha256 if self.checkpoint else None

    # The published interface.

    def encode(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        num_quantizers: int | None = None,
        return_dict: bool = True,
        chunk_duration: float | None = None,
    ) -> EncoderOutput | tuple[Tensor, Tensor, Tensor]:
        """Encode a batch (B, C, T), (B, T) or one mono clip (T,), float in [-1, 1] at `sampling_rate`.

        `padding_mask` (B, T) is true for the samples of each clip, and the true values come first. `num_quantizers` is
        the number of codes per frame, all by default. With `chunk_duration`, in seconds and a whole number of frames,
        the clips are encoded in chunks, with the same codes.
        """
        output = self._encode(
            arguments.batch_of_waveforms(input_values, padding_mask, self.config), num_quantizers, chunk_duration
        )
        return output if return_dict else output.to_tuple()

    def batch_encode(
        self, waveforms: Sequence[Tensor], num_quantizers: int | None = None, chunk_duration: float | None = None
    ) -> EncoderOutput:
        """Encode a list of waveforms (T,) or (C, T) of any lengths."""
        return self._encode(arguments.list_of_waveforms(waveforms, self.config), num_quantizers, chunk_duration)

    def decode(
        self,
        audio_codes: Tensor,
        padding_mask: Tensor | None = None,
        num_quantizers: int | None = None,
        return_dict: bool = True,
        chunk_duration: float | None = None,
    ) -> DecoderOutput | tuple[Tensor, Tensor]:
        """Decode codes (num_quantizers, B, frames) or (num_quantizers, frames). The codes of the first k quantizers
        alone can be decoded too.

        `padding_mask` (B, frames) is true for the frames of each clip. `num_quantizers` uses only the first so many of
        the given codes.
        """
        output = self._decode(
            arguments.batch_of_codes(audio_codes, padding_mask, self.config), num_quantizers, chunk_duration
        )
        return output if return_dict else output.to_tuple()

    def batch_decode(
        self, codes: Sequence[Tensor], num_quantizers: int | None = None, chunk_duration: float | None = None
    ) -> DecoderOutput:
        """Decode a list of codes (num_quantizers, frames) of any lengths."""
        return self._decode(arguments.list_of_codes(codes, self.config), num_quantizers, chunk_duration)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` with the names of the v1 release. Loading them gives the same
        codec, bit for bit."""
        save_weights(self, self.config, Path(folder))

    # Batches through the packed core, whole or in chunks.

    def _encode(self, clips: list[Tensor], num_quantizers: int | None, chunk_duration: float | None) -> EncoderOutput:
        count = arguments.quantizer_count(num_quantizers, self.num_quantizers)
        size = (
            None
            if chunk_duration is None
            else arguments.chunk_frames(chunk_duration, self.config) * self.downsample_rate
        )
        parts = in_chunks(clips, size, partial(self.encode_step, num_quantizers=count))
        return EncoderOutput.padded(
            [torch.cat([codes for codes, _ in part], dim=1) for part in parts],
            [torch.cat([hidden for _, hidden in part]) for part in parts],
        )

    def _decode(self, clips: list[Tensor], num_quantizers: int | None, chunk_duration: float | None) -> DecoderOutput:
        count = arguments.quantizer_count(num_quantizers, clips[0].shape[0])
        size = None if chunk_duration is None else arguments.chunk_frames(chunk_duration, self.config)
        parts = in_chunks([clip[:count] for clip in clips], size, self.decode_step)
        return DecoderOutput.padded([torch.cat(part, dim=1) for part in parts])
