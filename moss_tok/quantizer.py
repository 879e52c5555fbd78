"""The residual quantizer, folded so that a code costs a handful of small products.

As published, quantizer i projects the residual r (rvq_dim) to e = A_i r + a_i (codebook_dim), takes the code whose
codebook row has the largest cosine with e, and subtracts z_i = O_i c_i + o_i from r. Only the e are ever looked at, and
they follow from one another: with r_0 = W h + b,

    e_j = A_j W h + (A_j b + a_j - sum_{i<j} A_j o_i) - sum_{i<j} (A_j O_i) c_i

So one product (input_dim -> num_quantizers * codebook_dim) gives all e before corrections, and each chosen row c_i
corrects the later ones through 8 x 8 matrices. Everything constant is computed once, in float64, by `prepare`, on one
thread, so that the constants are the same bits in every process; the steps run in float32. The cosine's argmax needs
no normalisation of e: a positive factor moves no maximum.

Decoding is the sum of the z through the output projection: a sum of rows of one precomputed table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moss_tok.config import QuantizerConfig
from moss_tok.lanes import run_in_lanes
from moss_tok.numerics import Numerics, Product, RowOperation, Way, unprobed
from moss_tok.numerics.rowwise import one_by_one
from moss_tok.search import CodeSearch, SearchConstants, SearchFactory

# On a GPU, all groups have as many rows. It bounds the scores (rows, codebook_size) to 4 MB for the released codebooks.
GPU_ROWS = 1024
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
    """Hidden states <-> codes.

    `prepare` must be called once the parameters are loaded. `encodes` and `decodes` say which directions are folded and
    can be run.
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
        self.numerics = unprobed(torch.float32)
        self.products: _Products | None = None
        self._searches: dict[SearchFactory, CodeSearch | None] = {}

    @torch.no_grad()
    def prepare(self) -> None:
        """Fold the parameters into the constants. `bind` must follow."""
        run_in_lanes([self._prepare])

    def bind(self, numerics: Numerics) -> None:
        """Compute with these kernels, on the present device of the constants."""
        self.numerics = numerics
        self._searches = {}
        if self.encodes:
            self.products = _Products(numerics.quantizer, self)

    def search(self, factory: SearchFactory) -> CodeSearch | None:
        """What the factory makes of the constants on their present device. It is asked once."""
        if factory not in self._searches:
            constants = SearchConstants(self.directions, self.codebooks, self.corrections)
            self._searches[factory] = factory(constants)
        return self._searches[factory]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the products."""
        if not self.encodes:
            return []
        width, codes = self.config.codebook_dim, self.config.num_quantizers * self.config.codebook_dim
        return [(self.config.input_dim, codes), (width, self.config.codebook_size), (width, codes)]

    @property
    def operations(self) -> list[RowOperation]:
        """The operations on rows besides products, to be probed."""
        if not self.decodes:
            return []
        draw = torch.Generator().manual_seed(0)
        codes = torch.randint(self.config.codebook_size, (5, self.config.num_quantizers), generator=draw)
        return [RowOperation("sum", self._sums, codes)]

    def _prepare(self) -> None:
        quantizers = [cast(Quantizer, quantizer) for quantizer in self.quantizers]
        in_projs = [quantizer.in_proj.folded() for quantizer in quantizers]
        out_projs = [quantizer.out_proj.folded() for quantizer in quantizers]
        codebooks = torch.stack([quantizer.codebook.weight.double() for quantizer in quantizers])
        if self.encodes:
            self._prepare_encode(in_projs, out_projs, codebooks)
        if self.decodes:
            weight, bias = self.output_proj.folded()
            parts = [
                (codebook @ out.T + shift) @ weight.T
                for codebook, (out, shift) in zip(codebooks, out_projs, strict=True)
            ]
            self._constant("table", torch.cat(parts))
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
        self._constant("project", stacked @ weight)
        self._constant("offset", torch.cat(offsets))
        self._constant("corrections", corrections)
        self._constant("directions", F.normalize(codebooks, dim=2))
        self._constant("codebooks", codebooks)

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value.to(torch.float32).contiguous(), persistent=False)

    def encode(self, hidden: Tensor, num_quantizers: int, search: CodeSearch | None = None) -> Tensor:
        """hidden (rows, input_dim) float32 -> codes (num_quantizers, rows) int64. On ties the first index is taken.

        Without `search`, codes are searched for by products, one quantizer after the other.
        """
        count, groups = hidden.shape[0], self._groups(hidden)
        hidden = F.pad(hidden, (0, 0, 0, groups[-1].stop - count))
        if search is not None:
            projected = self._run([partial(self._project, hidden[group]) for group in groups], hidden.device)
            return search(torch.cat(projected)[:count], num_quantizers)
        codes = torch.empty(num_quantizers, hidden.shape[0], dtype=torch.int64, device=hidden.device)
        self._run([partial(self._encode_rows, hidden[group], codes[:, group]) for group in groups], hidden.device)
        return codes[:, :count]

    def _project(self, hidden: Tensor) -> Tensor:
        assert self.products is not None, "bind() comes before the first product"
        return self.products.project(hidden) + self.offset

    def _encode_rows(self, hidden: Tensor, codes: Tensor) -> None:
        projected, width = self._project(hidden), self.config.codebook_dim
        assert self.products is not None
        for index, chosen in enumerate(codes):
            residual = projected[:, index * width : (index + 1) * width]
            chosen.copy_(first_argmax(self.products.directions[index](residual)))
            if index + 1 < len(codes):
                projected -= self.products.corrections[index](self.codebooks[index][chosen])

    def decode(self, codes: Tensor) -> Tensor:
        """codes (num_quantizers, rows) int64 -> hidden (rows, output_dim) float32."""
        count, groups = codes.shape[1], self._groups(codes.T)
        rows = F.pad(codes, (0, groups[-1].stop - count)).T.contiguous()
        return torch.cat(self._run([partial(self._sums, rows[group]) for group in groups], codes.device))[:count]

    def _sums(self, codes: Tensor) -> Tensor:
        """codes (rows, num_quantizers) -> hidden (rows, output_dim)."""
        starts = torch.arange(codes.shape[1], device=codes.device) * self.config.codebook_size

        def sums(indices: Tensor) -> Tensor:
            return F.embedding_bag(indices, self.table, mode="sum")

        indices = codes + starts
        summed = one_by_one(sums, indices) if "sum" in self.numerics.one_by_one else sums(indices)
        return summed + self.output_bias

    def _groups(self, rows: Tensor) -> tuple[slice, ...]:
        if rows.device.type == "cpu":
            return self.numerics.quantizer.groups(rows.shape[0], torch.get_num_threads())
        return tuple(slice(start, start + GPU_ROWS) for start in range(0, rows.shape[0], GPU_ROWS))

    def _run(self, tasks: list[Callable[[], Any]], device: torch.device) -> list[Any]:
        return run_in_lanes(tasks) if device.type == "cpu" else [task() for task in tasks]


class _Products:
    """The constants of the quantizer, prepared for products of one way."""

    def __init__(self, way: Way, constants: ResidualQuantizer) -> None:
        self.project = Product(way, constants.project)
        self.directions = [Product(way, weight) for weight in constants.directions]
        self.corrections = [Product(way, weight) for weight in constants.corrections]


def first_argmax(scores: Tensor) -> Tensor:
    """The index of each row's maximum, the first one on ties: scores (rows, n) -> (rows,)."""
    rows, count = scores.shape
    if count % ARGMAX_GROUP:
        return scores.argmax(dim=1)
    groups = scores.view(rows, count // ARGMAX_GROUP, ARGMAX_GROUP)
    best = groups.amax(dim=2).argmax(dim=1)
    within = groups[torch.arange(rows, device=scores.device), best].argmax(dim=1)
    return best * ARGMAX_GROUP + within
