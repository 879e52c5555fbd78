"""The base of codecs that are given one whole clip a call, which is what the most of them are exact for.

A family, or a plug-in, says what the codec is and encodes and decodes one clip; this class does the rest of `Codec`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np

from pipeline.codecs.protocol import CodecDescription, Coded
from pipeline.concurrency import completed


class WholeClips(ABC):
    """A `Codec` that encodes one whole clip after the other."""

    batching = "one clip a call"
    numerics = "the library's own kernels"

    def __init__(self, description: CodecDescription) -> None:
        self.description = description

    @abstractmethod
    def encode_clip(self, waveform: np.ndarray) -> Coded:
        """Codes of all codebooks of float32 (channels, num_samples), which is at least one sample."""

    @abstractmethod
    def decode_clip(self, clip: Coded, num_samples: int) -> np.ndarray:
        """float32 (channels, samples), as long as the codec makes it of a clip that had `num_samples` samples; `clip`
        may hold the first codebooks only.
        """

    def encode_clips(self, waveforms: Sequence[np.ndarray]) -> list[Coded]:
        """Codes of several clips; those of each are what `encode_clip` gives."""
        return [self.encode_clip(waveform) for waveform in waveforms]

    def launch(self, waveforms: Sequence[np.ndarray], num_quantizers: int) -> Future[list[Coded]]:
        clips = self.encode_clips(waveforms)
        return completed(
            [
                self._checked(clip, waveform.shape[1], num_quantizers)
                for clip, waveform in zip(clips, waveforms, strict=True)
            ]
        )

    def stream(self, num_quantizers: int, max_frames: int) -> WholeClipStream:
        """Gathers the parts, and encodes the clip at its end."""
        return WholeClipStream(self, num_quantizers)

    def decode(self, clips: Sequence[Coded], num_samples: Sequence[int]) -> list[np.ndarray]:
        return [
            fitted(self.decode_clip(clip, samples), self.description.decoded_samples(samples))
            for clip, samples in zip(clips, num_samples, strict=True)
        ]

    def decode_pieces(self, clip: Coded, num_samples: int) -> Iterator[np.ndarray]:
        yield from self.decode([clip], [num_samples])

    def _checked(self, clip: Coded, num_samples: int, num_quantizers: int) -> Coded:
        """The wanted codebooks; what does not fit the description must not get into a data file."""
        books = self.description.codebooks
        lengths = self.description.lengths(num_samples)
        found = tuple(len(codes) for codes in clip.codes)
        if found != lengths:
            raise RuntimeError(
                f"{self.description.family}: {num_samples} samples gave {found} codes, and by its description they are "
                f"{lengths}"
            )
        for codes, book in zip(clip.codes, books, strict=True):
            if not 0 <= int(codes.min()) <= int(codes.max()) < book.size:
                raise RuntimeError(
                    f"{self.description.family}: gave codes from {codes.min()} to {codes.max()} for a codebook of "
                    f"{book.size}"
                )
        return Coded(clip.codes[:num_quantizers], clip.scales)


class WholeClipStream:
    """A clip that comes in parts, for a codec that needs it whole."""

    def __init__(self, codec: WholeClips, num_quantizers: int) -> None:
        self._codec = codec
        self._num_quantizers = num_quantizers
        self._parts: list[np.ndarray] = []

    def step(self, waveform: np.ndarray) -> None:
        self._parts.append(waveform)

    def finish(self) -> Coded:
        waveform = np.concatenate(self._parts, axis=1)
        self._parts = []
        return self._codec.launch([waveform], self._num_quantizers).result()[0]


def fitted(waveform: np.ndarray, num_samples: int) -> np.ndarray:
    """float32 (channels, num_samples): cut, or filled up with silence where the codec decodes too few samples."""
    missing = max(0, num_samples - waveform.shape[1])
    return np.ascontiguousarray(np.pad(waveform, ((0, 0), (0, missing)))[:, :num_samples], np.float32)
