"""The noise channel: what stands in the quantizer's place in the first phase of training.

Gaussian noise of unit power is added to the latents, and a penalty keeps the information that then gets through,
sum over dimensions of 1/2 log2(1 + power), below what the codes can carry. The encoder so learns to put what matters
into few strong dimensions, which is what a residual quantizer can code; an autoencoder without a limit spreads it over
all of them. Louder noise for some clips stands for fewer codes: the strong dimensions survive it, the others do not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from moss_tok.training.quantizer import TrainableQuantizer

AVERAGING = 0.98


def transmit(quantizer: TrainableQuantizer, latents: Tensor, noise: Tensor, deviation: Tensor) -> Tensor:
    """latents (B, frames, R) with `noise` of unit power, made as loud as `deviation` (B,): the best linear estimate of
    what was sent, from each dimension's mean and variance. Weak dimensions come out as their mean.
    """
    deviation = deviation[:, None, None]
    shrink = quantizer.variance / (quantizer.variance + deviation.square())
    return quantizer.mean + (latents + deviation * noise - quantizer.mean) * shrink


@torch.no_grad()
def follow(quantizer: TrainableQuantizer, latents: Tensor) -> None:
    """Move the mean and the variance of the dimensions towards those of latents (N, R)."""
    quantizer.mean.lerp_(latents.mean(0), 1 - AVERAGING)
    quantizer.variance.lerp_((latents - quantizer.mean).square().mean(0), 1 - AVERAGING)


def information(latents: Tensor) -> Tensor:
    """Bits a frame that latents (B, frames, R) carry beside unit noise, were they Gaussian and independent."""
    flat = latents.flatten(0, 1)
    return 0.5 * torch.log2(1 + (flat - flat.mean(0)).square().mean(0)).sum()
