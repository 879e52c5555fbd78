"""How a model multiplies is chosen by a probe: no kernel passes that lets a row see its place or its company."""

from __future__ import annotations

import copy
import itertools
import logging
import pickle
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from moss_tok import MossAudioTokenizerModel
from moss_tok.linear import Linear
from moss_tok.numerics import Kernel, Product, Way, Work, choose
from moss_tok.numerics.choice import ways
from moss_tok.numerics.probe import cancelling, probe, rows_are_constant
from moss_tok.numerics.rowwise import gelu, one_by_one

SHAPES = [(240, 64), (64, 192), (128, 512), (512, 128), (48, 24), (64, 100), (96, 8), (3072, 64), (7, 5)]


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    probe.forget()
    yield
    probe.forget()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_rows_alone_and_together(inputs, outputs, dtype):
    draw = torch.Generator().manual_seed(0)
    linear = Linear(inputs, outputs)
    linear.weight.data = (torch.randn(outputs, inputs, generator=draw) * inputs**-0.5).to(dtype)
    linear.prepare()
    x = torch.randn(400, inputs, generator=draw).to(dtype)
    together = linear(x)
    exact = x.double() @ linear.weight.double().T
    torch.testing.assert_close(together.double(), exact, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.02)
    for rows in (*range(1, 40), 63, 64, 100, 255, 399):
        for start in (0, 400 - rows):
            assert torch.equal(linear(x[start : start + rows]), together[start : start + rows])


@pytest.mark.parametrize("way", ways(torch.bfloat16, SHAPES), ids=str)
def test_every_way_multiplies(way):
    """Whether it is constant or not; the ways of bfloat16 hold those of float32."""
    if way.dtype == torch.bfloat16 and way.kernel is Kernel.ONEDNN:
        assert torch.ops.mkldnn._is_mkldnn_bf16_supported()
    for inputs, outputs in SHAPES:
        weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(1))
        x = torch.randn(70, inputs, generator=torch.Generator().manual_seed(2))
        weight, x = weight.to(torch.bfloat16), x.to(torch.bfloat16)
        y = Product(way, weight)(x)
        assert y.shape == (70, outputs)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), x.float() @ weight.float().T, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("way", ways(torch.float32, SHAPES), ids=str)
@pytest.mark.parametrize("lanes", [1, 2, 3, 64])
def test_groups_are_of_the_ways_sizes_and_cover_all_rows(way, lanes):
    for rows in (*range(1, 300), 1000, 5001):
        groups = way.groups(rows, lanes)
        assert groups[0].start == 0
        assert all(before.stop == after.start for before, after in itertools.pairwise(groups))
        assert groups[-1].start < rows <= groups[-1].stop
        if way.sizes:
            assert {group.stop - group.start for group in groups} <= set(way.sizes)
            assert groups[-1].stop - rows < groups[0].stop


def test_rows_are_shared_among_the_lanes_in_groups_that_cost_little():
    way = Way(Kernel.BLAS, (16, 32, 64, 128, 256), torch.float32)

    def sizes(rows: int, lanes: int) -> list[int]:
        return [group.stop - group.start for group in way.groups(rows, lanes)]

    assert sizes(125, 1) == [128]
    assert sizes(125, 2) == [64, 64]
    assert sizes(125, 100) == [16] * 8
    assert sizes(1000, 1) == sizes(1000, 2) == sizes(1000, 4) == [256] * 4
    assert sizes(300, 2) == [128, 128, 32, 16]
    assert sizes(1, 1) == sizes(1, 64) == [16]
    assert Way(Kernel.ROW, (), torch.float32).groups(125) == (slice(0, 125),)


def spoil(monkeypatch: pytest.MonkeyPatch, spoiled: set[Kernel], defect) -> None:
    """Make these kernels lie: `defect` changes what they give, in place."""
    honest = Way.multiply

    def multiply(self, x, operand, outputs):
        y = honest(self, x, operand, outputs)
        if self.kernel in spoiled and self.kernel is not Kernel.ROW:
            y = y.clone()
            defect(y, x)
        return y

    monkeypatch.setattr(Way, "multiply", multiply)


def other_bits(rows: torch.Tensor) -> None:
    rows.copy_(torch.nextafter(rows, torch.full_like(rows, torch.inf)))


def at_one_number_of_rows(y, x):
    if len(x) == 192 or len(x) == 128:
        other_bits(y)


