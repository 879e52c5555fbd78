"""Batches of clips into codes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from moss_tok import MossAudioTokenizerModel, StreamingEncoder
from moss_tok.stack import StreamState
from moss_tok.transfer import start_copy_to_host
from pipeline.concurrency import completed
from pipeline.config import ModelConfig
from pipeline.items import Clip, ClipInfo, CodedClip

logger = logging.getLogger(__name__)


class Encoder:
    """A model, and how many frames it is given at once."""

    def __init__(self, model: MossAudioTokenizerModel, num_quantizers: int, max_frames: int) -> None:
        """At most `max_frames` frames are encoded at once: a larger batch is halved, a longer clip encoded in parts."""
        self._model = model
        self._num_quantizers = num_quantizers
        self._max_frames = max_frames
        self._copying = ThreadPoolExecutor(1, thread_name_prefix="codes-to-host")

    def encode(self, clips: Sequence[Clip]) -> list[CodedClip]:
        """Codes of each clip, in the order given."""
        return self.launch(clips).result()

    def launch(self, clips: Sequence[Clip]) -> Future[list[CodedClip]]:
        """Begin a batch; the future has the codes of each clip, in the order given.

        A GPU is still at work when this returns, so that the next batch can be made ready meanwhile; on a CPU the
        future is done. If GPU memory runs out, the encoder halves how much it encodes at once, from here on, and
        encodes the batch again.
        """
        frames = sum(self._frames(clips))
        if frames > self._max_frames:
            return completed(self._encode_in_pieces(clips))
        try:
            codes = self._launch(clips)
            if codes.device.type == "cpu":
                return completed(self._split(clips, codes))
            wait = start_copy_to_host(codes)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            self._max_frames = max(1, frames // 2)
            logger.warning("%d frames at once, as %d are too many for the memory: %s", self._max_frames, frames, error)
            return completed(self._encode_in_pieces(clips))
        return self._copying.submit(lambda: self._split(clips, wait()))

    def stream(self) -> CodeStream:
        """The encoding of one clip whose waveform comes in parts."""
        return CodeStream(self._model, self._num_quantizers, self._max_frames)

    def _launch(self, clips: Sequence[Clip]) -> torch.Tensor:
        """The codes of all clips, end to end, on the model's device: int16 (num_quantizers, frames)."""
        waveforms = [torch.from_numpy(clip.waveform) for clip in clips]
        encoded, _ = self._model.encode_step(waveforms, None, num_quantizers=self._num_quantizers)
        return torch.cat([codes for codes, _ in encoded], dim=1).to(torch.int16)

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
    """The encoding of a long clip part by part: its codes so far, and the state of the encoder.

    Parts may end anywhere. The clip is encoded in whole blocks of attention, because there the arithmetic on every
    device, and so every code, is that of the whole clip.
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
        """Take the next (channels, n) samples. Those that fill whole blocks are encoded, and the rest is kept."""
        waiting = np.concatenate([self._held, waveform], axis=1)
        whole = waiting.shape[1] // self._block * self._block
        for start in range(0, whole, self._most):
            self._encode(torch.from_numpy(waiting[:, start : min(start + self._most, whole)]))
        self._held = waiting[:, whole:].copy()

    def finish(self, info: ClipInfo) -> CodedClip:
        """End the clip. Gives all its codes."""
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
    """The encoder of the codec on the configured device. `auto` is the GPU if this process may use one."""
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = MossAudioTokenizerModel.from_pretrained(
        config.name, revision=config.revision, dtype=config.dtype, device=device, parts="encoder"
    )
    return Encoder(model.eval(), num_quantizers, max_frames)
