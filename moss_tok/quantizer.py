"""The residual quantizer, folded so that a code costs a handful of small products.

As published, quantizer i projects the residual r (rvq_dim) to e = A_i r + a_i (codebook_dim), takes the code whose
codebook row has the largest cosine with e, and subtracts z_i = O_i c_i + o_i from r. Only the e are ever looked at, and
they follow from one another: with r_0 = W h + b,

    e_j = A_j W h + (A_j b + a_j - sum_{i<j} A_j o_i) - sum_{i<j} (A_j O_i) c_i

So one product (input_dim -> num_quantizers * codebook_dim) gives all e before corrections, and each chosen row c_i
corrects the later ones through 8 x 8 matrices. Everything constant is computed once, in float64, by `prepare`; the
steps run in float32. The cosine's argmax needs no normalisation of e: a positive factor moves no maximum.

Decoding is the sum of the z through the output projection: a sum of rows of one precomputed table.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moss_tok.config import QuantizerConfig
from moss_tok.linear import OUTPUT_MULTIPLE, RowBudget, multiply_rows

# Bounds the scores (rows, codebook_size) to 4 MB for the released codebooks.
QUANTIZER_ROWS = 1024
# The maxima of groups are found with vector instructions, which torch's argmax does not use: a third of the time.
ARGMAX_GROUP = 64


class WeightNorm(nn.Module):
    """A weight-normalised 1x1 convolution as the release stores it: `original0` is g, `original1` is v."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.original0 = nn.Parameter(torch.empty(outputs, 1, 1), requires_grad=False)
        self.original1 = nn.Parameter(torch.empty(outputs, inputs, 1), requires_grad=False)

    def folded(self) -> Tensor:
        """(outputs, inputs) float64: g * v / |v|, the norm taken per output."""
        scale, direction = self.original0.double()[:, :, 0], self.original1.double()[:, :, 0]
        return F.normalize(direction, dim=1, eps=0) * scale


class Projection(nn.Module):
    """A 1x1 convolution with bias, inputs -> outputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False)
        self.parametrizations = nn.ModuleDict({"weight": WeightNorm(inputs, outputs)})

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight (outputs, inputs) and bias (outputs,), float64."""
        return cast(WeightNorm, self.parametrizations["weight"]).folded(), self.bias.double()


class Quantizer(nn.Module):
    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.in_proj = Projection(config.rvq_dim, config.codebook_dim)
        self.out_proj = Projection(config.codebook_dim, config.rvq_dim)
        # Given its weight, Embedding draws no random one: on the meta device that would import torch's compiler, 5 s.
        rows = torch.empty(config.codebook_size, config.codebook_dim)
        self.codebook = nn.Embedding(config.codebook_size, config.codebook_dim, _weight=rows, _freeze=True)


