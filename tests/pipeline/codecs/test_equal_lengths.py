"""Clips of equal length share a call only where that was seen to change no bit."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.codecs.equal_lengths import EqualLengths


class Counted:
    """Latents that are exact for some numbers of clips only, and how many clips each call had."""

    def __init__(self, exact: tuple[int, ...]) -> None:
        self.exact = exact
        self.calls: list[int] = []

    def __call__(self, batch: Tensor) -> Tensor:
        self.calls.append(len(batch))
        drift = 0.0 if len(batch) in self.exact else 1e-6
        return batch.double() * 2 + drift


def clips(*lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, length, generator=generator) for length in lengths]


def test_a_shape_is_probed_once_and_then_used():
    latents = Counted(exact=(1, 2, 4, 8))
    together = EqualLengths(latents)
    waveforms = clips(*[5] * 8, *[5] * 8, 5)
    found = together.encode(waveforms)
    assert latents.calls == [8, *[1] * 8, 8, 1]
    assert together.shapes == {(8, 5): True}
    for waveform, each in zip(waveforms, found, strict=True):
        assert torch.equal(each[0], waveform.double() * 2)


def test_a_shape_that_changes_bits_is_never_used_again_and_its_clips_go_in_smaller_calls():
    latents = Counted(exact=(1, 2))
    together = EqualLengths(latents)
    for _ in range(2):
        waveforms = clips(*[5] * 8, 3, *[7] * 2)
        for waveform, each in zip(waveforms, together.encode(waveforms), strict=True):
            assert torch.equal(each[0], waveform.double() * 2)
    assert together.shapes == {(8, 5): False, (4, 5): False, (2, 5): True, (2, 7): True}
    assert latents.calls.count(8) == 1
