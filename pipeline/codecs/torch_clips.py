"""The base of codecs that are PyTorch modules: one whole clip a call, and the same bits whatever else goes on.

On a CPU a clip is encoded by one thread: with more, the products and convolutions of PyTorch add up in another order,
and some codes would depend on the number of threads (measured: docs/codecs.md). More cores are used by more actors.
On a GPU, clips that are equally long after padding share a call where that was seen to change no bit: see
`equal_lengths.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from moss_tok.precision import exact_float32
from pipeline.codecs.equal_lengths import EqualLengths
from pipeline.codecs.protocol import CodecDescription, Coded
from pipeline.codecs.whole_clips import WholeClips
from pipeline.items import join_codes

PaddedTo: TypeAlias = Literal["whole frames", "a frame", "nothing"]


class TorchClips(WholeClips):
    """A `Codec` around a module. Subclasses say how one clip is padded, encoded and decoded."""

    latents_first = False
    """Whether `latents` and `quantize` are implemented, and `encode_tensor` is the one after the other."""
    padded_to: PaddedTo = "whole frames"
    """What a clip is filled up to with zeros, by the codec's own rule. "a frame" is for those that are shorter, and
    "nothing" leaves it to the model."""

    def __init__(self, description: CodecDescription, model: nn.Module, device: str) -> None:
        super().__init__(description)
        self.device = torch.device(device)
        self.model: Any = model.to(self.device).eval().requires_grad_(False)
        if self.device.type == "cpu":
            self.numerics = "PyTorch's own kernels in one thread"
        self._together = EqualLengths(self.latents) if self.latents_first and self.device.type == "cuda" else None
        if self._together is not None:
            self.batching = "clips of equal length share a call, where that changes no bit; else one clip a call"

    @abstractmethod
    def decode_tensor(self, codes: Sequence[Tensor], scales: Tensor | None, num_samples: int) -> Tensor:
        """(channels, samples) from one clip's codes, int64 (frames,) for each codebook, of `num_samples` samples."""

    def encode_tensor(self, waveform: Tensor) -> tuple[Sequence[Tensor], Tensor | None]:
        """Codes (frames,) of each codebook, and scales where the codec has them, of one clip (channels, samples),
        which is padded.
        """
        return self.quantize(self.latents(waveform[None])), None

    def latents(self, batch: Tensor) -> Tensor:
        """What is quantized, of equally long clips (clips, channels, samples): (clips, …)."""
        raise NotImplementedError

    def quantize(self, latents: Tensor) -> Sequence[Tensor]:
        """Codes of each codebook of one clip's latents (1, …)."""
        raise NotImplementedError

    def encode_clip(self, waveform: np.ndarray) -> Coded:
        with self._exactly():
            return _to_host(*self.encode_tensor(self._input(waveform)))

    def encode_clips(self, waveforms: Sequence[np.ndarray]) -> list[Coded]:
        if self._together is None:
            return [self.encode_clip(waveform) for waveform in waveforms]
        with self._exactly():
            latents = self._together.encode([self._input(waveform) for waveform in waveforms])
            return [_to_host(self.quantize(each), None) for each in latents]

    def decode_clip(self, clip: Coded, num_samples: int) -> np.ndarray:
        codes = [torch.from_numpy(np.asarray(layer, np.int64)).to(self.device) for layer in clip.codes]
        scales = None if clip.scales is None else torch.from_numpy(np.array(clip.scales, np.float32)).to(self.device)
        with self._exactly():
            waveform: np.ndarray = self.decode_tensor(codes, scales, num_samples).float().cpu().numpy()
        return waveform

    def _input(self, waveform: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(waveform, np.float32)).to(self.device)
        given = tensor.shape[-1]
        wanted = {
            "whole frames": self.description.padded(given),
            "a frame": max(given, self.description.samples_per_frame),
            "nothing": given,
        }
        return nn.functional.pad(tensor, (0, wanted[self.padded_to] - given))

    @contextmanager
    def _exactly(self) -> Iterator[None]:
        threads = torch.get_num_threads()
        try:
            if self.device.type == "cpu":
                torch.set_num_threads(1)
            with torch.inference_mode(), exact_float32(self.device):
                yield
        finally:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def _to_host(codes: Sequence[Tensor], scales: Tensor | None) -> Coded:
    layers = [layer.to("cpu", torch.int64).numpy() for layer in codes]
    return Coded(join_codes(layers), None if scales is None else scales.float().cpu().numpy())
