"""The metrics of a decoded clip, by name, each by its official definition; what cannot be measured says why.

Every metric compares two float32 waveforms (samples,) at 16 kHz of the same length: the reference and the decoded
sound. `comparable` makes them from sound at any rate as the official evaluation does.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from moss_tok.audio import resample
from pipeline.evaluate.distances import SAMPLE_RATE, mel_loss, si_sdr, stft_distance
from pipeline.extras import require
from pipeline.signal_config import DnsmosConfig
from pipeline.steps.clip_signals.dnsmos import Dnsmos

Waveform = NDArray[np.float32]

PESQ_SECONDS = 20.0
"""PESQ keeps at most 50 utterances and writes past its tables beyond. An utterance and the pause after it last 0.2 s
each or more, so a clip of 20 s cannot have more. Longer ones are measured in a process that may die."""
PESQ_LIMIT_SECONDS = 60.0
SI_SDR_SAMPLES = 3
"""Two samples without their mean are the same up to a factor as any other two."""


class UndefinedMetric(ValueError):
    """A metric has no value for a clip. The only argument is the reason, one word of UNDEFINED."""


UNDEFINED = {
    "silent": "the reference or the decoded sound is silent throughout",
    "too_short": "the clip is shorter than what the metric looks at",
    "too_long": "the clip is longer than the metric's implementation bears",
    "no_speech": "the metric found no speech in the clip",
    "no_text": "the source has no transcript",
    "exact": "the decoded sound is the reference, so that the ratio has no bound",
    "crashed": "the metric's implementation ended its process",
}
"""Why a metric can have no value for a clip."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number for a pair of waveforms, and how to read it."""

    name: str
    label: str
    better: Literal["higher", "lower"]
    measure: Callable[[Waveform, Waveform], float]
    """Of (reference, decoded) at 16 kHz. Raises UndefinedMetric."""


def comparable(reference: Waveform, rate: int, decoded: Waveform, decoded_rate: int) -> tuple[Waveform, Waveform]:
    """Both waveforms as the official evaluation compares them.

    Args:
        reference: the clip at the codec's rate, (channels, samples).
        rate: of the reference, in Hz.
        decoded: what the codec made of it, (channels, samples).
        decoded_rate: of the decoded sound, in Hz; for most codecs the same. Then the decoded sound is cut or padded
            with zeros to the reference's length.

    Returns:
        Two waveforms (samples,) at 16 kHz: clipped and rounded to 16 bits, mixed to mono, resampled, cut to the
        shorter.
    """
    if rate == decoded_rate:
        length = reference.shape[1]
        decoded = np.pad(decoded[:, :length], ((0, 0), (0, max(0, length - decoded.shape[1]))))
    one, other = (
        _to_16k(_to_16_bits(waveform).mean(axis=0), hertz)
        for waveform, hertz in ((reference, rate), (decoded, decoded_rate))
    )
    length = min(len(one), len(other))
    return one[:length], other[:length]


def _to_16_bits(waveform: Waveform) -> Waveform:
    return (np.clip(np.round(waveform * 32768.0), -32768, 32767) / 32768.0).astype(np.float32)


def _to_16k(waveform: Waveform, sample_rate: int) -> Waveform:
    resampled: Waveform = resample(waveform[None], sample_rate, SAMPLE_RATE)[0]
    return resampled


def _stoi(reference: Waveform, decoded: Waveform) -> float:
    """pystoi returns 1e-5 with a warning where too little is left without silent frames, and 0 for silence."""
    stoi = require("pystoi", "evaluate").stoi
    refuse_silence(reference, decoded)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(stoi(reference, decoded, SAMPLE_RATE, extended=False))
        except (RuntimeWarning, ValueError, IndexError):
            raise UndefinedMetric("too_short") from None


def _pesq_narrow(reference: Waveform, decoded: Waveform) -> float:
    return _pesq(reference, decoded, "nb")


def _pesq_wide(reference: Waveform, decoded: Waveform) -> float:
    return _pesq(reference, decoded, "wb")


def _pesq(reference: Waveform, decoded: Waveform, mode: str) -> float:
    require("pesq", "evaluate")
    refuse_silence(reference, decoded)
    seconds = len(reference) / SAMPLE_RATE
    if seconds > PESQ_LIMIT_SECONDS:
        raise UndefinedMetric("too_long")
    if seconds <= PESQ_SECONDS:
        return _call_pesq(reference, decoded, mode)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_call_pesq, reference, decoded, mode).result()
        except BrokenProcessPool:
            raise UndefinedMetric("crashed") from None


def _call_pesq(reference: Waveform, decoded: Waveform, mode: str) -> float:
    import pesq

    try:
        return float(pesq.pesq(SAMPLE_RATE, reference, decoded, mode))
    except pesq.NoUtterancesError:
        raise UndefinedMetric("no_speech") from None
    except pesq.BufferTooShortError:
        raise UndefinedMetric("too_short") from None


def _dnsmos(reference: Waveform, decoded: Waveform) -> float:
    """Overall quality of the decoded sound alone, from 1 to 5 (Reddy et al., 2022); the reference is not used."""
    refuse_silence(decoded)
    ratings = _dnsmos_model().start(SAMPLE_RATE)
    ratings.add(decoded)
    rating = ratings.finish()["dnsmos"]
    assert isinstance(rating, float), "only silence has none"
    return rating


@cache
def _dnsmos_model() -> Dnsmos:
    """That of the signal of this name. Raises MissingPackage."""
    return Dnsmos(Dnsmos.describe(DnsmosConfig()))


def _distance(measure: Callable[[torch.Tensor, torch.Tensor], float]) -> Callable[[Waveform, Waveform], float]:
    def of_waveforms(reference: Waveform, decoded: Waveform) -> float:
        if not len(reference):
            raise UndefinedMetric("too_short")
        return measure(torch.from_numpy(reference), torch.from_numpy(decoded))

    return of_waveforms


def _si_sdr(reference: Waveform, decoded: Waveform) -> float:
    refuse_silence(reference, decoded)
    if len(reference) < SI_SDR_SAMPLES:
        raise UndefinedMetric("too_short")
    try:
        ratio = si_sdr(torch.from_numpy(reference), torch.from_numpy(decoded))
    except ValueError:
        raise UndefinedMetric("silent") from None
    if math.isinf(ratio):
        raise UndefinedMetric("exact")
    return ratio


def refuse_silence(*waveforms: Waveform) -> None:
    """Raises UndefinedMetric if all samples of one are 0."""
    if any(not np.any(waveform) for waveform in waveforms):
        raise UndefinedMetric("silent")


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("stoi", "STOI", "higher", _stoi),
        Metric("pesq_nb", "PESQ-NB", "higher", _pesq_narrow),
        Metric("pesq_wb", "PESQ-WB", "higher", _pesq_wide),
        Metric("mel", "Mel loss", "lower", _distance(mel_loss)),
        Metric("stft", "STFT distance", "lower", _distance(stft_distance)),
        Metric("si_sdr", "SI-SDR (dB)", "higher", _si_sdr),
        Metric("dnsmos", "DNSMOS", "higher", _dnsmos),
    )
}
"""The metrics that need two waveforms and nothing else, in the order of the table."""


def require_packages(names: list[str]) -> None:
    """Import what the named metrics need, so that a missing package is known before the work begins. Raises
    MissingPackage."""
    needs = {"stoi": "pystoi", "pesq_nb": "pesq", "pesq_wb": "pesq"}
    for name in names:
        if name in needs:
            require(needs[name], "evaluate")
    if "dnsmos" in names:
        _dnsmos_model()
