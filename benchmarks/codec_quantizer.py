"""The folded quantizer against the published loop on a million random vectors: equal codes, and time.

    python -m benchmarks.codec_quantizer [--vectors 1000000] [--threads N]

The loop runs in float64 (the reference) and in float32 (what the release computes), at the released sizes: 768 ->
512, 32 quantizers of 1024 x 8. A vector counts once, at its first differing layer, because the later layers
then get another residual.
"""

from __future__ import annotations

import argparse
import time
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.codec_models import random_weights
from moss_tok.config import QuantizerConfig
from moss_tok.numerics import Work, choose
from moss_tok.quantizer import Quantizer, ResidualQuantizer

CONFIG = QuantizerConfig(
    input_dim=768, rvq_dim=512, output_dim=768, num_quantizers=32, codebook_size=1024, codebook_dim=8
)
BATCH = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quantizer = random_quantizer()
    exact, single = PlainLoop(quantizer, torch.float64), PlainLoop(quantizer, torch.float32)
    draw = torch.Generator().manual_seed(1)
    differs = {"folded": 0, "float32 loop": 0}
    widest = {"folded": 0.0, "float32 loop": 0.0}
    seconds = {"folded": 0.0, "float32 loop": 0.0}
    for _ in range(arguments.vectors // BATCH):
        hidden = torch.randn(BATCH, CONFIG.input_dim, generator=draw)
        expected, margins = exact(hidden)
        for name in differs:
            started = time.process_time()
            codes = quantizer.encode(hidden, 32) if name == "folded" else single(hidden)[0]
            seconds[name] += time.process_time() - started
            wrong = (codes != expected).any(0)
            differs[name] += int(wrong.sum())
            if wrong.any():
                first = (codes != expected)[:, wrong].int().argmax(0)
                widest[name] = max(widest[name], float(margins[:, wrong].gather(0, first[None]).max()))
    count = arguments.vectors // BATCH * BATCH
    print(f"{count} vectors, {32 * count} codes, against the float64 loop; {arguments.threads} threads")
    print("| implementation | vectors that differ | widest cosine margin among them | CPU us per vector |")
    print("|---|---|---|---|")
    for name in differs:
        print(f"| {name} | {differs[name]} | {widest[name]:.1e} | {1e6 * seconds[name] / count:.1f} |")


def random_quantizer() -> ResidualQuantizer:
    """Released sizes; each quantizer writes back along what it reads, so that the residual shrinks as in a trained
    one.
    """
    quantizer = ResidualQuantizer(CONFIG)
    shapes = {name: tuple(parameter.shape) for name, parameter in quantizer.named_parameters()}
    quantizer.load_state_dict(random_weights(shapes), assign=True)
    for index, module in enumerate(quantizer.quantizers):
        part = cast(Quantizer, module)
        draw = torch.Generator().manual_seed(index)
        directions = torch.linalg.qr(torch.randn(CONFIG.rvq_dim, CONFIG.codebook_dim, generator=draw)).Q
        for projection, weight in ((part.in_proj, directions.T), (part.out_proj, directions)):
            stored = projection.parametrizations["weight"]
            stored.original0.data = weight.norm(dim=1)[:, None, None]
            stored.original1.data = weight.contiguous()[:, :, None]
            projection.bias.data.mul_(0.1)
        part.codebook.weight.data = torch.randn(CONFIG.codebook_size, CONFIG.codebook_dim, generator=draw)
    quantizer.prepare()
    quantizer.bind(choose(Work([]), Work(quantizer.shapes, quantizer.operations), torch.float32))
    return quantizer


class PlainLoop:
    """The published loop, with its weight norms folded beforehand so that only the loop is timed."""

    def __init__(self, quantizer: ResidualQuantizer, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.input = [value.to(dtype) for value in quantizer.input_proj.folded()]
        self.parts = []
        for module in quantizer.quantizers:
            part = cast(Quantizer, module)
            codebook = part.codebook.weight.to(dtype)
            projections = [value.to(dtype) for value in (*part.in_proj.folded(), *part.out_proj.folded())]
            self.parts.append((projections, codebook, F.normalize(codebook, dim=1)))

    def __call__(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (32, n) and, for each, the margin between the two best cosines."""
        residual = F.linear(hidden.to(self.dtype), *self.input)
        codes, margins = [], []
        for (in_weight, in_bias, out_weight, out_bias), codebook, directions in self.parts:
            cosines = F.normalize(F.linear(residual, in_weight, in_bias), dim=1) @ directions.T
            if self.dtype == torch.float64:
                best = cosines.topk(2, dim=1)
                codes.append(best.indices[:, 0])
                margins.append(best.values[:, 0] - best.values[:, 1])
            else:
                codes.append(cosines.argmax(1))
            residual = residual - F.linear(codebook[codes[-1]], out_weight, out_bias)
        return torch.stack(codes), torch.stack(margins) if margins else torch.empty(0)


if __name__ == "__main__":
    main()
