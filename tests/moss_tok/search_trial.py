"""The kernel that searches for codes, carried out by Triton's interpreter on the CPU. It is a process of its own, since
Triton is imported either to be interpreted or to compile:

    TRITON_INTERPRET=1 python -m tests.moss_tok.search_trial
"""

from __future__ import annotations

import dataclasses
import json

import torch

from moss_tok import search
from moss_tok.execution import Execution
from moss_tok.search import CodeSearch, OneKernel, SearchConstants, one_kernel, search_by_sums, undecided_rows
from moss_tok.search_kernel import search as kernel
from tests.moss_tok.conftest import load_golden


def interpret(programs: int, *arguments: object, **constants: int) -> None:
    kernel[(programs,)](*arguments, **constants)


def made_up(layers: int, size: int, width: int) -> SearchConstants:
    draw = torch.Generator().manual_seed(size)
    codebooks = torch.randn(layers, size, width, generator=draw)
    corrections = torch.randn(layers, layers * width, width, generator=draw) / 4
    for layer in range(layers):
        corrections[layer, : (layer + 1) * width] = 0
    return SearchConstants(torch.nn.functional.normalize(codebooks, dim=2), codebooks, corrections)


def as_its_sums(layers: int, size: int, width: int, count: int) -> bool:
    """On rows where other sums would choose other codes; the last program has rows that are none."""
    constants = made_up(layers, size, width)
    projected = undecided_rows(constants, rows=11)
    found = OneKernel(constants, interpret)(projected, count)
    return torch.equal(found, search_by_sums(constants, projected, count))


def first_of_equals() -> bool:
    """Codes that are twice in the codebook, in one block of the kernel and in two; and a row that is no number."""
    constants = made_up(2, 600, 4)
    for first, again in ((3, 5), (40, 590), (300, 301)):
        constants.directions[:, again] = constants.directions[:, first]
        constants.codebooks[:, again] = constants.codebooks[:, first]
    projected = torch.cat([constants.directions[0, [5, 590, 301]], torch.zeros(1, 4), torch.full((1, 4), torch.nan)])
    codes = OneKernel(constants, interpret)(torch.cat([projected, projected], dim=1), 1)
    return codes.tolist() == [[3, 40, 300, 0, 0]]


def alone() -> bool:
    """The codes of a row are those that it has alone."""
    constants = made_up(3, 64, 8)
    rows, searched = undecided_rows(constants, rows=20), OneKernel(constants, interpret)
    apart = [searched(row[None], 3) for row in rows]
    return torch.equal(searched(rows, 3), torch.cat(apart, dim=1))


def golden() -> bool:
    """From a model that passes the probe, and says so."""
    release = load_golden("v1_tiny")
    default = Execution.for_device(torch.device("cpu"), torch.float32)
    release.model.execution = dataclasses.replace(default, search=interpreted)
    codes = release.model.encode(release.clips[1]).audio_codes[:, 0]
    named = release.model.numerics.name.endswith(", codes in one kernel")
    return named and torch.equal(codes, release.vectors["1.codes"].long())


def interpreted(constants: SearchConstants) -> CodeSearch | None:
    return one_kernel(constants, interpret)


if __name__ == "__main__":
    torch.set_num_threads(1)
    search.PROBED_ROWS = 5  # the interpreter takes seconds for a program of the released shape
    cases = {
        "as its sums, four blocks": as_its_sums(2, 1024, 8, count=2),
        "as its sums, no powers of two, not all layers": as_its_sums(5, 100, 6, count=3),
        "the first of equals": first_of_equals(),
        "alone": alone(),
        "codes of the release": golden(),
    }
    print(json.dumps(cases))
