"""Real audio, and the journey from an input to its clips, for all tests of the pipeline."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import soundfile as sf

from pipeline.config import InputConfig
from pipeline.items import RawClip, Reject
from pipeline.plan import plan_shards
from pipeline.read import read_shard
from pipeline.reasons import READ_REASONS

Items: TypeAlias = "list[RawClip | Reject]"


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The demo corpus."""
    return Path(__file__).parents[2] / "demo" / "corpus"


@pytest.fixture(scope="session")
def wav() -> Callable[..., bytes]:
    """A tone as the bytes of a WAV file."""

    def make(seconds: float = 0.1, rate: int = 24_000, channels: int = 1, amplitude: float = 0.5) -> bytes:
        time = np.arange(round(seconds * rate)) / rate
        tone = amplitude * np.sin(2 * np.pi * 440 * time)
        sink = io.BytesIO()
        sf.write(sink, np.tile(tone[:, None], channels), rate, format="WAV", subtype="FLOAT")
        return sink.getvalue()

    return make


@pytest.fixture(scope="session")
def read_all() -> Callable[..., Items]:
    """Plan a pattern and read all of its shards, checking what holds for every reader."""

    def read(pattern: str | Path, **options: Any) -> Items:
        config = InputConfig(splits={"train": (str(pattern),)}, **options)
        everything: Items = []
        for spec in plan_shards(config):
            items = list(read_shard(spec, config))
            assert [item.origin.index for item in items] == list(range(len(items)))
            assert all(item.origin.source for item in items)
            rejects = [item for item in items if isinstance(item, Reject)]
            assert {reject.stage for reject in rejects} <= {"read"}
            assert {reject.reason for reject in rejects} <= READ_REASONS.keys()
            assert all(reject.message for reject in rejects)
            everything += items
        return everything

    return read
