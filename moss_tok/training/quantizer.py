"""The residual quantizer in training: fitted to data, not trained by gradients.

Each quantizer looks at CODE directions of what is left, the leading principal components, and has one more coordinate
that is a constant. The release picks the code with the largest cosine, which alone would not see how long a vector is.
With a constant b beside it, cos((x, b), (c, b)) is about 1 - |x - c|^2 / (2 b^2) for b well above |x|: the nearest code
by distance. So codebooks can be fitted by k-means, layer after layer, and nothing collapses.

Between fits, codebooks follow the encoder as moving averages of what they are given, and codes that fall out of use are
placed on vectors of the batch. The encoder is told by the straight-through estimator, through the projection onto what
the used quantizers span, and by the commitment loss.

Shapes: N frames, Q quantizers, K codes, W codebook_dim, R rvq_dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moss_tok.config import QuantizerConfig

# The constant coordinate, in multiples of the root mean square length of what a quantizer sees.
CONSTANT = 3.0
AVERAGING = 0.99
# A code that is chosen for fewer than this share of its fair part of the frames is placed anew.
DEAD = 0.03


@dataclass(frozen=True)
class Quantized:
    """`latents` (N, R) carries gradients to the encoder; `codes` (N, Q); `left` (Q,) is the share of energy that is
    left after each quantizer; `commitment` is a scalar loss."""

    latents: Tensor
    codes: Tensor
    left: Tensor
    commitment: Tensor


class TrainableQuantizer(nn.Module):
    """`input_proj` and `output_proj` are trained; all else is fitted and moves by averages."""

    in_weight: Tensor
    in_bias: Tensor
    out_weight: Tensor
    codebooks: Tensor
    counts: Tensor
    sums: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        quantizers, codes, width, rvq_dim = (
            config.num_quantizers, config.codebook_size, config.codebook_dim, config.rvq_dim,
        )  # fmt: skip
        self.input_proj = nn.Linear(config.input_dim, rvq_dim)
        self.output_proj = nn.Linear(rvq_dim, config.output_dim)
        self.register_buffer("in_weight", torch.zeros(quantizers, width, rvq_dim))
        self.register_buffer("in_bias", torch.zeros(quantizers, width))
        self.register_buffer("out_weight", torch.zeros(quantizers, rvq_dim, width))
        self.register_buffer("codebooks", torch.zeros(quantizers, codes, width))
        self.register_buffer("counts", torch.zeros(quantizers, codes))
        self.register_buffer("sums", torch.zeros(quantizers, codes, width))
        self.register_buffer("mean", torch.zeros(rvq_dim))
        self.register_buffer("variance", torch.ones(rvq_dim))

    @torch.no_grad()
    def codes_of(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """latents (N, R) -> codes (N, Q) and what each quantizer was given (N, Q, W)."""
        residual, codes, given = latents, [], []
        for index in range(self.config.num_quantizers):
            seen = residual @ self.in_weight[index].T + self.in_bias[index]
            chosen = (seen @ F.normalize(self.codebooks[index], dim=1).T).argmax(1)
            residual = residual - self.codebooks[index][chosen] @ self.out_weight[index].T
            codes.append(chosen)
            given.append(seen)
        return torch.stack(codes, 1), torch.stack(given, 1)

    def parts(self, codes: Tensor) -> Tensor:
        """codes (N, Q) -> the vector that each adds (N, Q, R)."""
        rows = self.codebooks[torch.arange(self.config.num_quantizers, device=codes.device), codes]
        return torch.einsum("nqw,qrw->nqr", rows, self.out_weight)

    def forward(self, latents: Tensor, used: Tensor) -> Quantized:
        """Quantize latents (N, R), frame n with its first `used[n]` quantizers."""
        codes, _ = self.codes_of(latents.detach())
        with torch.no_grad():
            sums = self.parts(codes).cumsum(1)
            energy = (latents - self.mean).square().sum()
            left = (latents[:, None] - sums).square().sum((0, 2)) / energy
        quantized = sums[torch.arange(len(used), device=used.device), used - 1]
        passed = torch.zeros_like(latents)
        for count in sorted(set(used.tolist())):
            rows = (used == count)[:, None]
            passed = passed + rows * (latents @ self.spanned(count).T)
        full = sums[:, -1]
        commitment = (latents - full).square().sum() / energy
        return Quantized(quantized + passed - passed.detach(), codes, left, commitment)

    @torch.no_grad()
    def spanned(self, count: int) -> Tensor:
        """(R, R): the projection onto what the first `count` quantizers transmit."""
        rest = torch.eye(self.config.rvq_dim, device=self.in_weight.device)
        for index in range(count):
            rest = rest - self.out_weight[index] @ (self.in_weight[index] @ rest)
        return torch.eye(self.config.rvq_dim, device=rest.device) - rest

    @torch.no_grad()
    def follow(self, latents: Tensor, generator: torch.Generator) -> None:
        """Move each codebook towards the average of what its codes stand for in latents (N, R); give unused codes a
        new place.
        """
        codes, given = self.codes_of(latents)
        frames, quantizers = codes.shape
        size, width = self.config.codebook_size, self.config.codebook_dim
        places = (codes + torch.arange(quantizers, device=codes.device) * size).flatten()
        ones = torch.ones(frames * quantizers, device=codes.device)
        counts = torch.zeros(quantizers * size, device=codes.device).index_add_(0, places, ones)
        sums = torch.zeros(quantizers * size, width, device=codes.device).index_add_(
            0, places, given.reshape(-1, width)
        )
        # Per frame, so that a batch of any size moves the averages alike.
        keep = AVERAGING ** (frames / 256)
        self.counts.mul_(keep).add_(counts.view_as(self.counts), alpha=1 - keep)
        self.sums.mul_(keep).add_(sums.view_as(self.sums), alpha=1 - keep)
        fair = self.counts.sum(1, keepdim=True) / size
        alive = self.counts > DEAD * fair
        self.codebooks.copy_(
            torch.where(alive[..., None], self.sums / self.counts.clamp_min(1e-8)[..., None], self.codebooks)
        )
        for index in range(quantizers):
            dead = (~alive[index]).nonzero()[:, 0][: max(1, frames // 8)]
            picked = given[torch.randint(frames, (len(dead),), generator=generator).to(codes.device), index]
            self.codebooks[index, dead] = picked
            self.counts[index, dead] = fair[index]
            self.sums[index, dead] = picked * fair[index]

    @torch.no_grad()
    def fit(self, latents: Tensor, generator: torch.Generator, rounds: int = 12) -> list[float]:
        """Fit all quantizers to latents (N, R), one after another. Returns the share of energy left after each."""
        residual, energy, left = latents.clone(), (latents - latents.mean(0)).square().sum(), []
        self.mean.copy_(latents.mean(0))
        self.variance.copy_(latents.var(0))
        width, size = self.config.codebook_dim, self.config.codebook_size
        for index in range(self.config.num_quantizers):
            second = residual.T @ residual / len(residual)
            directions = torch.linalg.eigh(second.double()).eigenvectors.flip(1)[:, : width - 1].float()
            seen = residual @ directions
            constant = CONSTANT * seen.square().sum(1).mean().sqrt()
            centres, counts = k_means(seen, size, rounds, generator)
            self.in_weight[index] = F.pad(directions.T, (0, 0, 0, 1))
            self.in_bias[index] = F.pad(constant[None], (width - 1, 0))
            self.out_weight[index] = F.pad(directions, (0, 1))
            self.codebooks[index] = torch.cat([centres, constant.expand(size, 1)], 1)
            self.counts[index] = counts / counts.sum() * 256
            self.sums[index] = self.codebooks[index] * self.counts[index][:, None]
            given = torch.cat([seen, constant.expand(len(seen), 1)], 1)
            chosen = (given @ F.normalize(self.codebooks[index], dim=1).T).argmax(1)
            residual = residual - centres[chosen] @ directions.T
            left.append(float(residual.square().sum() / energy))
        return left


def k_means(points: Tensor, count: int, rounds: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` centres (count, W) of points (N, W) and how many points each has; empty ones are placed on points."""
    order = torch.randperm(len(points), generator=generator)
    centres = points[order[torch.arange(count) % len(points)]].clone()
    counts = torch.zeros(count)
    for _ in range(rounds):
        # In groups whose scores stay in a cache.
        nearest = torch.cat(
            [(part @ centres.T - centres.square().sum(1) / 2).argmax(1) for part in torch.split(points, 2048)]
        )
        counts = torch.bincount(nearest, minlength=count).float()
        centres = torch.zeros_like(centres).index_add_(0, nearest, points) / counts.clamp_min(1)[:, None]
        empty = (counts == 0).nonzero()[:, 0]
        centres[empty] = points[torch.randint(len(points), (len(empty),), generator=generator)]
    return centres, counts.clamp_min(1)
