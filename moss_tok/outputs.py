"""What `encode` and `decode` return: a batch, padded to its longest clip, and the lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tok.transfer import to_device


@dataclass(frozen=True)
class EncoderOutput:
    """A batch of codes, padded to its longest clip.

    `audio_codes` is int64 (num_quantizers, batch, frames) and `encoder_hidden_states` float32 (batch, D, frames). Both
    are zero after the `audio_codes_lengths` (batch,) frames of a clip.
    """

    audio_codes: Tensor
    audio_codes_lengths: Tensor
    encoder_hidden_states: Tensor

    @classmethod
    def padded(cls, codes: Sequence[Tensor], hidden: Sequence[Tensor]) -> EncoderOutput:
        """Make a batch of the codes (num_quantizers, frames) and hidden states (frames, D) of each clip."""
        lengths = [clip.shape[1] for clip in codes]
        longest = max(lengths)
        return cls(
            torch.stack([F.pad(clip, (0, longest - clip.shape[1])) for clip in codes], dim=1),
            to_device(torch.tensor(lengths), codes[0].device),
            torch.stack([F.pad(clip.T, (0, longest - clip.shape[0])) for clip in hidden]),
        )

    def to_tuple(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.audio_codes, self.audio_codes_lengths, self.encoder_hidden_states


@dataclass(frozen=True)
class DecoderOutput:
    """A batch of audio, padded to its longest clip.

    `audio` is float32 (batch, channels, samples), zero after the `audio_lengths` (batch,) samples of a clip.
    """

    audio: Tensor
    audio_lengths: Tensor

    @classmethod
    def padded(cls, audio: Sequence[Tensor]) -> DecoderOutput:
        """Make a batch of the audio (channels, samples) of each clip."""
        lengths = [clip.shape[1] for clip in audio]
        longest = max(lengths)
        return cls(
            torch.stack([F.pad(clip, (0, longest - clip.shape[1])) for clip in audio]),
            to_device(torch.tensor(lengths), audio[0].device),
        )

    def to_tuple(self) -> tuple[Tensor, Tensor]:
        return self.audio, self.audio_lengths
