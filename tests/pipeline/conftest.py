"""Real audio, and the journey from an input to its clips, for all tests of the pipeline."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
import soundfile as sf

from pipeline.config import Config, parse_config
from pipeline.dataset.opening import with_absolute_uris
from pipeline.input_config import InputConfig
from pipeline.items import RawClip, Reject
from pipeline.steps.plan import plan_shards
from pipeline.steps.read import read_shard
from pipeline.steps.reject_reasons import READ_REASONS
from tests.support import tokenize_in_process

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


class Tokenized(NamedTuple):
    """A small output, where its sources are, and how it was made."""

    output: Path
    sources: Path
    config: Config


@pytest.fixture(scope="session")
def tokenized(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenized:
    """Eleven clips in five shards of two splits: one waveform is there three times, and four clips are rejects.

    Tests that change anything work on a copy.
    """
    root = tmp_path_factory.mktemp("tokenized")
    sources, prompts = root / "sources", corpus / "folder" / "prompts"
    shutil.copytree(prompts / "es", sources / "clips")
    shutil.copy(prompts / "es" / "vm-sorry.mp3", sources / "clips" / "copy.mp3")
    shutil.copytree(corpus / "folder" / "broken", sources / "broken", ignore=shutil.ignore_patterns("truncated-wav*"))
    with tarfile.open(sources / "few.tar", "w") as tar:
        tar.add(prompts / "it" / "vm-sorry.flac", "a.flac")
        tar.add(prompts / "es" / "vm-sorry.mp3", "b.mp3")
    document = {
        "input": {
            "splits": {"train": [f"{sources}/clips", f"{sources}/few.tar"], "test": [f"{sources}/broken"]},
            "clips_per_shard": 3,
        },
        "output": {"uri": str(root / "codes"), "row_group_rows": 2},
        "model": {"name": "cat-tiny"},
    }
    config = with_absolute_uris(parse_config(document))
    tokenize_in_process(config)
    return Tokenized(root / "codes", sources, config)
