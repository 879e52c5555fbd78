"""Batches of clips into codes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from moss_tok import MossAudioTokenizerModel, StreamingEncoder
from moss_tok.stack import StreamState
from moss_tok.transfer import HostCopy
from pipeline.config import ModelConfig
from pipeline.items import Clip, ClipInfo, CodedClip

logger = logging.getLogger(__name__)


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
        """At most `max_frames` frames are encoded at once, and of fewer clips or of one in parts where it is more."""
        self._model = model
        self._num_quantizers = num_quantizers
        self._max_frames = max_frames

    def encode(self, clips: Sequence[Clip]) -> list[CodedClip]:
        """Codes of each clip, in the order given."""
        return self.launch(clips).wait()

    def launch(self, clips: Sequence[Clip]) -> Launched:
        """Begin a batch. A GPU goes on with it when this has returned, so that the next can be made ready meanwhile.

        Short of GPU memory, it halves how much is encoded at once, from here on, and tries again.
        """
        frames = sum(self._frames(clips))
        if frames > self._max_frames:
            return Launched.done(self._encode_in_pieces(clips))
        try:
            codes = self._launch(clips)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            self._max_frames = max(1, frames // 2)
            logger.warning("%d frames at once, as %d are too many for the memory: %s", self._max_frames, frames, error)
            return Launched.done(self._encode_in_pieces(clips))
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
        parts = torch.split(codes, self._frames(clips), dim=1)
        return [
            CodedClip(clip.info, np.ascontiguousarray(part.numpy())) for clip, part in zip(clips, parts, strict=True)
        ]

    def _frames(self, clips: Sequence[Clip]) -> list[int]:
        return [-(-clip.info.num_samples // self._model.downsample_rate) for clip in clips]

    def _encode_in_pieces(self, clips: Sequence[Clip]) -> list[CodedClip]:
        if len(clips) > 1:
            half = len(clips) // 2
            return self.encode(clips[:half]) + self.encode(clips[half:])
        stream = self.stream()
        stream.step(clips[0].waveform)
        return [stream.finish(clips[0].info)]


class CodeStream:
    """The codes of a long clip so far, and the encoder's state between its parts: both are those of the whole clip.

    The clip is cut at whole blocks of attention, wherever its parts end: there every device's arithmetic is that of the
    whole clip.
    """

    def __init__(self, model: MossAudioTokenizerModel, num_quantizers: int, max_frames: int) -> None:
        self._encoder = StreamingEncoder(model, num_quantizers)
        frames = 1 if model.encoder is None else model.encoder.block_frames
        self._block = frames * model.downsample_rate
        self._most = max(1, max_frames // frames) * self._block
        self._held = np.zeros((model.number_channels, 0), np.float32)
        self._state: StreamState | None = None
        self._codes: list[np.ndarray] = []

    def step(self, waveform: np.ndarray) -> None:
        """Encode the next (channels, n) samples as far as they fill blocks; the rest is kept for later."""
        waiting = np.concatenate([self._held, waveform], axis=1)
        whole = waiting.shape[1] // self._block * self._block
        for start in range(0, whole, self._most):
            self._encode(torch.from_numpy(waiting[:, start : min(start + self._most, whole)]))
        self._held = waiting[:, whole:].copy()

    def finish(self, info: ClipInfo) -> CodedClip:
        """End the clip: its codes."""
        if self._held.shape[1]:
            missing = -self._held.shape[1] % self._encoder.model.downsample_rate
            self._encode(torch.from_numpy(np.pad(self._held, ((0, 0), (0, missing)))))
        return CodedClip(info, np.concatenate(self._codes, axis=1))

    def _encode(self, chunk: torch.Tensor) -> None:
        try:
            codes, self._state = self._encoder.step(chunk, self._state)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            half = -(-chunk.shape[1] // self._block) // 2 * self._block
            if half == 0:
                raise
            self._encode(chunk[:, :half])
            self._encode(chunk[:, half:])
        else:
            self._codes.append(codes.to("cpu", torch.int16).numpy())


def load_encoder(config: ModelConfig, num_quantizers: int, max_frames: int) -> Encoder:
    """The half of the codec that encodes, on the configured device: `auto` is the GPU if this process may use one."""
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = MossAudioTokenizerModel.from_pretrained(
        config.name, revision=config.revision, dtype=config.dtype, device=device, parts="encoder"
    )
    return Encoder(model.eval(), num_quantizers, max_frames)
