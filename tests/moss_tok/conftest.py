"""Shared models, real audio, and the reference vectors."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor

from moss_tok import MossAudioTokenizerModel, UntrainedModelWarning

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "golden"

if sys.version_info < (3, 11):  # for which there is no transformers of the version that is wanted
    collect_ignore = ["test_auto.py"]


@dataclass(frozen=True)
class Golden:
    """A random-weight model and what the release's own code computed with it."""

    folder: Path
    model: MossAudioTokenizerModel
    vectors: dict[str, Tensor]

    @property
    def clips(self) -> list[Tensor]:
        """The waveforms (C, samples)."""
        count = sum(name.endswith(".codes") for name in self.vectors)
        waveforms = [self.vectors[f"{index}.waveform_int16"].float() / 32768 for index in range(count)]
        return [waveform.reshape(-1, waveform.shape[-1]) for waveform in waveforms]


def load_golden(name: str) -> Golden:
    folder = GOLDEN / name
    return Golden(folder, MossAudioTokenizerModel.from_pretrained(folder), load_file(folder / "vectors.safetensors"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products are fastest on one thread, and tests that change the number of threads leave no trace."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def v1_tiny() -> Golden:
    return load_golden("v1_tiny")


@pytest.fixture(scope="session")
def stereo_tiny() -> Golden:
    return load_golden("stereo_tiny")


@pytest.fixture(scope="session", params=["v1_tiny", "stereo_tiny"])
def golden(request: pytest.FixtureRequest) -> Golden:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def cat_tiny() -> MossAudioTokenizerModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrainedModelWarning)
        return MossAudioTokenizerModel.from_pretrained("cat-tiny")


@pytest.fixture(scope="session")
def cat_tiny_bfloat16() -> MossAudioTokenizerModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrainedModelWarning)
        return MossAudioTokenizerModel.from_pretrained("cat-tiny", dtype="bfloat16")


@pytest.fixture(scope="session")
def real_clips() -> list[Tensor]:
    """Mono clips of the demo corpus whose files soundfile reads and are at 8 to 48 kHz, taken as if they were at 24
    kHz.
    """
    clips = []
    for path in sorted((ROOT / "demo" / "corpus" / "folder").rglob("*.*")):
        if path.suffix in (".wav", ".flac", ".ogg", ".mp3"):
            try:
                samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                continue  # the corpus holds broken files on purpose
            waveform = torch.from_numpy(samples).mean(1)
            if waveform.numel() and torch.isfinite(waveform).all():
                clips.append(waveform)
    assert len(clips) >= 10
    return clips


@pytest.fixture(params=["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device of this machine."""
    return torch.device(request.param)
