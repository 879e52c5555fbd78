"""What another precision changes: how many codes of each RVQ layer stay the same, and what that does to the sound.

The codes of float32 are the reference. The same float32 decoder decodes both sets of codes, and the results are
compared with the original waveform by two spectral distances, so that a change in them comes from the codes alone:

- mel distance: mean absolute difference of log10 mel spectra, 80 bands, window 1024, hop 256;
- STFT distance: mean absolute difference of log10 magnitudes, the mean over windows 2048 and 512, hop a quarter.

Both clamp magnitudes at 1e-5, like the reconstruction losses of the Descript Audio Codec
(https://arxiv.org/abs/2306.06546). The mel scale is HTK's, 2595 log10(1 + f / 700).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from moss_tok.codec import MossAudioTokenizerModel

FLOOR = 1e-5
MEL_WINDOW, MEL_BANDS = 1024, 80
STFT_WINDOWS = (2048, 512)
BATCH = 8


@dataclass(frozen=True)
class Distances:
    """Distances of decoded audio from the original waveform, averaged over clips. 0 means equal."""

    mel: float
    stft: float


@dataclass(frozen=True)
class Agreement:
    """`layers[i]` is the share of frames whose code in RVQ layer i equals the reference's. `frames_equal` is the share
    of frames that are equal in all layers."""

    model: str
    dtype: str
    clips: int
    frames: int
    seconds: float
    layers: tuple[float, ...]
    frames_equal: float
    reference: Distances
    other: Distances
    reference_numerics: str
    """Which kernels computed in float32."""
    numerics: str
    """Which kernels computed in `dtype`."""

    def __str__(self) -> str:
        rows = "\n".join(
            "  ".join(f"{layer:2d} {100 * share:7.3f} %" for layer, share in group)
            for group in _columns(list(enumerate(self.layers)), 4)
        )
        return (
            f"{self.model}: {self.dtype} against float32, "
            f"{self.clips} clips, {self.seconds:.1f} s, {self.frames} frames\n"
            f"equal codes in each RVQ layer:\n{rows}\n"
            f"all layers: {100 * sum(self.layers) / len(self.layers):.3f} % of codes, "
            f"{100 * self.frames_equal:.3f} % of frames\n"
            f"float32 by {self.reference_numerics}\n{self.dtype} by {self.numerics}\n"
            f"mel distance from the original: {self.reference.mel:.5f} -> {self.other.mel:.5f} "
            f"({self.other.mel - self.reference.mel:+.5f})\n"
            f"STFT distance from the original: {self.reference.stft:.5f} -> {self.other.stft:.5f} "
            f"({self.other.stft - self.reference.stft:+.5f})"
        )


def agreement(
    model_name: str | Path,
    dtype: str,
    waveforms: Sequence[Tensor],
    *,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    num_quantizers: int | None = None,
) -> Agreement:
    """Encode waveforms (C, samples) or (samples,), at the model's rate, in float32 and in `dtype`, and compare."""
    if not waveforms:
        raise ValueError("agreement is measured on at least one waveform")
    reference_model = MossAudioTokenizerModel.from_pretrained(model_name, revision=revision, device=device)
    other_model = MossAudioTokenizerModel.from_pretrained(
        model_name, revision=revision, device=device, dtype=dtype, parts="encoder"
    )
    reference = _codes(reference_model, waveforms, num_quantizers)
    other = _codes(other_model, waveforms, num_quantizers)
    equal = torch.cat([a == b for a, b in zip(reference, other, strict=True)], dim=1)
    samples = sum(waveform.shape[-1] for waveform in waveforms)
    return Agreement(
        model=str(model_name),
        dtype=dtype,
        clips=len(waveforms),
        frames=equal.shape[1],
        seconds=samples / reference_model.sampling_rate,
        layers=tuple(equal.double().mean(1).tolist()),
        frames_equal=float(equal.all(0).double().mean()),
        reference=_distances(reference_model, waveforms, reference),
        other=_distances(reference_model, waveforms, other),
        reference_numerics=reference_model.numerics.name,
        numerics=other_model.numerics.name,
    )


def mel_distance(waveform: Tensor, other: Tensor, sample_rate: int) -> float:
    """Mean absolute difference of the log10 mel spectra of two waveforms (C, samples)."""
    bands = mel_bands(sample_rate, MEL_WINDOW, MEL_BANDS).to(waveform.device)
    mels = [(bands @ _magnitudes(value, MEL_WINDOW)).clamp(min=FLOOR).log10() for value in (waveform, other)]
    return float((mels[0] - mels[1]).abs().mean())


def stft_distance(waveform: Tensor, other: Tensor) -> float:
    """Mean absolute difference of the log10 magnitude spectra of two waveforms (C, samples), over STFT_WINDOWS."""
    total = 0.0
    for window in STFT_WINDOWS:
        spectra = [_magnitudes(value, window).clamp(min=FLOOR).log10() for value in (waveform, other)]
        total += float((spectra[0] - spectra[1]).abs().mean())
    return total / len(STFT_WINDOWS)


def mel_bands(sample_rate: int, window: int, count: int) -> Tensor:
    """Triangular filters (count, window / 2 + 1), equally spaced on the mel scale from 0 to half the sample rate."""
    top = 2595 * torch.log10(torch.tensor(1 + sample_rate / 2 / 700, dtype=torch.float64))
    edges = 700 * (10 ** (torch.linspace(0, 1, count + 2, dtype=torch.float64) * top / 2595) - 1)
    frequencies = torch.linspace(0, sample_rate / 2, window // 2 + 1, dtype=torch.float64)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0).float()


def _magnitudes(waveform: Tensor, window: int) -> Tensor:
    """The magnitude spectra (C, window / 2 + 1, frames). Zeros are added around the waveform, so that any length has
    frames."""
    taper = torch.hann_window(window, device=waveform.device)
    return torch.stft(waveform, window, window // 4, window=taper, pad_mode="constant", return_complex=True).abs()


def _codes(model: MossAudioTokenizerModel, waveforms: Sequence[Tensor], count: int | None) -> list[Tensor]:
    """Codes (num_quantizers, frames) of each waveform."""
    codes = []
    for start in range(0, len(waveforms), BATCH):
        output = model.batch_encode(list(waveforms[start : start + BATCH]), num_quantizers=count)
        lengths = output.audio_codes_lengths.tolist()
        codes += [output.audio_codes[:, index, :length] for index, length in enumerate(lengths)]
    return codes


def _distances(model: MossAudioTokenizerModel, waveforms: Sequence[Tensor], codes: Sequence[Tensor]) -> Distances:
    mels, stfts = [], []
    for waveform, clip in zip(waveforms, codes, strict=True):
        decoded = model.batch_decode([clip]).audio[0]
        original = waveform.reshape(decoded.shape[0], -1).to(decoded)
        decoded = decoded[:, : original.shape[1]]
        mels.append(mel_distance(original, decoded, model.sampling_rate))
        stfts.append(stft_distance(original, decoded))
    return Distances(mel=sum(mels) / len(mels), stft=sum(stfts) / len(stfts))


def _columns(items: list[tuple[int, float]], width: int) -> list[list[tuple[int, float]]]:
    return [items[start : start + width] for start in range(0, len(items), width)]
