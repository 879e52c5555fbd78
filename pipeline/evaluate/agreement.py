"""How far two subjects of one model agree: precision against precision, kind of machine against kind.

Every subject is compared with the first one of the same model. Codes are compared layer by layer. Sounds are compared
with each other, not with the clip: both decoded with the same number of quantizers, each by its own subject, and made
`comparable` (mono, 16 kHz). A differing code changes the residual that all later layers see, so agreement falls from
layer to layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from pipeline.evaluate.bootstrap import Draws, Estimate
from pipeline.evaluate.distances import mel_loss
from pipeline.evaluate.metrics import METRICS, UndefinedMetric, Waveform
from pipeline.items import Codes, as_matrix


@dataclass(frozen=True, slots=True)
class Made:
    """What a subject makes of a clip with one number of quantizers."""

    subject: str
    codes: Codes
    sound: Waveform
    """(samples,) at 16 kHz."""


@dataclass(frozen=True, slots=True)
class ClipAgreement:
    """One clip of two subjects, under the names of the columns."""

    reference: str
    frames: int
    equal_codes: list[int]
    """Of each layer, how many frames have the reference's code."""
    equal_frames: int
    """How many frames have it in every layer."""
    sound_mel: float
    """Mel loss between the sounds; 0 where they are the same."""
    sound_si_sdr: float | None
    """SI-SDR of the sound against the reference's, in dB; None where they are the same, or one is silent."""


def compare(reference: Made, other: Made) -> ClipAgreement:
    """Two subjects of one model on the same clip, with the same number of quantizers."""
    equal = as_matrix(reference.codes) == as_matrix(other.codes)
    sounds = torch.from_numpy(reference.sound), torch.from_numpy(other.sound)
    same = bool(torch.equal(*sounds))
    return ClipAgreement(
        reference=reference.subject,
        frames=equal.shape[1],
        equal_codes=equal.sum(axis=1).tolist(),
        equal_frames=int(equal.all(axis=0).sum()),
        sound_mel=0.0 if same else mel_loss(*sounds),
        sound_si_sdr=_si_sdr(reference.sound, other.sound),
    )


def _si_sdr(reference: Waveform, other: Waveform) -> float | None:
    try:
        return METRICS["si_sdr"].measure(reference, other)
    except UndefinedMetric:
        return None


@dataclass(frozen=True, slots=True)
class SoundAgreement:
    """Two subjects at one number of quantizers. Shares are from 0 to 1."""

    num_quantizers: int
    equal_codes: float
    """Share of the codes of all these layers."""
    equal_frames: float
    """Share of frames that are equal in all these layers."""
    equal_sounds: int
    """Clips whose sounds are the same in every sample."""
    mel: Estimate | None
    si_sdr: Estimate | None
    """Over the clips whose sounds differ."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A subject compared with the first one of its model."""

    subject: str
    reference: str
    clips: int
    frames: int
    layers: list[float]
    """Share of frames with the same code, for each layer."""
    sounds: list[SoundAgreement]
    """For each number of quantizers."""


def summarize_agreement(table: pa.Table, clip_of_row: np.ndarray, draws: Draws) -> list[Agreement]:
    """Of the rows of an evaluation; `clip_of_row` numbers the clips that `draws` draws from."""
    rows: dict[tuple[str, str], dict[int, list[int]]] = {}
    names = (table[name].to_pylist() for name in ("subject", "reference", "num_quantizers"))
    for number, (subject, reference, count) in enumerate(zip(*names, strict=True)):
        if reference is not None:
            rows.setdefault((subject, reference), {}).setdefault(count, []).append(number)

    def estimate(column: str, numbers: list[int]) -> Estimate | None:
        values = np.full(draws.clips, np.nan)
        values[clip_of_row[numbers]] = table[column].take(numbers).to_numpy().astype(np.float64)
        return draws.estimate(values)

    return [_agreement(table, *pair, by_count, estimate) for pair, by_count in rows.items()]


def _agreement(
    table: pa.Table,
    subject: str,
    reference: str,
    by_count: dict[int, list[int]],
    estimate: Callable[[str, list[int]], Estimate | None],
) -> Agreement:
    sounds = []
    for count, numbers in sorted(by_count.items()):
        chosen = table.select(["frames", "equal_codes", "equal_frames", "sound_mel"]).take(numbers)
        frames = int(np.sum(chosen["frames"].to_numpy()))
        equal = chosen["equal_codes"].combine_chunks().flatten().to_numpy().reshape(len(numbers), -1).sum(axis=0)
        sounds.append(
            SoundAgreement(
                num_quantizers=count,
                equal_codes=float(equal.mean() / frames),
                equal_frames=float(np.sum(chosen["equal_frames"].to_numpy()) / frames),
                equal_sounds=int(np.sum(chosen["sound_mel"].to_numpy() == 0)),
                mel=estimate("sound_mel", numbers),
                si_sdr=estimate("sound_si_sdr", numbers),
            )
        )
    return Agreement(subject, reference, len(numbers), frames, (equal / frames).tolist(), sounds)
