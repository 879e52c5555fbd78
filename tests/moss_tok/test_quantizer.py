"""The folded quantizer against the published loop, written out in float64 and float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tok.quantizer import ResidualQuantizer, first_argmax


def plain_codes(quantizer: ResidualQuantizer, hidden: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The loop as published: project, normalise, take the best cosine, subtract. Codes and the margin of each
    choice.
    """
    weight, bias = quantizer.input_proj.folded()
    residual = F.linear(hidden.to(dtype), weight.to(dtype), bias.to(dtype))
    codes, margins = [], []
    for part in quantizer.quantizers:
        in_weight, in_bias = part.in_proj.folded()
        out_weight, out_bias = part.out_proj.folded()
        codebook = part.codebook.weight.to(dtype)
        query = F.normalize(F.linear(residual, in_weight.to(dtype), in_bias.to(dtype)), dim=1)
        best = (query @ F.normalize(codebook, dim=1).T).topk(2, dim=1)
        codes.append(best.indices[:, 0])
        margins.append(best.values[:, 0] - best.values[:, 1])
        residual = residual - F.linear(codebook[codes[-1]], out_weight.to(dtype), out_bias.to(dtype))
    return torch.stack(codes), torch.stack(margins)


def first_differences(found: Tensor, expected: Tensor) -> Tensor:
    """For each vector whose codes differ anywhere, the quantizer of the first difference (-1: none)."""
    differs = found != expected
    return torch.where(differs.any(0), differs.int().argmax(0), -1)


@pytest.mark.slow
def test_codes_are_those_of_the_plain_loop(golden):
    """Differences are allowed only where two codebook rows tie to within rounding (at most 1 vector in 1,000)."""
    quantizer = golden.model.quantizer
    hidden = torch.randn(20_000, quantizer.config.input_dim, generator=torch.Generator().manual_seed(0))
    codes = quantizer.encode(hidden, quantizer.config.num_quantizers)
    expected, margins = plain_codes(quantizer, hidden, torch.float64)
    first = first_differences(codes, expected)
    vectors = (first >= 0).nonzero()[:, 0]
    assert len(vectors) <= 20
    assert (margins[first[vectors], vectors] < 1e-5).all()


@pytest.mark.slow
def test_near_ties_differ_only_within_rounding(golden):
    """Vectors placed half-way between two codebook rows of the first quantizer, off by 1e-3 and less."""
    quantizer = golden.model.quantizer
    draw = torch.Generator().manual_seed(1)
    weight, bias = quantizer.input_proj.folded()
    in_weight, in_bias = quantizer.quantizers[0].in_proj.folded()
    codebook = F.normalize(quantizer.quantizers[0].codebook.weight.double(), dim=1)
    middle = (
        codebook[torch.randint(1024, (5000,), generator=draw)] + codebook[torch.randint(1024, (5000,), generator=draw)]
    )
    middle += 10.0 ** -torch.randint(3, 9, (5000, 1), generator=draw) * torch.randn(5000, 8, generator=draw).double()
    hidden = (middle - in_bias - in_weight @ bias) @ torch.linalg.pinv(in_weight @ weight).T
    codes = quantizer.encode(hidden.float(), 1)
    expected, margins = plain_codes(quantizer, hidden.float(), torch.float64)
    differs = codes[0] != expected[0]
    assert differs.float().mean() < 0.05
    assert (margins[0][differs] < 2e-6).all()


def test_the_first_index_wins_a_tie(v1_tiny):
    quantizer = v1_tiny.model.quantizer
    hidden = torch.randn(50, 48, generator=torch.Generator().manual_seed(2))
    chosen = quantizer.encode(hidden, 1)[0]
    original = quantizer.directions.clone()
    try:
        # Every row twice: each choice is now a tie between the row and its copy 512 further on.
        quantizer.directions[0, 512:] = quantizer.directions[0, :512]
        assert (quantizer.encode(hidden, 1)[0] < 512).all()
    finally:
        quantizer.directions.copy_(original)
    assert torch.equal(quantizer.encode(hidden, 1)[0], chosen)


def test_the_grouped_argmax_is_argmax_with_the_first_index():
    draw = torch.Generator().manual_seed(5)
    for shape in ((40, 1024), (40, 192), (7, 100), (1, 64)):
        scores = torch.randint(0, 50, shape, generator=draw).float()
        expected = torch.stack([(row == row.max()).nonzero()[0, 0] for row in scores])
        assert torch.equal(first_argmax(scores), expected)


def test_a_vector_does_not_see_its_neighbours(golden):
    quantizer = golden.model.quantizer
    hidden = torch.randn(2100, quantizer.config.input_dim, generator=torch.Generator().manual_seed(3))
    together = quantizer.encode(hidden, quantizer.config.num_quantizers)
    for rows in (1, 2, 15, 16, 17, 1024, 1030):
        assert torch.equal(quantizer.encode(hidden[-rows:], quantizer.config.num_quantizers), together[:, -rows:])
    sums = quantizer.decode(together)
    for rows in (1, 7, 16, 500):
        assert torch.equal(quantizer.decode(together[:, -rows:]), sums[-rows:])


@pytest.mark.parametrize("count", [1, 5, 16])
def test_decoding_is_the_sum_of_what_was_subtracted(golden, count):
    quantizer = golden.model.quantizer
    codes = torch.randint(1024, (count, 30), generator=torch.Generator().manual_seed(4))
    total = torch.zeros(30, quantizer.config.rvq_dim, dtype=torch.float64)
    for part, chosen in zip(quantizer.quantizers, codes, strict=False):
        weight, bias = part.out_proj.folded()
        total += F.linear(part.codebook.weight[chosen].double(), weight, bias)
    expected = F.linear(total, *quantizer.output_proj.folded())
    torch.testing.assert_close(quantizer.decode(codes).double(), expected, rtol=1e-5, atol=1e-6)
