"""Batches of clips into codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from moss_tok import MossAudioTokenizerModel, StreamingEncoder
from moss_tok.stack import StreamState
from moss_tok.transfer import HostCopy
from pipeline.config import ModelConfig
from pipeline.items import Clip, ClipInfo, CodedClip


@dataclass(frozen=True, slots=True)
class Launched:
    """A batch that is being encoded."""

    ready: Callable[[], bool]
    """Whether `wait` would return at once."""
    wait: Callable[[], list[CodedClip]]
    """The codes of each clip, in the order given; raises what went wrong."""

    @classmethod
    def done(cls, coded: list[CodedClip]) -> Launched:
        return cls(ready=lambda: True, wait=lambda: coded)


class Encoder:
    """A model and how much it is given at once."""

    def __init__(self, model: MossAudioTokenizerModel, num_quantizers: int, max_frames: int) -> None:
        """Of a clip of more than `max_frames` frames, only so many are encoded at once."""
        self._model = model
        self._num_quantizers = num_quantizers
        self._max_frames = max_frames

    def encode(self, clips: Sequence[Clip]) -> list[CodedClip]:
        """Codes of each clip, in the order given."""
        return self.launch(clips).wait()

    def launch(self, clips: Sequence[Clip]) -> Launched:
        """Begin a batch. A GPU goes on with it when this has returned, so that the next can be made ready meanwhile.

        Short of GPU memory, it halves the batch and tries again.
        """
        if len(clips) == 1 and clips[0].info.num_samples > self._max_frames * self._model.downsample_rate:
            return Launched.done([self._encode_in_parts(clips[0])])
        try:
            codes = self._launch(clips)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(clips) == 1:
                return Launched.done([self._encode_in_parts(clips[0])])
            half = len(clips) // 2
            return Launched.done(self.encode(clips[:half]) + self.encode(clips[half:]))
        return Launched(ready=lambda: codes.ready, wait=lambda: self._split(clips, codes.wait()))

    def stream(self) -> CodeStream:
        """The encoding of one clip whose waveform comes in parts."""
        return CodeStream(self._model, self._num_quantizers, self._max_frames)

    def _launch(self, clips: Sequence[Clip]) -> HostCopy:
        """The codes (num_quantizers, frames) of all clips, end to end."""
        waveforms = [torch.from_numpy(clip.waveform) for clip in clips]
        encoded, _ = self._model.encode_step(waveforms, None, num_quantizers=self._num_quantizers)
        return HostCopy(torch.cat([codes for codes, _ in encoded], dim=1).to(torch.int16))

    def _split(self, clips: Sequence[Clip], codes: torch.Tensor) -> list[CodedClip]:
        frames = [-(-clip.info.num_samples // self._model.downsample_rate) for clip in clips]
        parts = torch.split(codes, frames, dim=1)
        return [
            CodedClip(clip.info, np.ascontiguousarray(part.numpy())) for clip, part in zip(clips, parts, strict=True)
        ]

    def _encode_in_parts(self, clip: Clip) -> CodedClip:
        stream = self.stream()
        stream.step(clip.waveform)
        return stream.finish(clip.info)


class CodeStream:
    """The codes of a long clip so far, and the encoder's state between its parts: both are those of the whole clip."""

    def __init__(self, model: MossAudioTokenizerModel, num_quantizers: int, max_frames: int) -> None:
        self._encoder = StreamingEncoder(model, num_quantizers)
        # Cut at whole blocks of attention: there every device's arithmetic is that of the whole clip.
        block = 1 if model.encoder is None else model.encoder.block_frames
        self._max_samples = max(1, max_frames // block) * block * model.downsample_rate
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
