"""The modules of a codec, run over packed batches: one chunk of each of several streams, or whole clips.

The frames of all clips are joined in one matrix, without padding between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from moss_tok.attention import Span
from moss_tok.config import MossAudioTokenizerConfig
from moss_tok.execution import Execution
from moss_tok.numerics import Numerics, Work, choose, unprobed
from moss_tok.packing import pack_waveforms
from moss_tok.precision import exact_float32
from moss_tok.quantizer import ResidualQuantizer
from moss_tok.search import CodeSearch
from moss_tok.stack import Stack, StreamState
from moss_tok.transfer import to_device

if TYPE_CHECKING:
    from typing_extensions import Self

Parts = Literal["all", "encoder", "decoder"]


class PackedCodec(nn.Module):
    """Encoder, quantizer and decoder, and the kernels that they compute with."""

    def __init__(self, config: MossAudioTokenizerConfig, keys: set[str], parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.parts = parts
        self.execution: Execution | None = None
        self._products: Numerics = unprobed(torch.float32)
        rate = Fraction(config.sampling_rate, config.downsample_rate)
        self.encoder = Stack(config.encoder, "encoder", keys, rate) if parts != "decoder" else None
        self.quantizer = ResidualQuantizer(config.quantizer, encodes=parts != "decoder", decodes=parts != "encoder")
        self.decoder = Stack(config.decoder, "decoder", keys, rate) if parts != "encoder" else None

    def to(self, device: str | torch.device) -> Self:  # type: ignore[override]
        """Move to a device. Precision is chosen when loading: the quantizer must stay float32."""
        if isinstance(device, torch.dtype):
            raise TypeError("precision is chosen when loading: from_pretrained(..., dtype=...)")
        return super().to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Every conversion of a module comes through here: half, double, bfloat16, type.
        if fn(torch.zeros(1)).dtype != torch.float32:
            raise TypeError("precision is chosen when loading: from_pretrained(..., dtype=...)")
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._prepare()
        return self

    def _prepare(self) -> None:
        """Choose the kernels for the device of the weights, and prepare the weights for them."""
        stages = [stage for stack in (self.encoder, self.decoder) if stack is not None for stage in stack.stages]
        linears = [linear for stage in stages for linear in stage.linears]
        if self.device.type == "cpu":
            transformers = Work(
                [linear.shape for linear in linears], [part for stage in stages for part in stage.operations]
            )
            quantizer = Work(self.quantizer.shapes, self.quantizer.operations)
            self._products = choose(transformers, quantizer, self.dtype)
        else:
            self._products = unprobed(self.dtype)
        for linear in linears:
            linear.prepare(self._products.products)
        for stage in stages:
            stage.bind(self._products)
        self.quantizer.bind(self._products)

    @property
    def numerics(self) -> Numerics:
        """The kernels that it computes with, chosen by probes: of the products when it is loaded or moved, of the
        search for codes when it is first asked for."""
        return replace(self._products, one_search=self._search is not None)

    @property
    def _search(self) -> CodeSearch | None:
        factory = self._execution.search
        return None if factory is None or self.encoder is None else self.quantizer.search(factory)

    @property
    def device(self) -> torch.device:
        return self.quantizer.input_proj.bias.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the matrix products of the transformers."""
        stack = self.decoder if self.encoder is None else self.encoder
        return torch.float32 if stack is None else stack.stages[0].product_dtype

    @property
    def _execution(self) -> Execution:
        return self.execution or Execution.for_device(self.device, self.dtype)

    @torch.no_grad()
    def encode_step(
        self, chunks: Sequence[Tensor], states: Sequence[StreamState] | None, *, num_quantizers: int
    ) -> tuple[list[tuple[Tensor, Tensor]], list[StreamState]]:
        """Encode one chunk (C, samples) of each of several streams. Gives codes (num_quantizers, frames) and hidden
        (frames, D) of each, and the new states.

        A chunk that is not whole frames is zero-padded and ends its stream. `states` is None for whole clips, and then
        there are no new states.
        """
        if self.encoder is None:
            raise RuntimeError("this codec was loaded with parts='decoder': it cannot encode")
        spans = [
            Span(past, -(-chunk.shape[1] // self.config.downsample_rate))
            for past, chunk in zip(_pasts(states, chunks), chunks, strict=True)
        ]
        packed = pack_waveforms(chunks, self.config.downsample_rate, self.device)
        with exact_float32(self.device):
            hidden, new_states = self.encoder(packed, spans, states, execution=self._execution)
            codes = self.quantizer.encode(hidden, num_quantizers, self._search)
        lengths = [span.length for span in spans]
        return list(zip(torch.split(codes, lengths, dim=1), torch.split(hidden, lengths), strict=True)), new_states

    @torch.no_grad()
    def decode_step(
        self, chunks: Sequence[Tensor], states: Sequence[StreamState] | None
    ) -> tuple[list[Tensor], list[StreamState]]:
        """Decode codes (num_quantizers, frames) of each of several streams. Gives audio (C, frames * downsample_rate)
        of each, and the new states."""
        if self.decoder is None:
            raise RuntimeError("this codec was loaded with parts='encoder': it cannot decode")
        spans = [Span(past, chunk.shape[1]) for past, chunk in zip(_pasts(states, chunks), chunks, strict=True)]
        with exact_float32(self.device):
            hidden = self.quantizer.decode(to_device(torch.cat(list(chunks), dim=1), self.device))
            samples, new_states = self.decoder(hidden, spans, states, execution=self._execution)
        rate = self.config.downsample_rate * self.config.number_channels
        audio = [
            clip.view(-1, self.config.number_channels).T
            for clip in torch.split(samples, [span.length * rate for span in spans])
        ]
        return audio, new_states


def _pasts(states: Sequence[StreamState] | None, chunks: Sequence[Tensor]) -> list[int]:
    return [0] * len(chunks) if states is None else [state.frames for state in states]