class ResidualQuantizer(nn.Module):
    """Hidden states <-> codes. `prepare` must have been called once the parameters are loaded.

    `encodes` and `decodes` say which directions are folded and can be run.
    """

    project: Tensor
    offset: Tensor
    corrections: Tensor
    directions: Tensor
    codebooks: Tensor
    table: Tensor
    output_bias: Tensor

    def __init__(self, config: QuantizerConfig, *, encodes: bool = True, decodes: bool = True) -> None:
        super().__init__()
        self.config, self.encodes, self.decodes = config, encodes, decodes
        self.input_proj = Projection(config.input_dim, config.rvq_dim)
        self.output_proj = Projection(config.rvq_dim, config.output_dim)
        self.quantizers = nn.ModuleList(Quantizer(config) for _ in range(config.num_quantizers))

    @torch.no_grad()
    def prepare(self) -> None:
        """Fold the parameters into what is computed with."""
        quantizers = [cast(Quantizer, quantizer) for quantizer in self.quantizers]
        in_projs = [quantizer.in_proj.folded() for quantizer in quantizers]
        out_projs = [quantizer.out_proj.folded() for quantizer in quantizers]
        codebooks = torch.stack([quantizer.codebook.weight.double() for quantizer in quantizers])
        if self.encodes:
            self._prepare_encode(in_projs, out_projs, codebooks)
        if self.decodes:
            weight, bias = self.output_proj.folded()
            parts = [codebook @ out.T + shift for codebook, (out, shift) in zip(codebooks, out_projs, strict=True)]
            self._constant("table", torch.cat(parts) @ weight.T)
            self._constant("output_bias", bias)

    def _prepare_encode(
        self, in_projs: list[tuple[Tensor, Tensor]], out_projs: list[tuple[Tensor, Tensor]], codebooks: Tensor
    ) -> None:
        weight, bias = self.input_proj.folded()
        stacked = torch.cat([projection for projection, _ in in_projs])
        shifts = torch.stack([shift for _, shift in out_projs]).cumsum(0)
        before = torch.cat([torch.zeros_like(shifts[:1]), shifts[:-1]])
        offsets = [
            projection @ (bias - subtracted) + shift
            for (projection, shift), subtracted in zip(in_projs, before, strict=True)
        ]
        width = self.config.codebook_dim
        corrections = torch.stack([stacked @ out for out, _ in out_projs])
        for index in range(len(corrections)):
            corrections[index, : (index + 1) * width] = 0
        missing = -stacked.shape[0] % OUTPUT_MULTIPLE
        self._constant("project", F.pad(stacked @ weight, (0, 0, 0, missing)))
        self._constant("offset", F.pad(torch.cat(offsets), (0, missing)))
        self._constant("corrections", F.pad(corrections, (0, 0, 0, missing)))
        missing = -self.config.codebook_size % OUTPUT_MULTIPLE
        self._constant("directions", F.pad(F.normalize(codebooks, dim=2), (0, 0, 0, missing)))
        self._constant("codebooks", codebooks)

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value.to(torch.float32).contiguous(), persistent=False)

    def encode(self, hidden: Tensor, num_quantizers: int) -> Tensor:
        """hidden (rows, input_dim) float32 -> codes (num_quantizers, rows) int64; the first index on ties."""
        count = hidden.shape[0]
        budget = RowBudget(QUANTIZER_ROWS, static=hidden.is_cuda)
        hidden = F.pad(hidden, (0, 0, 0, budget.padded(count) - count))
        codes = torch.empty(num_quantizers, hidden.shape[0], dtype=torch.int64, device=hidden.device)
        for rows in budget.chunks(hidden.shape[0]):
            self._encode_rows(hidden[rows], codes[:, rows])
        return codes[:, :count]

    def _encode_rows(self, hidden: Tensor, codes: Tensor) -> None:
        width, size = self.config.codebook_dim, self.config.codebook_size
        projected = multiply_rows(hidden, self.project) + self.offset
        for index, chosen in enumerate(codes):
            residual = projected[:, index * width : (index + 1) * width]
            scores = multiply_rows(residual, self.directions[index])[:, :size]
            chosen.copy_(first_argmax(scores))
            if index + 1 < len(codes):
                projected -= multiply_rows(self.codebooks[index][chosen], self.corrections[index])

    def decode(self, codes: Tensor) -> Tensor:
        """codes (num_quantizers, rows) int64 -> hidden (rows, output_dim) float32."""
        starts = torch.arange(codes.shape[0], device=codes.device) * self.config.codebook_size
        return F.embedding_bag(codes.T + starts, self.table, mode="sum") + self.output_bias


def first_argmax(scores: Tensor) -> Tensor:
    """The index of each row's maximum, the first one on ties: scores (rows, n) -> (rows,)."""
    rows, count = scores.shape
    if count % ARGMAX_GROUP:
        return scores.argmax(dim=1)
    groups = scores.view(rows, count // ARGMAX_GROUP, ARGMAX_GROUP)
    best = groups.amax(dim=2).argmax(dim=1)
    within = groups[torch.arange(rows, device=scores.device), best].argmax(dim=1)
    return best * ARGMAX_GROUP + within
