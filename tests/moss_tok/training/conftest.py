from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from moss_tok.training.klt import start_from_klt
from moss_tok.training.model import TrainableCodec
from moss_tok.training.prepare import CLIPS, SOUND, StoredClip
from moss_tok.training.recipe import Recipe, Shape, codec_config

SHAPE = Shape(
    encoder=(64, 64, 64, 64),
    decoder=(64, 64, 64, 64),
    encoder_layers=(1, 1, 1, 1),
    decoder_layers=(1, 1, 1, 1),
    kept=(40, 44, 48, 52),
    rvq_dim=32,
    num_quantizers=8,
    codebook_size=32,
)


def voices(count: int, samples: int, seed: int) -> torch.Tensor:
    """(count, samples): buzzes of several harmonics whose pitch and loudness wander, a little like voices."""
    draw = np.random.default_rng(seed)
    time = np.arange(samples) / 24000
    clips = []
    for _ in range(count):
        pitch = draw.uniform(90, 250) * (1 + 0.1 * np.sin(2 * np.pi * draw.uniform(1, 4) * time))
        phase = 2 * np.pi * np.cumsum(pitch) / 24000
        sound = sum(draw.uniform(0.2, 1) / k * np.sin(k * phase + draw.uniform(0, 6)) for k in range(1, 12))
        clips.append(0.1 * sound * (0.6 + 0.4 * np.sin(2 * np.pi * draw.uniform(2, 6) * time)))
    noise = draw.standard_normal((count, samples)) * 1e-3
    return torch.from_numpy(np.stack(clips) + noise).float()


@pytest.fixture(scope="session")
def sound() -> torch.Tensor:
    return voices(40, 16 * 1920, seed=5)


@pytest.fixture
def codec(sound: torch.Tensor) -> TrainableCodec:
    """A small codec at the KLT start, with its quantizer fitted."""
    torch.manual_seed(0)
    codec = TrainableCodec(codec_config(SHAPE))
    start_from_klt(codec, sound, rate=60)
    with torch.no_grad():
        codec.quantizer.fit(codec.encode(sound).flatten(0, 1), torch.Generator().manual_seed(0))
    return codec


@pytest.fixture
def data(tmp_path: Path, sound: torch.Tensor) -> Path:
    """A folder of training data."""
    folder = tmp_path / "data"
    folder.mkdir()
    clips = voices(6, 60 * 1920, seed=7)
    size = clips.shape[1]
    (folder / SOUND).write_bytes((clips * 32767).to(torch.int16).numpy().astype("<i2").tobytes())
    index = [StoredClip("test", str(i), 1.0, i * size, size, "train" if i < 4 else "validation") for i in range(6)]
    (folder / CLIPS).write_text("".join(json.dumps(asdict(clip)) + "\n" for clip in index), encoding="utf-8")
    return folder


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(shape=SHAPE, steps=12, channel_steps=5, freeze_step=9, batch_size=4, warmup_steps=2, decay_steps=2,
                  bits=60.0, fit_frames=600)  # fmt: skip
