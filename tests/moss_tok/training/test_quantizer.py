from __future__ import annotations

import torch

from moss_tok.config import QuantizerConfig
from moss_tok.training import channel
from moss_tok.training.quantizer import TrainableQuantizer

CONFIG = QuantizerConfig(input_dim=24, rvq_dim=24, output_dim=24, num_quantizers=6, codebook_size=64, codebook_dim=8)


def latents(count: int, seed: int) -> torch.Tensor:
    """(count, 24), with fewer and fewer power in later dimensions and a mean that is not zero."""
    scale = 4 * 0.8 ** torch.arange(24)
    return torch.randn(count, 24, generator=torch.Generator().manual_seed(seed)) * scale + 0.5


def fitted() -> TrainableQuantizer:
    quantizer = TrainableQuantizer(CONFIG)
    quantizer.fit(latents(4000, 0), torch.Generator().manual_seed(0))
    return quantizer


def test_each_quantizer_leaves_less():
    quantizer = TrainableQuantizer(CONFIG)
    left = quantizer.fit(latents(4000, 0), torch.Generator().manual_seed(0))
    assert left[0] < 0.5
    assert left[-1] < 0.1
    assert left == sorted(left, reverse=True)


def test_fitted_codes_are_the_nearest_ones_and_all_are_used():
    quantizer, frames = fitted(), latents(4000, 1)
    codes, given = quantizer.codes_of(frames)
    assert min(row.unique().numel() for row in codes.T) == 64
    # The constant coordinate makes the largest cosine the least distance, but for vectors far longer than it.
    distances = torch.cdist(given[:, 0, :7], quantizer.codebooks[0, :, :7])
    assert (distances.argmin(1) == codes[:, 0]).float().mean() > 0.85


def test_the_encoder_is_told_only_of_what_its_quantizers_span():
    quantizer = fitted()
    frames = latents(2, 3).requires_grad_(True)
    quantized = quantizer(frames, torch.tensor([1, 6]))
    quantized.latents.sum().backward()
    ones = torch.ones(24)
    assert torch.allclose(frames.grad[0], quantizer.spanned(1).T @ ones, atol=1e-5)
    assert torch.linalg.matrix_rank(quantizer.spanned(1)) == 7


def test_codes_out_of_use_are_placed_on_what_is_there():
    quantizer = fitted()
    moved = latents(4000, 4) + 40
    draw = torch.Generator().manual_seed(0)
    before = quantizer(moved, torch.full((4000,), 6)).left[-1]
    for _ in range(40):
        quantizer.follow(moved, draw)
    codes, _ = quantizer.codes_of(moved)
    assert quantizer(moved, torch.full((4000,), 6)).left[-1] < before / 2
    assert codes[:, 0].unique().numel() > 48


def test_noise_passes_strong_dimensions_and_silences_weak_ones():
    quantizer, frames = fitted(), latents(4000, 5)
    for _ in range(200):
        channel.follow(quantizer, frames)
    noise = torch.randn(4000, 1, 24, generator=torch.Generator().manual_seed(0))
    received = channel.transmit(quantizer, frames[:, None], noise, torch.ones(4000))[:, 0]
    kept = (received * frames).mean(0) / frames.square().mean(0)
    assert kept[0] > 0.9
    deviations = received.std(0)
    assert deviations[-1] < 0.05 * deviations[0]


def test_information_counts_bits_of_independent_dimensions():
    frames = torch.randn(20000, 1, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 15.0])
    expected = 0.5 * torch.log2(torch.tensor(10.0)) + 0.5 * torch.log2(torch.tensor(226.0))
    assert abs(channel.information(frames) - expected) < 0.05
