"""What an actor does about a GPU that computes nothing any more."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.config import parse_config
from pipeline.distributed import actor as actor_module
from pipeline.distributed.actor import TokenizerActor
from pipeline.items import ShardSpec


class Ended(BaseException):
    """The process is over."""


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> TokenizerActor:
    """One without a model, whose process ends in an exception."""

    def end() -> None:
        raise Ended

    made: Any = TokenizerActor.__new__(TokenizerActor)
    made._config = parse_config({"input": {"splits": {"train": ["a.tar"]}}, "output": {"uri": "o"}})
    made._workers = [None]
    monkeypatch.setattr(actor_module, "end_process", end)
    monkeypatch.setattr(actor_module, "prepare_remotely", lambda *arguments: iter(()))
    return made


def failing(error: Exception) -> Any:
    def encode(*arguments: Any) -> None:
        raise error

    return encode


SPEC = ShardSpec(uri="a.tar", split="train", format="webdataset", size=1, version="1")


def test_an_actor_whose_gpu_is_lost_ends_instead_of_failing_one_shard_after_the_other(actor, monkeypatch):
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(actor_module, "encode_shard", failing(error))
    with pytest.raises(Ended):
        actor.tokenize(SPEC, 1)


def test_any_other_error_is_the_shards(actor, monkeypatch):
    monkeypatch.setattr(actor_module, "encode_shard", failing(RuntimeError("the kernel has a bad day")))
    with pytest.raises(RuntimeError, match="bad day"):
        actor.tokenize(SPEC, 1)
