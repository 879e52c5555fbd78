"""The MOSS Audio Tokenizer with its weights: packed batches of any lengths, and streams of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from moss_tok import MossAudioTokenizerModel, StreamingEncoder, arguments, decode_stream
from moss_tok.checkpoint import Checkpoint
from moss_tok.execution import COMPILER, Execution
from moss_tok.search import one_kernel
from moss_tok.stack import StreamState
from moss_tok.transfer import to_host
from pipeline.codecs.moss import describe
from pipeline.codecs.protocol import Codec, CodecError, Coded, CodeStream, Parts
from pipeline.concurrency import completed

FLASH_ATTENTION = (8, 0)
"""The compute capability from which on torch has it."""
PIECE_FRAMES = 1024  # at most, of a long clip that is decoded, whatever its length


class MossCodec:
    """`Codec` of a MossAudioTokenizerModel."""

    batching = "packed: any clips share a call"

    def __init__(self, model: MossAudioTokenizerModel, latents: bool = False) -> None:
        """`latents` gives what is quantized beside the codes."""
        self.model = model
        self.latents = latents
        self.description = describe(model.config)
        self._copying = ThreadPoolExecutor(1, thread_name_prefix="codes-to-host")

    @property
    def execution(self) -> Execution:
        return self.model.execution or Execution.for_device(self.model.device, self.model.dtype)

    @property
    def numerics(self) -> str:
        return f"{self.model.numerics.name}{self.execution.name}"

    def launch(self, waveforms: Sequence[np.ndarray], num_quantizers: int) -> Future[list[Coded]]:
        """A GPU goes on with the batch when this has returned, so that the next can be made ready meanwhile."""
        tensors = [torch.from_numpy(waveform) for waveform in waveforms]
        encoded, _ = self.model.encode_step(tensors, None, num_quantizers=num_quantizers)
        lengths = [codes.shape[1] for codes, _ in encoded]
        joined = to_host(torch.cat([codes for codes, _ in encoded], dim=1).to(torch.int16))
        latents = to_host(_half(torch.cat([hidden for _, hidden in encoded]))) if self.latents else None

        def collect() -> list[Coded]:
            clips = _split(joined(), lengths)
            if latents is None:
                return clips
            parts = torch.split(latents(), lengths)
            return [replace(clip, latents=part.numpy().copy()) for clip, part in zip(clips, parts, strict=True)]

        return completed(collect()) if self.model.device.type == "cpu" else self._copying.submit(collect)

    def stream(self, num_quantizers: int, max_frames: int) -> CodeStream:
        return MossStream(self.model, num_quantizers, max_frames, self.latents)

    def decode(self, clips: Sequence[Coded], num_samples: Sequence[int]) -> list[np.ndarray]:
        codes = arguments.list_of_codes([_tensor(clip) for clip in clips], self.model.config)
        decoded, _ = self.model.decode_step(codes, None)
        lengths = [sound.shape[1] for sound in decoded]
        joined = torch.cat(decoded, dim=1).float()  # unpadded: one copy to the host for all
        sounds = torch.split(to_host(joined)(), lengths, dim=1)
        return [np.ascontiguousarray(sound[:, :n].numpy()) for sound, n in zip(sounds, num_samples, strict=True)]

    def decode_pieces(self, clip: Coded, num_samples: int) -> Iterator[np.ndarray]:
        left = num_samples
        block = 1 if self.model.decoder is None else self.model.decoder.block_frames
        frames = max(1, PIECE_FRAMES // block) * block  # whole blocks of attention, as in MossStream
        for piece in decode_stream(self.model, torch.split(_tensor(clip), frames, dim=1)):
            yield piece[:, :left].float().cpu().numpy()
            left -= min(left, piece.shape[1])


class MossStream:
    """The encoding of a long clip part by part: its codes so far, and the state of the encoder.

    Parts may end anywhere. The clip is encoded in whole blocks of attention, because there the arithmetic on every
    device, and so every code, is that of the whole clip.
    """

    def __init__(
        self, model: MossAudioTokenizerModel, num_quantizers: int, max_frames: int, latents: bool = False
    ) -> None:
        self._encoder = StreamingEncoder(model, num_quantizers)
        frames = 1 if model.encoder is None else model.encoder.block_frames
        self._block = frames * model.downsample_rate
        self._most = max(1, max_frames // frames) * self._block
        self._held = np.zeros((model.number_channels, 0), np.float32)
        self._state: StreamState | None = None
        self._codes: list[np.ndarray] = []
        self._latents: list[np.ndarray] = []
        self._with_latents = latents
        self._copying: list[Callable[[], torch.Tensor]] = []
        """Wait for the codes, and for the latents, of the last chunk, which a GPU may still be at."""

    def step(self, waveform: np.ndarray) -> None:
        """Take the next (channels, n) samples. Those that fill whole blocks are encoded, and the rest is kept."""
        waiting = np.concatenate([self._held, waveform], axis=1)
        whole = waiting.shape[1] // self._block * self._block
        for start in range(0, whole, self._most):
            self._encode(torch.from_numpy(waiting[:, start : min(start + self._most, whole)]))
        self._held = waiting[:, whole:].copy()

    def finish(self) -> Coded:
        """End the clip. Gives all its codes."""
        if self._held.shape[1]:
            missing = -self._held.shape[1] % self._encoder.model.downsample_rate
            self._encode(torch.from_numpy(np.pad(self._held, ((0, 0), (0, missing)))))
        self._collect()
        latents = np.concatenate(self._latents) if self._with_latents else None
        return Coded(np.concatenate(self._codes, axis=1), latents=latents)

    def _encode(self, chunk: torch.Tensor) -> None:
        half = -(-chunk.shape[1] // self._block) // 2 * self._block
        if not self._fits(chunk, last=half == 0):
            torch.cuda.empty_cache()  # with the error, its traceback and all that it held in memory are gone
            self._encode(chunk[:, :half])
            self._encode(chunk[:, half:])

    def _fits(self, chunk: torch.Tensor, last: bool) -> bool:
        """Encode a chunk unless the memory is too small for it, which is raised if it is the `last` attempt."""
        try:
            (codes,), (hidden,), (self._state,) = self._encoder.step_with_latents([chunk], [self._state])
        except torch.OutOfMemoryError:
            if last:
                raise
            return False
        self._collect()  # of the chunk before: this one is on its way
        self._copying.append(to_host(codes.to(torch.int16)))
        if self._with_latents:
            self._copying.append(to_host(_half(hidden)))
        return True

    def _collect(self) -> None:
        if self._copying:
            codes, *latents = (copy().numpy() for copy in self._copying)
            self._codes.append(codes)
            self._latents += latents
            self._copying.clear()


def with_latents(codec: Codec) -> Codec:
    """The codec, giving what it quantizes beside the codes. Raises CodecError for a codec that cannot."""
    if not isinstance(codec, MossCodec):
        raise CodecError(f"output.latents: only MOSS codecs have them, not those of {codec.description.family}")
    return MossCodec(codec.model, latents=True)


def with_execution(codec: Codec, static_frames: int | None, compiled: bool | None) -> Codec:
    """The codec, carried out on a GPU in groups of so many frames, with its layers and its search for codes compiled or
    not.

    None is the default of the device. On a CPU, and for other codecs, nothing changes.
    """
    if not isinstance(codec, MossCodec) or codec.model.device.type == "cpu":
        return codec
    execution = codec.execution
    if static_frames is not None:
        execution = replace(execution, static_frames=static_frames)
    if compiled is not None:
        backend, search = (COMPILER, one_kernel) if compiled else (None, None)
        execution = replace(execution, compile_backend=backend, search=search)
    codec.model.execution = execution
    return codec


def least_frames(codec: Codec) -> int:
    """The number of frames below which a smaller batch takes no less memory."""
    return (codec.execution.static_frames or 1) if isinstance(codec, MossCodec) else 1


def _half(hidden: torch.Tensor) -> torch.Tensor:
    """float16, what is too large for it made as large as it can be."""
    limit = torch.finfo(torch.float16).max
    return hidden.clamp(-limit, limit).to(torch.float16)


def _split(codes: torch.Tensor, lengths: Sequence[int]) -> list[Coded]:
    parts = torch.split(codes, list(lengths), dim=1)
    return [Coded(np.ascontiguousarray(part.numpy())) for part in parts]


def _tensor(clip: Coded) -> torch.Tensor:
    return torch.from_numpy(np.asarray(clip.codes).astype(np.int64))


def load(checkpoint: Checkpoint, device: str, dtype: str, parts: Parts) -> MossCodec:
    """`Family.load`."""
    if dtype == "bfloat16" and device.startswith("cuda"):
        _require_packed_attention(device)
    model = MossAudioTokenizerModel.from_pretrained(
        checkpoint.name, revision=checkpoint.revision, dtype=dtype, device=device, parts=parts
    )
    return MossCodec(model.eval())


def _require_packed_attention(device: str) -> None:
    """Raises CodecError for a GPU for which torch has no flash attention, instead of every batch failing."""
    if torch.cuda.get_device_capability(device) < FLASH_ATTENTION:
        raise CodecError(
            f"model.dtype: bfloat16 needs a GPU of compute capability {FLASH_ATTENTION[0]}.0 or later (Ampere), which "
            f"{torch.cuda.get_device_name(device)} is not: set model.dtype=float32"
        )
