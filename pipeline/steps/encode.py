"""Batches of clips into codes, with any codec."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cached_property

import numpy as np
import torch

from pipeline.codecs import Codec, CodecError, Coded, find_codec, load_codec
from pipeline.codecs import CodeStream as CodecStream
from pipeline.codecs.machine import Machine, describe_machine
from pipeline.codecs.moss_codec import least_frames, with_execution
from pipeline.concurrency import completed
from pipeline.config import ModelConfig
from pipeline.items import Clip, ClipInfo, CodedClip

logger = logging.getLogger(__name__)


class Encoder:
    """A codec, and how many frames it is given at once."""

    def __init__(self, codec: Codec, num_quantizers: int, max_frames: int, device: str = "cpu") -> None:
        """At most `max_frames` frames are encoded at once: a larger batch is halved, and a longer clip encoded in parts
        if the codec streams."""
        self._codec = codec
        self._num_quantizers = num_quantizers
        self._max_frames = max_frames
        self._device = device

    @cached_property
    def machine(self) -> Machine:
        """The kind of machine that it computes on."""
        return describe_machine(self._codec, self._device)

    def encode(self, clips: Sequence[Clip]) -> list[CodedClip]:
        """Codes of each clip, in the order given."""
        return self.launch(clips).result()

    def launch(self, clips: Sequence[Clip]) -> Future[list[CodedClip]]:
        """Begin a batch; the future has the codes of each clip, in the order given.

        A GPU is still at work when this returns, so that the next batch can be made ready meanwhile; on a CPU the
        future is done. If GPU memory runs out, the encoder halves how much it encodes at once, from here on, and
        encodes the batch again.
        """
        frames = sum(self._codec.description.frames(clip.info.num_samples) for clip in clips)
        if frames > self._max_frames:
            return completed(self._encode_in_pieces(clips))
        codes = self._launch_or_halve(clips, frames)
        if codes is None:
            torch.cuda.empty_cache()
            return completed(self._encode_in_pieces(clips))
        if codes.done():
            return completed(_with_infos(clips, codes.result()))
        coded: Future[list[CodedClip]] = Future()
        codes.add_done_callback(lambda codes: _pass_on(codes, clips, coded))
        return coded

    def stream(self) -> CodeStream:
        """The encoding of one clip whose waveform comes in parts."""
        return CodeStream(self._codec.stream(self._num_quantizers, self._max_frames))

    def _launch_or_halve(self, clips: Sequence[Clip], frames: int) -> Future[list[Coded]] | None:
        """None if memory ran out, and fewer frames are encoded at once from now on.

        The caller goes on when the error is gone, whose traceback holds all that the failed batch had in memory.
        """
        try:
            return self._codec.launch([clip.waveform for clip in clips], self._num_quantizers)
        except torch.OutOfMemoryError as error:
            if len(clips) == 1 and not self._codec.description.streams:
                raise
            least = least_frames(self._codec)
            if frames <= least and least > 1:
                raise torch.OutOfMemoryError(
                    f"{error}\nA batch of {frames} frames does not fit, and a smaller one takes as much: rows are "
                    f"computed in groups of {least} frames. Give the GPU to nothing else, or set a smaller "
                    "model.static_frames for a new output"
                ) from None
            self._max_frames = max(least, frames // 2)
            # The text alone: a record of the log would keep the error.
            what = "%d frames at once, as %d are too many for the memory: %s"
            logger.warning(what, self._max_frames, frames, str(error))
            return None

    def _encode_in_pieces(self, clips: Sequence[Clip]) -> list[CodedClip]:
        if len(clips) > 1:
            half = len(clips) // 2
            return self.encode(clips[:half]) + self.encode(clips[half:])
        stream = self.stream()
        stream.step(clips[0].waveform)
        return [stream.finish(clips[0].info)]


class CodeStream:
    """The codes of a long clip so far: those of the whole clip, wherever its parts end."""

    def __init__(self, stream: CodecStream) -> None:
        self._stream = stream

    def step(self, waveform: np.ndarray) -> None:
        """Take the next (channels, n) samples, n whole frames in all parts but the last."""
        self._stream.step(waveform)

    def finish(self, info: ClipInfo) -> CodedClip:
        """End the clip: its codes."""
        coded = self._stream.finish()
        return CodedClip(info, coded.codes, coded.scales, coded.latents)


def _with_infos(clips: Sequence[Clip], codes: Sequence[Coded]) -> list[CodedClip]:
    return [
        CodedClip(clip.info, coded.codes, coded.scales, coded.latents) for clip, coded in zip(clips, codes, strict=True)
    ]


def _pass_on(codes: Future[list[Coded]], clips: Sequence[Clip], coded: Future[list[CodedClip]]) -> None:
    error = codes.exception()
    if error is not None:
        coded.set_exception(error)
    else:
        coded.set_result(_with_infos(clips, codes.result()))


LOST = (
    "CUDA error",
    "CUDA driver error",
    "Triton Error [CUDA]",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "device-side assert",
)
"""What torch, the kernels of its compiler, and the libraries say of a kernel that failed."""


def gpu_is_lost(error: BaseException) -> bool:
    """Whether the GPU computes nothing any more in this process: after an error of a kernel, CUDA answers every call
    with that error. Running out of memory is no such error."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST)
    )


def device_of(configured: str) -> str:
    """`auto` is the GPU if this process may use one. Raises CodecError for a GPU that it has and cannot use."""
    if configured == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if configured == "cuda":
        _require_gpu()
    return configured


def _require_gpu() -> None:
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        raise CodecError(
            f"model.device: a GPU is to be used, and torch {torch.__version__} cannot: {error}. A driver that is older "
            "than this CUDA does that: compare `nvidia-smi`; or set model.device=cpu"
        ) from error


def load_encoder(
    config: ModelConfig, num_quantizers: int, max_frames: int, latents: bool = False, dtype: str | None = None
) -> Encoder:
    """The half of the codec that encodes, on the configured device.

    `latents` asks for what it quantizes, too. `dtype` is the precision of the output that it encodes for; by default
    what is configured. Raises CodecError for a device or a precision that cannot be had.
    """
    source = find_codec(config.name, config.revision, config.codec)
    device = device_of(config.device)
    codec = load_codec(source, device, dtype or config.dtype, parts="encoder", latents=latents)
    return Encoder(with_execution(codec, config.static_frames, config.compile), num_quantizers, max_frames, device)
