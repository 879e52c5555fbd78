"""Ratings are those of the package speechmos, in whatever blocks the sound comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import soundfile
from speechmos import dnsmos

from pipeline.signal_config import DnsmosConfig
from pipeline.steps.clip_signals.dnsmos import LENGTH, MODEL, SAMPLE_RATE, Dnsmos, Ratings
from tests.support import CORPUS

OFFICIAL = {"dnsmos": "ovrl_mos", "dnsmos_sig": "sig_mos", "dnsmos_bak": "bak_mos"}


class Loudest:
    """In place of the network: it knows a window by its loudest sample, and is fast."""

    def __init__(self) -> None:
        self.windows: list[np.ndarray] = []

    def run(self, names: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        window = inputs["input_1"]
        if window.ndim == 3:  # what the other network of the package gets
            return [np.ones((1, 1))]
        self.windows.append(window[0])
        return [np.stack([window.max(axis=1), window.min(axis=1), window[:, 0]], axis=1)]


def rated(ratings: Ratings, sound: np.ndarray, block: int) -> dict[str, Any]:
    for start in range(0, len(sound), block):
        ratings.add(sound[start : start + block])
    return ratings.finish()


def speech(seconds: float) -> np.ndarray:
    sound, rate = soundfile.read(CORPUS / "folder" / "librivox" / "0870.wav", dtype="float32")
    assert rate == SAMPLE_RATE
    return np.resize(sound, round(seconds * rate))


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> dnsmos.DNSMOS:
    """The package without its second network, which gives a score of another kind."""
    monkeypatch.setattr(dnsmos.DNSMOS, "audio_melspec", lambda self, audio: np.ones((1, 1)))
    made = dnsmos.DNSMOS.__new__(dnsmos.DNSMOS)
    made.p808_onnx_sess = Loudest()
    return made


@pytest.mark.slow
def test_the_ratings_are_the_packages(package: dnsmos.DNSMOS):
    made_by = Dnsmos.describe(DnsmosConfig())
    sound = speech(5)  # repeated to 10 s: one window
    package.onnx_sess = MODEL.session(made_by)
    theirs = package(sound, SAMPLE_RATE, False)
    ours = rated(Dnsmos(made_by).start(SAMPLE_RATE), sound, 10_000)
    assert ours == {name: pytest.approx(theirs[official], abs=0.001) for name, official in OFFICIAL.items()}
    assert ours["dnsmos"] > 2.5


@pytest.mark.parametrize("seconds", [0.01, 4.5, 4.51, 9.0, 9.01, 9.99, 10, 10.5, 11, 18, 40.3, 135])
def test_the_windows_are_the_packages(seconds: float, package: dnsmos.DNSMOS):
    sound = np.random.default_rng(0).uniform(-0.9, 0.9, round(seconds * SAMPLE_RATE)).astype(np.float32)
    theirs, ours = Loudest(), Loudest()
    package.onnx_sess = theirs
    expected = package(sound, SAMPLE_RATE, False)
    found = rated(Ratings(ours, hop=1.0), sound, 31_007)
    assert len(ours.windows) == len(theirs.windows)
    assert all(np.array_equal(*pair) for pair in zip(ours.windows, theirs.windows, strict=True))
    assert found == {name: pytest.approx(expected[official], abs=0.001) for name, official in OFFICIAL.items()}


def test_a_longer_hop_takes_fewer_windows_and_all_is_held_for_a_window_only():
    network = Loudest()
    ratings = Ratings(network, hop=9.0)
    sound = np.random.default_rng(0).uniform(-0.9, 0.9, 100 * SAMPLE_RATE).astype(np.float32)
    for start in range(0, len(sound), SAMPLE_RATE):
        ratings.add(sound[start : start + SAMPLE_RATE])
        assert len(ratings._held) < 11 * SAMPLE_RATE
    ratings.finish()
    starts = range(0, 91 * SAMPLE_RATE, 9 * SAMPLE_RATE)
    expected = [sound[start : start + LENGTH] for start in starts]
    assert all(np.array_equal(*pair) for pair in zip(network.windows, expected, strict=True))


def test_a_hop_beyond_a_window_skips_what_lies_between():
    network = Loudest()
    sound = np.random.default_rng(0).uniform(-0.9, 0.9, 100 * SAMPLE_RATE).astype(np.float32)
    rated(Ratings(network, hop=40.0), sound, 5_000)
    expected = [sound[start : start + LENGTH] for start in (0, 40 * SAMPLE_RATE, 80 * SAMPLE_RATE)]
    assert all(np.array_equal(*pair) for pair in zip(network.windows, expected, strict=True))


def test_silence_has_no_rating_and_loud_sound_is_clipped():
    nothing = dict.fromkeys(OFFICIAL)
    assert rated(Ratings(Loudest(), 1.0), np.zeros(12 * SAMPLE_RATE, np.float32), 999) == nothing
    assert Ratings(Loudest(), 1.0).finish() == nothing
    network = Loudest()
    rated(Ratings(network, 1.0), np.full(LENGTH, 1.5, np.float32), LENGTH)
    assert network.windows[0].max() == 1.0
