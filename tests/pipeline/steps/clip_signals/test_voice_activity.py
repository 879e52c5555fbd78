"""Speech is found as the package silero-vad finds it, in whatever blocks the sound comes."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import distribution

import numpy as np
import pytest
import silero_vad
import soundfile
import torch

from pipeline.extras import MissingPackage
from pipeline.signal_config import VoiceActivityConfig
from pipeline.steps.clip_signals import packaged_model, voice_activity
from pipeline.steps.clip_signals.voice_activity import MODEL, SAMPLE_RATE, SpeechDetector, VoiceActivity, speech_of
from tests.support import CORPUS


@pytest.fixture(scope="module")
def signal() -> VoiceActivity:
    return VoiceActivity(VoiceActivity.describe(VoiceActivityConfig()))


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Speech between pauses of a second, mono, at 16 kHz."""
    files = [soundfile.read(CORPUS / f"folder/librivox/{name}.wav", dtype="float32") for name in ("0870", "0880")]
    assert {rate for _, rate in files} == {SAMPLE_RATE}
    speech = [samples for samples, _ in files]
    pause = np.zeros(SAMPLE_RATE, np.float32)
    return np.concatenate([pause, speech[0], pause, speech[1][: 2 * SAMPLE_RATE + 77]])


def detector(signal: VoiceActivity, sound: np.ndarray, block: int) -> SpeechDetector:
    clip = signal.start(SAMPLE_RATE)
    for start in range(0, len(sound), block):
        clip.add(sound[start : start + block])
    return clip


def test_it_is_what_the_package_finds(signal: VoiceActivity, sound: np.ndarray):
    model = silero_vad.load_silero_vad(onnx=True)
    theirs = silero_vad.get_speech_timestamps(torch.from_numpy(sound), model, speech_pad_ms=0)
    ours = detector(signal, sound, 30_011).speech()
    assert len(ours) >= 2
    assert ours == [(speech["start"], speech["end"]) for speech in theirs]


def test_blocks_do_not_matter(signal: VoiceActivity, sound: np.ndarray):
    values = [detector(signal, sound, block).finish()["speech_fraction"] for block in (1_000, 30_011, len(sound))]
    assert 0.3 < values[0] < 0.9
    assert values[0] == values[1] == values[2]


@pytest.mark.parametrize("seed", range(8))
def test_the_rule_is_the_packages(seed: int):
    draw = np.random.default_rng(seed)
    steps = np.repeat(draw.random(60), draw.integers(1, 12, 60))  # stretches of equal probability, short and long
    windows = len(steps)
    samples = windows * 512 - int(draw.integers(0, 512))
    for threshold in (0.3, 0.5, 0.1):
        theirs = silero_vad.get_speech_timestamps_from_probs(
            steps.tolist(), threshold=threshold, speech_pad_ms=0, audio_length_samples=samples
        )
        expected = [(speech["start"], speech["end"]) for speech in theirs]
        assert speech_of(steps.tolist(), samples, threshold) == expected


def test_silence_and_very_short_clips(signal: VoiceActivity):
    assert detector(signal, np.zeros(SAMPLE_RATE, np.float32), 999).finish() == {"speech_fraction": 0.0}
    assert detector(signal, np.ones(3, np.float32), 3).finish() == {"speech_fraction": 0.0}
    assert signal.start(SAMPLE_RATE).finish() == {"speech_fraction": None}


def test_a_missing_package_is_said_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(voice_activity, "MODEL", replace(MODEL, package="silero-vad-that-is-not-there"))
    with pytest.raises(MissingPackage, match=r"signals\.voice_activity: .* pip install 'moss-tok\[signals\]'"):
        VoiceActivity.describe(VoiceActivityConfig())
    monkeypatch.setattr(voice_activity, "MODEL", replace(MODEL, file="silero_vad/data/other.onnx"))
    with pytest.raises(MissingPackage, match=r"has no silero_vad/data/other\.onnx"):
        VoiceActivity.describe(VoiceActivityConfig())


def test_another_model_is_refused():
    made_by = VoiceActivity.describe(VoiceActivityConfig())
    path = distribution("silero-vad").locate_file(MODEL.file)
    assert made_by["sha256"] == packaged_model.file_sha256(path)
    with pytest.raises(ValueError, match=r"is not the model of the output, whose SHA-256 begins with 000000000000"):
        VoiceActivity({**made_by, "sha256": "0" * 64})
