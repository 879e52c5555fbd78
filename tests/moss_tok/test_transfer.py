"""A copy from a GPU to the host, with a GPU that is played."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from moss_tok.transfer import to_host

SECOND = torch.device("cuda:1")


def test_a_copy_is_waited_for_on_its_own_device_and_without_a_busy_core(monkeypatch: pytest.MonkeyPatch):
    """The current device may be another one, and the reading processes need every core."""
    said: list[Any] = []

    class Event:
        def __init__(self, blocking: bool = False) -> None:
            said.append(("blocks", blocking))

        def record(self, stream: str) -> None:
            said.append(("recorded on", stream))

        def synchronize(self) -> None:
            said.append("waited")

    class Pinned:
        def copy_(self, source: Any, non_blocking: bool) -> None:
            said.append(("copied", source.device, non_blocking))

    pinned = Pinned()
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, pin_memory: pinned)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    on_gpu: Any = SimpleNamespace(shape=(2, 3), dtype=torch.int16, device=SECOND)
    wait = to_host(on_gpu)
    expected = [("copied", SECOND, True), ("blocks", True), ("recorded on", "the stream of cuda:1")]
    assert said == expected
    assert wait() is pinned
    assert said == [*expected, "waited"]
