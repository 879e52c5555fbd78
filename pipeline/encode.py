"""Batches of clips into codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from moss_tok import MossAudioTokenizerModel, encode_stream
from pipeline.config import ModelConfig
from pipeline.items import Clip, CodedClip


class Encoder:
    """A model and how much it is given at once."""

    def __init__(self, model: MossAudioTokenizerModel, num_quantizers: int, max_frames: int) -> None:
        """Clips of more than `max_frames` frames go through the streaming encoder, whose memory does not grow."""
        self._model = model
        self._num_quantizers = num_quantizers
        self._max_frames = max_frames

    def encode(self, clips: Sequence[Clip]) -> list[CodedClip]:
        """Codes of each clip, in the order given. Short of GPU memory, it halves the batch and tries again."""
        try:
            return self._encode(clips)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(clips) == 1:
                raise
            half = len(clips) // 2
            return self.encode(clips[:half]) + self.encode(clips[half:])

    def _encode(self, clips: Sequence[Clip]) -> list[CodedClip]:
        if len(clips) == 1 and clips[0].info.num_samples > self._max_frames * self._model.downsample_rate:
            return [self._encode_long(clips[0])]
        waveforms = [torch.from_numpy(clip.waveform) for clip in clips]
        coded = self._model.batch_encode(waveforms, num_quantizers=self._num_quantizers)
        codes = coded.audio_codes.to("cpu", torch.int16).numpy()
        lengths = coded.audio_codes_lengths.tolist()
        return [
            CodedClip(clip.info, np.ascontiguousarray(codes[:, row, :length]))
            for row, (clip, length) in enumerate(zip(clips, lengths, strict=True))
        ]

    def _encode_long(self, clip: Clip) -> CodedClip:
        stream = encode_stream(self._model, [torch.from_numpy(clip.waveform)], num_quantizers=self._num_quantizers)
        parts = [part.to("cpu", torch.int16) for part in stream]
        return CodedClip(clip.info, torch.cat(parts, dim=1).numpy())


def load_encoder(config: ModelConfig, num_quantizers: int, max_frames: int) -> Encoder:
    """The half of the codec that encodes, on the configured device: `auto` is the GPU if this process may use one."""
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = MossAudioTokenizerModel.from_pretrained(
        config.name, revision=config.revision, dtype=config.dtype, device=device, parts="encoder"
    )
    return Encoder(model.eval(), num_quantizers, max_frames)
