"""A row's bits do not depend on the rows beside it, on the number of threads, or on where it lies."""

from __future__ import annotations

import copy

import pytest
import torch

from moss_tok.linear import Linear, RowBudget


@pytest.mark.parametrize("kernel", ["oneDNN", "plain"])
@pytest.mark.parametrize("threads", [1, 2, 3, 4, 16, 64])
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(240, 64), (64, 192), (128, 512), (512, 128), (48, 24), (64, 100), (96, 8), (3072, 64)]
)
def test_rows_alone_and_together(inputs, outputs, threads, kernel, monkeypatch):
    """Plain: without the padded weight, 48 -> 24 and 64 -> 100 differ from 3 threads on; without padded rows, 17 rows
    do from 12 threads on. oneDNN: without padded rows, a row alone differs for long rows."""
    if kernel == "plain":
        monkeypatch.setattr("moss_tok.linear.packs", lambda weight: False)
    draw = torch.Generator().manual_seed(0)
    linear = Linear(inputs, outputs)
    linear.weight.copy_(torch.randn(outputs, inputs, generator=draw) * inputs**-0.5)
    linear.prepare()
    assert (linear.packed is not None) == (kernel == "oneDNN")
    x = torch.randn(400, inputs, generator=draw)
    torch.set_num_threads(1)
    together = linear(x)
    torch.testing.assert_close(together, x @ linear.weight.T, rtol=0, atol=1e-5)
    torch.set_num_threads(threads)
    for rows in (*range(1, 40), 63, 64, 100, 255, 399):
        for start in (0, 400 - rows):
            assert torch.equal(linear(x[start : start + rows]), together[start : start + rows])


def test_a_copy_and_a_moved_layer_have_the_same_products():
    linear = Linear(48, 24)
    linear.weight.copy_(torch.randn(24, 48))
    linear.prepare()
    x = torch.randn(5, 48)
    assert torch.equal(copy.deepcopy(linear)(x), linear(x))
    assert torch.equal(linear.to("cpu")(x), linear(x))


def test_groups_cover_the_padded_rows():
    budget = RowBudget(96)
    for rows in (1, 15, 16, 95, 96, 97, 111, 112, 113, 1000):
        padded = budget.padded(rows)
        assert 0 <= padded - rows < 16
        chunks = list(budget.chunks(padded))
        assert [row for chunk in chunks for row in range(chunk.start, chunk.stop)] == list(range(padded))
        assert all((chunk.stop - chunk.start) % 16 == 0 for chunk in chunks)


def test_a_static_budget_has_one_size_only():
    budget = RowBudget(64, static=True)
    for rows in (1, 63, 64, 65, 1000):
        padded = budget.padded(rows)
        assert 0 <= padded - rows < 64
        assert {chunk.stop - chunk.start for chunk in budget.chunks(padded)} == {64}
