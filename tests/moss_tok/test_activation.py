"""GELU has other kernels for strided rows and single elements; on contiguous rows an element's bits are its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("features", [20, 36, 192, 1280, 5120])
def test_an_element_of_contiguous_rows_does_not_see_where_it_lies(features, dtype):
    x = (torch.randn(270, features, generator=torch.Generator().manual_seed(0)) * 2).to(dtype)
    torch.set_num_threads(1)
    together = F.gelu(x)
    for threads in (1, 2, 3, 5, 6, 7, 12):
        torch.set_num_threads(threads)
        for rows in (1, 2, 7, 16, 33, 100, 257, 270):
            assert torch.equal(F.gelu(x[-rows:]), together[-rows:])
