"""Batches of clips into codes, with any codec."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cached_property

import numpy as np
import torch

from pipeline.codecs import Codec, Coded, find_codec, load_codec
from pipeline.codecs import CodeStream as CodecStream
from pipeline.codecs.machine import Machine, describe_machine
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
        try:
            codes = self._launch(clips)
        except torch.OutOfMemoryError as error:
            if len(clips) == 1 and not self._codec.description.streams:
                raise
            torch.cuda.empty_cache()
            self._max_frames = max(1, frames // 2)
            logger.warning("%d frames at once, as %d are too many for the memory: %s", self._max_frames, frames, error)
            return completed(self._encode_in_pieces(clips))
        if codes.done():
            return completed(_with_infos(clips, codes.result()))
        coded: Future[list[CodedClip]] = Future()
        codes.add_done_callback(lambda codes: _pass_on(codes, clips, coded))
        return coded

    def stream(self) -> CodeStream:
        """The encoding of one clip whose waveform comes in parts."""
        return CodeStream(self._codec.stream(self._num_quantizers, self._max_frames))

    def _launch(self, clips: Sequence[Clip]) -> Future[list[Coded]]:
        return self._codec.launch([clip.waveform for clip in clips], self._num_quantizers)

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


def device_of(configured: str) -> str:
    """`auto` is the GPU if this process may use one."""
    if configured == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return configured


def load_encoder(config: ModelConfig, num_quantizers: int, max_frames: int, latents: bool = False) -> Encoder:
    """The half of the codec that encodes, on the configured device. `latents` asks for what it quantizes, too."""
    source = find_codec(config.name, config.revision, config.codec)
    device = device_of(config.device)
    codec = load_codec(source, device, config.dtype, parts="encoder", latents=latents)
    return Encoder(codec, num_quantizers, max_frames, device)
