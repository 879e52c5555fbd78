"""Streams: encode or decode audio chunk by chunk, with the same codes as the whole.

The state of a stream is a value (`StreamState`): it can be kept, saved, moved to another device and resumed, and its
size is bounded by the attention context. The streams of a batch may start and end at different times: each step takes
the chunks of the streams that continue. Attention works in tiles that are aligned to the start of a stream
(attention.py). So chunks of any whole number of frames give the same codes and hidden states, bit for bit, on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from moss_tok import arguments
from moss_tok.codec import MossAudioTokenizerModel
from moss_tok.stack import StreamState

DEFAULT_CHUNK_DURATION = 10.0


class StreamingEncoder:
    """Encodes streams of audio with `model`. `num_quantizers` is the number of codes per frame, all by default."""

    def __init__(self, model: MossAudioTokenizerModel, num_quantizers: int | None = None) -> None:
        if model.encoder is None:
            raise ValueError("this codec was loaded with parts='decoder': it cannot encode")
        self.model = model
        self.num_quantizers = arguments.quantizer_count(num_quantizers, model.num_quantizers)

    def step(self, chunk: Tensor, state: StreamState | None = None) -> tuple[Tensor, StreamState]:
        """Encode the next chunk (C, samples) of one stream, whole frames long. Gives codes (num_quantizers, frames) and
        the new state.

        `state` is None at the start of a stream.
        """
        codes, states = self.step_batch([chunk], [state])
        return codes[0], states[0]

    def step_batch(
        self, chunks: Sequence[Tensor], states: Sequence[StreamState | None]
    ) -> tuple[list[Tensor], list[StreamState]]:
        """Encode the next chunk of each of several streams. Chunks may differ in length. A stream that pauses or ends
        is left out."""
        codes, _, advanced = self.step_with_latents(chunks, states)
        return codes, advanced

    def step_with_latents(
        self, chunks: Sequence[Tensor], states: Sequence[StreamState | None]
    ) -> tuple[list[Tensor], list[Tensor], list[StreamState]]:
        """`step_batch` that also gives what was quantized: hidden states (frames, D) of each stream."""
        waveforms = arguments.list_of_waveforms(list(chunks), self.model.config)
        for index, waveform in enumerate(waveforms):
            if waveform.shape[1] % self.model.downsample_rate:
                raise ValueError(
                    f"chunk {index} has {waveform.shape[1]} samples; a chunk must be whole frames "
                    f"of {self.model.downsample_rate} samples (zero-pad the last one of a stream)"
                )
        results, advanced = self.model.encode_step(
            waveforms, _states(states, len(waveforms)), num_quantizers=self.num_quantizers
        )
        return [codes for codes, _ in results], [hidden for _, hidden in results], advanced


class StreamingDecoder:
    """Decodes streams of codes with `model`."""

    def __init__(self, model: MossAudioTokenizerModel) -> None:
        if model.decoder is None:
            raise ValueError("this codec was loaded with parts='encoder': it cannot decode")
        self.model = model

    def step(self, codes: Tensor, state: StreamState | None = None) -> tuple[Tensor, StreamState]:
        """Decode the next codes (num_quantizers, frames) of one stream. Gives audio (C, frames * downsample_rate) and
        the new state."""
        audio, states = self.step_batch([codes], [state])
        return audio[0], states[0]

    def step_batch(
        self, codes: Sequence[Tensor], states: Sequence[StreamState | None]
    ) -> tuple[list[Tensor], list[StreamState]]:
        """Decode the next codes of each of several streams; the numbers of frames may differ."""
        clips = arguments.list_of_codes(list(codes), self.model.config)
        return self.model.decode_step(clips, _states(states, len(clips)))


def encode_stream(
    model: MossAudioTokenizerModel,
    blocks: Iterable[Tensor],
    *,
    num_quantizers: int | None = None,
    chunk_duration: float = DEFAULT_CHUNK_DURATION,
) -> Iterator[Tensor]:
    """Codes (num_quantizers, frames) of one clip that arrives as blocks (C, samples) of any sizes.

    The blocks are cut into chunks of `chunk_duration` seconds, and the rest at the end is zero-padded to whole frames.
    The codes, joined, are those of the whole clip, and memory does not grow with its length.
    """
    encoder = StreamingEncoder(model, num_quantizers)
    size = arguments.chunk_frames(chunk_duration, model.config) * model.downsample_rate
    state: StreamState | None = None
    for chunk in _chunks(model, blocks, size):
        missing = -chunk.shape[1] % model.downsample_rate
        codes, state = encoder.step(torch.nn.functional.pad(chunk, (0, missing)), state)
        yield codes


def decode_stream(model: MossAudioTokenizerModel, codes: Iterable[Tensor]) -> Iterator[Tensor]:
    """Audio (C, samples) of one clip whose codes (num_quantizers, frames) arrive in pieces of any sizes."""
    decoder = StreamingDecoder(model)
    state: StreamState | None = None
    for piece in codes:
        audio, state = decoder.step(piece, state)
        yield audio


def _chunks(model: MossAudioTokenizerModel, blocks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Cut blocks of samples into chunks of `size`. The last chunk may be shorter."""
    waiting: list[Tensor] = []
    count = 0
    for block in blocks:
        waveform = arguments.list_of_waveforms([block], model.config)[0]
        while count + waveform.shape[1] >= size:
            taken = size - count
            yield torch.cat([*waiting, waveform[:, :taken]], dim=1)
            waveform, waiting, count = waveform[:, taken:], [], 0
        if waveform.shape[1]:
            waiting.append(waveform)
            count += waveform.shape[1]
    if waiting:
        yield torch.cat(waiting, dim=1)


def _states(states: Sequence[StreamState | None], streams: int) -> list[StreamState]:
    if len(states) != streams:
        raise ValueError(f"{streams} chunks need {streams} states (None where a stream begins), got {len(states)}")
    return [StreamState() if state is None else state for state in states]
