"""What a GPU is given to do, counted on tensors without data: the launches of a batch do not grow with its clips."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from moss_tok import MossAudioTokenizerModel
from moss_tok.attention import Span
from moss_tok.execution import Execution
from moss_tok.packing import pack_waveforms
from moss_tok.rope import rope_rows, rope_table, rotate_
from moss_tok.stage import positions_of
from moss_tok.transformer import rotated_qkv

META, CUDA = torch.device("meta"), torch.device("cuda")
LAYER_LAUNCHES = 25
"""Of one layer, not compiled: the norms, products, rotation, attention, activation, sums and roundings."""


class Launches(TorchDispatchMode):
    """Counts the operations on META that compute or copy."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, tuple | list) and result else result
        if isinstance(first, torch.Tensor) and first.device == META and not function.is_view:
            self.counts[str(function)] += 1
        return result


@pytest.fixture(scope="module")
def model(v1_tiny) -> MossAudioTokenizerModel:
    return MossAudioTokenizerModel.from_pretrained(v1_tiny.folder, dtype="bfloat16", device=META, parts="encoder")


def launches(model: MossAudioTokenizerModel, clips: int, frames: int = 1000) -> Counter[str]:
    spans = [Span(0, frames // clips)] * clips
    with Launches() as counted:
        packed = pack_waveforms([torch.zeros(1, span.length * 1920 - 7) for span in spans], 1920, META)
        hidden, _ = model.encoder(packed, spans, None, execution=Execution.for_device(CUDA, torch.bfloat16))
        model.quantizer.encode(hidden, model.num_quantizers)
    return counted.counts


def test_a_hundred_clips_are_as_many_launches_as_ten(model):
    launches(model, 1)  # copies the tables that are kept
    ten = launches(model, 10)
    assert ten == launches(model, 100)
    layers = sum(stage.config.num_layers for stage in model.encoder.stages)
    assert ten["aten._flash_attention_forward.default"] == layers == 8


def test_a_layer_is_so_many_launches(model, monkeypatch):
    monkeypatch.setattr(model.quantizer, "encode", lambda hidden, count: None)
    whole = launches(model, 10).total()
    for stage in model.encoder.stages:
        monkeypatch.setattr(stage.transformer, "layers", stage.transformer.layers[:1])
    assert whole - launches(model, 10).total() == 4 * LAYER_LAUNCHES


def test_positions_of_all_clips_at_once_are_those_of_each():
    spans = [Span(0, 5), Span(1020, 9), Span(0, 1), Span(3_000_000, 3)]
    positions = positions_of(spans, rows=20)
    expected = torch.cat([torch.arange(span.past, span.end) for span in spans])
    assert torch.equal(positions[:18], expected.float())
    assert positions[18:].eq(0).all()
    tables = rope_table(positions, 16, 10_000.0)
    parts = [rope_rows(span.past, span.end, 16, 10_000.0, torch.device("cpu")) for span in spans]
    for which in (0, 1):
        torch.testing.assert_close(tables[which][:18], torch.cat([part[which] for part in parts]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_out_of_place_is_the_rotation_in_place(dtype):
    qkv = torch.randn(40, 3, 2, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    cos, sin = rope_table(torch.arange(40), 16, 10_000.0)
    given, turned = qkv.clone(), qkv[:, :2].float().clone()
    rotate_(turned, cos, sin)
    result = rotated_qkv(qkv, cos, sin)
    torch.testing.assert_close(result[:, :2], turned.to(dtype))  # sums are fused differently
    assert torch.equal(result[:, 2], qkv[:, 2])
    assert torch.equal(qkv, given)
