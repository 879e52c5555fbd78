"""Batches of clips into codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from moss_tok import MossAudioTokenizerModel, StreamingEncoder
from moss_tok.stack import StreamState
from pipeline.config import ModelConfig
from pipeline.items import Clip, ClipInfo, CodedClip


class Encoder:
    """A model and how much it is given at once."""

    def __init__(self, model: MossAudioTokenizerModel, num_quantizers: int, max_frames: int) -> None:
        """Of a clip of more than `max_frames` frames, only so many are encoded at once."""
        self._model = model
        self._num_quantizers = num_quantizers
        self._max_frames = max_frames

    def encode(self, clips: Sequence[Clip]) -> list[CodedClip]:
        """Codes of each clip, in the order given. Short of GPU memory, it halves the batch and tries again."""
        if len(clips) == 1 and clips[0].info.num_samples > self._max_frames * self._model.downsample_rate:
            return [self._encode_in_parts(clips[0])]
        try:
            return self._encode(clips)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(clips) == 1:
                return [self._encode_in_parts(clips[0])]
            half = len(clips) // 2
            return self.encode(clips[:half]) + self.encode(clips[half:])

    def stream(self) -> CodeStream:
        """The encoding of one clip whose waveform comes in parts."""
        return CodeStream(self._model, self._num_quantizers, self._max_frames)

    def _encode(self, clips: Sequence[Clip]) -> list[CodedClip]:
        waveforms = [torch.from_numpy(clip.waveform) for clip in clips]
        coded = self._model.batch_encode(waveforms, num_quantizers=self._num_quantizers)
        codes = coded.audio_codes.to("cpu", torch.int16).numpy()
        lengths = coded.audio_codes_lengths.tolist()
        return [
            CodedClip(clip.info, np.ascontiguousarray(codes[:, row, :length]))
            for row, (clip, length) in enumerate(zip(clips, lengths, strict=True))
        ]

    def _encode_in_parts(self, clip: Clip) -> CodedClip:
        stream = self.stream()
        stream.step(clip.waveform)
        return stream.finish(clip.info)


class CodeStream:
    """The codes of a long clip so far, and the encoder's state between its parts: both are those of the whole clip."""

    def __init__(self, model: MossAudioTokenizerModel, num_quantizers: int, max_frames: int) -> None:
        self._encoder = StreamingEncoder(model, num_quantizers)
        self._max_samples = max_frames * model.downsample_rate
        self._state: StreamState | None = None
        self._codes: list[np.ndarray] = []

    def step(self, waveform: np.ndarray) -> None:
        """Encode the next (channels, n) samples, whole frames unless the clip ends with them."""
        frame = self._encoder.model.downsample_rate
        whole = np.pad(waveform, ((0, 0), (0, -waveform.shape[1] % frame)))
        for start in range(0, whole.shape[1], self._max_samples):
            self._step(torch.from_numpy(whole[:, start : start + self._max_samples]))

    def _step(self, chunk: torch.Tensor) -> None:
        try:
            codes, self._state = self._encoder.step(chunk, self._state)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            frame = self._encoder.model.downsample_rate
            half = chunk.shape[1] // frame // 2 * frame
            if half == 0:
                raise
            self._step(chunk[:, :half])
            self._step(chunk[:, half:])
        else:
            self._codes.append(codes.to("cpu", torch.int16).numpy())

    def finish(self, info: ClipInfo) -> CodedClip:
        return CodedClip(info, np.concatenate(self._codes, axis=1))


def load_encoder(config: ModelConfig, num_quantizers: int, max_frames: int) -> Encoder:
    """The half of the codec that encodes, on the configured device: `auto` is the GPU if this process may use one."""
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = MossAudioTokenizerModel.from_pretrained(
        config.name, revision=config.revision, dtype=config.dtype, device=device, parts="encoder"
    )
    return Encoder(model.eval(), num_quantizers, max_frames)