def at_the_last_rows_of_an_odd_block(y, x):
    other_bits(y[len(y) // 3 * 3 :])


def at_one_place_and_one_output(y, x):
    other_bits(y[13:14, -1:])


def by_what_lies_beside(y, x):
    if x[1:2].abs().sum() > x[:1].abs().sum():
        other_bits(y[2:3])


def by_where_it_lies_in_memory(y, x):
    if x.storage_offset():
        other_bits(y)


DEFECTS = [
    at_one_number_of_rows,
    at_the_last_rows_of_an_odd_block,
    at_one_place_and_one_output,
    by_what_lies_beside,
    by_where_it_lies_in_memory,
]


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_kernel_that_lies_is_noticed_and_the_next_one_taken(defect, dtype, monkeypatch):
    honest = choose(Work(SHAPES), Work([]), dtype).products
    probe.forget()
    spoil(monkeypatch, {honest.kernel}, defect)
    chosen = choose(Work(SHAPES), Work([]), dtype).products
    assert chosen.kernel is not honest.kernel or chosen.sizes != honest.sizes
    assert chosen in ways(dtype, SHAPES)
    probe.forget()
    spoil(monkeypatch, set(Kernel), defect)
    if defect not in (at_one_number_of_rows, at_the_last_rows_of_an_odd_block):  # which spare one fixed shape
        assert choose(Work(SHAPES), Work([]), dtype).products == Way(Kernel.ROW, (), torch.float32)


def test_a_model_with_a_lying_kernel_goes_another_way_and_says_so(v1_tiny, monkeypatch, caplog):
    """The codes are those of the reference, and still those of the clip alone."""
    fast = v1_tiny.model.numerics
    assert fast == choose_again(v1_tiny)
    spoil(monkeypatch, {Kernel.ONEDNN, Kernel.BLAS}, at_one_place_and_one_output)
    probe.forget()
    with caplog.at_level(logging.INFO, "moss_tok"):
        model = MossAudioTokenizerModel.from_pretrained(v1_tiny.folder)
    assert model.numerics.products.kernel is Kernel.ROW
    assert model.numerics.name == "row by row float32; quantizer row by row float32"
    assert model.numerics.name in caplog.text
    together = model.batch_encode(v1_tiny.clips[:2])
    for index in range(2):
        alone = model.encode(v1_tiny.clips[index][None])
        frames = alone.audio_codes.shape[2]
        assert torch.equal(alone.audio_codes[:, 0], v1_tiny.vectors[f"{index}.codes"].long())
        assert torch.equal(together.audio_codes[:, index, :frames], alone.audio_codes[:, 0])
        assert torch.equal(together.encoder_hidden_states[index, :, :frames], alone.encoder_hidden_states[0])


def choose_again(golden):
    return MossAudioTokenizerModel.from_pretrained(golden.folder).numerics


def test_an_operation_that_sees_its_place_is_computed_row_by_row(v1_tiny, monkeypatch):
    expected = v1_tiny.model.encode(v1_tiny.clips[0][None])

    def lying(x):
        y = F.gelu(x)
        other_bits(y[3:4])
        return y

    monkeypatch.setattr("moss_tok.transformer.gelu", lying)
    monkeypatch.setattr(torch.nn.LayerNorm, "forward", seeing_its_place(torch.nn.LayerNorm.forward))
    model = MossAudioTokenizerModel.from_pretrained(v1_tiny.folder)
    assert model.numerics.one_by_one == ("activation", "norm")
    assert model.numerics.name.endswith("; one row at a time: activation, norm")
    assert torch.equal(model.encode(v1_tiny.clips[0][None]).audio_codes, expected.audio_codes)


def seeing_its_place(forward):
    def lying(self, x):
        y = forward(self, x)
        other_bits(y[1:2])
        return y

    return lying


def test_each_operation_alone_has_the_bits_of_all_together(v1_tiny):
    """All operations of a model, one row at a time, change no bit where the probe found them constant."""
    model = MossAudioTokenizerModel.from_pretrained(v1_tiny.folder)
    expected = model.batch_encode(v1_tiny.clips[:2])
    sound = model.decode(expected.audio_codes[:, 0]).audio
    slow = copy.deepcopy(model)
    for stage in (*slow.encoder.stages, *slow.decoder.stages):
        for layer in stage.transformer:
            layer.one_by_one = ("activation", "addition", "norm", "rotation")
    slow.quantizer.numerics = type(model.numerics)(
        model.numerics.products, model.numerics.quantizer, one_by_one=("sum",)
    )
    found = slow.batch_encode(v1_tiny.clips[:2])
    assert torch.equal(found.encoder_hidden_states, expected.encoder_hidden_states)
    assert torch.equal(slow.decode(expected.audio_codes[:, 0]).audio, sound)


def test_the_probes_products_are_nothing_but_rounding():
    """The exact product is zero, the computed one is not, in either precision."""
    for dtype, threshold in ((torch.float32, 1e-4), (torch.bfloat16, 1e-4)):
        rows, weight = cancelling(768, 100, dtype)
        assert not (rows.double() @ weight.double().T).abs().gt(1e-9).any()
        y = F.linear(rows, weight)
        assert 0 < y.float().abs().mean() < threshold
        assert (y != 0).float().mean() > 0.5


def test_a_row_function_is_tried_at_every_place():
    sample = torch.randn(5, 8)
    assert rows_are_constant(lambda x: x * 2, sample, (16, 48))
    for place in range(48):

        def defect(x, place=place):
            y = x * 2
            if len(y) == 48:
                other_bits(y[place : place + 1])
            return y

        assert not rows_are_constant(defect, sample, (16, 48))


def test_a_copy_a_pickle_and_a_moved_layer_have_the_same_products():
    linear = Linear(48, 24)
    linear.weight.copy_(torch.randn(24, 48))
    linear.prepare()
    x = torch.randn(5, 48)
    assert torch.equal(copy.deepcopy(linear)(x), linear(x))
    assert torch.equal(pickle.loads(pickle.dumps(linear))(x), linear(x))
    assert torch.equal(linear.to("cpu")(x), linear(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("features", [20, 36, 192, 1280, 5120])
def test_an_activation_does_not_see_where_it_lies(features, dtype):
    """torch's own kernel does, on a CPU with AVX2 alone, for elements in the rest that fills no vector."""
    x = (torch.randn(270, features, generator=torch.Generator().manual_seed(0)) * 2).to(dtype)
    together = gelu(x)
    torch.testing.assert_close(together, F.gelu(x))
    for rows in (1, 2, 7, 16, 33, 100, 257, 270):
        assert torch.equal(gelu(x[-rows:]), together[-rows:])
    assert torch.equal(one_by_one(gelu, x[:9]), together[:9])
