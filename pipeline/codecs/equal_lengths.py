"""Clips of equal length in one call, as far as that changes no bit.

Whether a row of a batch comes out as it does alone depends on which kernels a library picks for the batch's shape, and
on nothing in the clips. So each shape is probed once, with the first clips that have it: their latents, computed
together and alone, must be equal bit for bit. A shape that fails is never used, and the clips go alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SIZES = (8, 4, 2)
"""Clips in a call: few sizes, so that few shapes have to be probed."""


class EqualLengths:
    """Computes `latents` of many clips in few calls."""

    def __init__(self, latents: Callable[[Tensor], Tensor]) -> None:
        """`latents` takes (clips, channels, samples) and gives (clips, …)."""
        self._latents = latents
        self.shapes: dict[tuple[int, int], bool] = {}
        """Whether (clips, samples) gives the bits of each clip alone, of the shapes that were probed."""

    def encode(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Latents (1, …) of each waveform (channels, samples): those that it has alone."""
        found: dict[int, Tensor] = {}
        by_length: dict[int, list[int]] = defaultdict(list)
        for number, waveform in enumerate(waveforms):
            by_length[waveform.shape[1]].append(number)
        for length, numbers in by_length.items():
            left = numbers
            for size in SIZES:
                while len(left) >= size and self.shapes.get((size, length), True):
                    taken, left = left[:size], left[size:]
                    found.update(zip(taken, self._together([waveforms[number] for number in taken]), strict=True))
            found.update((number, self._latents(waveforms[number][None])) for number in left)
        return [found[number] for number in range(len(waveforms))]

    def _together(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        together = list(torch.split(self._latents(torch.stack(list(waveforms))), 1))
        shape = (len(waveforms), waveforms[0].shape[1])
        if shape not in self.shapes:
            alone = [self._latents(waveform[None]) for waveform in waveforms]
            self.shapes[shape] = all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
            return alone
        return together
