"""What a codec is, as far as the pipeline needs to know.

A `Family` reads a model's `config.json` into a `CodecDescription` without loading weights, and loads it as a `Codec`.
The description alone decides the columns of a data file, how many codes a clip has, and how much of it decodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from pipeline.items import Codes

if TYPE_CHECKING:
    from moss_tok.checkpoint import Checkpoint

MOSS = "moss"
MAX_SECONDS = 600.0
"""Of a clip that is in memory at once, with what a codec computes of it: some gigabytes."""

Parts = Literal["all", "encoder", "decoder"]


class CodecError(ValueError):
    """A codec that cannot be used as asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Codebook:
    """One column of codes."""

    size: int
    """Codes go from 0 to size - 1."""
    samples_per_code: int
    """Samples per channel of the encoded waveform from one code to the next."""

    def __post_init__(self) -> None:
        if self.size < 2 or self.samples_per_code < 1:
            raise ValueError(f"a codebook of {self.size} codes, one for {self.samples_per_code} samples")


@dataclass(frozen=True, slots=True)
class Chunking:
    """A codec that cuts a clip into overlapping chunks and encodes each for itself."""

    length: int
    """Samples of a chunk; the last ones may be shorter."""
    stride: int
    """Samples from the beginning of one chunk to that of the next."""

    def lengths(self, num_samples: int) -> list[int]:
        """Samples of each chunk of a clip."""
        return [min(self.length, num_samples - start) for start in range(0, num_samples, self.stride)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecDescription:
    """What a codec is. `codebooks` are in the order of their columns.

    A clip of n samples has ceil(n / samples_per_code) codes in each codebook, after padding to whole multiples of
    `padding` samples where that is set; with `chunking`, the codes of its chunks end to end; with `whole_frames_only`,
    floor(n / samples_per_code), and at least one.
    """

    family: str
    sample_rate: int
    """Hz, of what is encoded."""
    channels: int
    codebooks: tuple[Codebook, ...]
    trained: bool = True
    """False where decoding does not give the sound back."""
    prefix: bool = True
    """Whether the first k codebooks decode without the others, to a coarser sound."""
    streams: bool = False
    """Whether a clip can be encoded and decoded part by part; otherwise a whole clip is in memory at once."""
    max_seconds: float | None = None
    """Longest clip that is encoded by a codec that does not stream; by default MAX_SECONDS."""
    padding: int | None = None
    """Samples of which a clip is padded to whole multiples, where that is more than one code of the finest codebook."""
    chunking: Chunking | None = None
    whole_frames_only: bool = False
    """Whether what is left of a clip after its last whole frame gets no code: it decodes to silence."""
    scales: bool = False
    """Whether decoding needs a number for each chunk besides the codes: the column `scales`."""
    decoded_sample_rate: int | None = None
    """Hz of what is decoded, where it is another rate than what is encoded."""

    def __post_init__(self) -> None:
        if not self.codebooks or min(self.sample_rate, self.channels) < 1:
            raise ValueError(
                f"{len(self.codebooks)} codebooks for sound of {self.channels} channels at {self.sample_rate} Hz"
            )

    @property
    def longest_seconds(self) -> float:
        """Longest clip that can be encoded."""
        return math.inf if self.streams else MAX_SECONDS if self.max_seconds is None else self.max_seconds

    @property
    def samples_per_frame(self) -> int:
        """Samples per channel and code of the finest codebook."""
        return min(codebook.samples_per_code for codebook in self.codebooks)

    @property
    def output_rate(self) -> int:
        """Hz of decoded sound."""
        return self.decoded_sample_rate or self.sample_rate

    @property
    def single_rate(self) -> bool:
        """Whether all codebooks have one frame rate, so that the codes of a clip are a matrix."""
        return len({codebook.samples_per_code for codebook in self.codebooks}) == 1

    def padded(self, num_samples: int) -> int:
        """Samples of a clip after padding."""
        unit = self.padding or self.samples_per_frame
        return -(-num_samples // unit) * unit

    def lengths(self, num_samples: int) -> tuple[int, ...]:
        """How many codes a clip of at least one sample has in each codebook.

        Without `chunking` it is arithmetic that an array of numbers of samples can be given to as well.
        """
        if self.chunking is not None:
            chunks = self.chunking.lengths(num_samples)
            return tuple(sum(-(-chunk // book.samples_per_code) for chunk in chunks) for book in self.codebooks)
        if self.whole_frames_only:
            sizes = (codebook.samples_per_code for codebook in self.codebooks)
            return tuple(num_samples // size + (num_samples < size) for size in sizes)
        padded = self.padded(num_samples)
        return tuple(-(-padded // codebook.samples_per_code) for codebook in self.codebooks)

    def frames(self, num_samples: int) -> int:
        """Codes of the finest codebook."""
        return max(self.lengths(num_samples))

    def decoded_samples(self, num_samples: int) -> int:
        """Samples that a clip of `num_samples` decodes to: the same number, but for another rate."""
        return -(-num_samples * self.output_rate // self.sample_rate)

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it. What MOSS has beside figures that every codec has is not said: it is the default."""
        figures = {
            "trained": self.trained,
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            "samples_per_frame": self.samples_per_frame,
            "num_quantizers": len(self.codebooks),
            "codebook_size": max(codebook.size for codebook in self.codebooks),
        }
        if self.family == MOSS:
            return figures
        more: dict[str, Any] = {
            "family": self.family,
            "codebooks": [[codebook.size, codebook.samples_per_code] for codebook in self.codebooks],
            "prefix": self.prefix,
            "streams": self.streams,
            "max_seconds": self.max_seconds,
            "padding": self.padding,
            "chunking": None if self.chunking is None else [self.chunking.length, self.chunking.stride],
            "whole_frames_only": self.whole_frames_only,
            "scales": self.scales,
            "decoded_sample_rate": self.decoded_sample_rate,
        }
        return {**figures, "codec": more}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CodecDescription:
        """The inverse of `to_json`. Raises ValueError, LookupError or TypeError for anything else."""
        more = values.get("codec")
        basis = {key: values[key] for key in ("trained", "sample_rate", "channels")}
        if more is None:
            codebook = Codebook(values["codebook_size"], values["samples_per_frame"])
            return cls(family=MOSS, codebooks=(codebook,) * values["num_quantizers"], streams=True, **basis)
        books = tuple(Codebook(*codebook) for codebook in more["codebooks"])
        chunking = None if more["chunking"] is None else Chunking(*more["chunking"])
        return cls(**basis, **(more | {"codebooks": books, "chunking": chunking}))

    def first(self, num_quantizers: int | None, name: str = "the model") -> tuple[Codebook, ...]:
        """The codebooks that are written. Raises CodecError for a number of them that cannot be."""
        there = len(self.codebooks)
        if num_quantizers is None or num_quantizers == there:
            return self.codebooks
        if num_quantizers > there:
            raise CodecError(f"model.num_quantizers: {num_quantizers}, but {name} has {there}")
        if not self.prefix:
            raise CodecError(
                f"model.num_quantizers: {num_quantizers}, but the codes of {self.family} decode all {there} together"
            )
        return self.codebooks[:num_quantizers]


@dataclass(frozen=True, slots=True)
class Coded:
    """The codes of one clip."""

    codes: Codes
    scales: np.ndarray | None = None
    """float32 (chunks,), for codecs with `scales`."""
    latents: np.ndarray | None = None
    """float16 (frames, D), what was quantized, where it is asked for."""


class CodeStream(Protocol):
    """The codes of a clip that comes in parts."""

    def step(self, waveform: np.ndarray) -> None:
        """The next samples, float32 (channels, n), n whole frames in all parts but the last."""

    def finish(self) -> Coded:
        """End the clip."""


class Codec(Protocol):
    """A codec with its weights. The codes of a clip depend on the clip alone: not on what shares a call, nor on the
    number of threads.
    """

    @property
    def description(self) -> CodecDescription: ...

    @property
    def batching(self) -> str:
        """How clips share a call, for people and for the provenance: decided by a probe, never by a clip."""

    @property
    def numerics(self) -> str:
        """Which kernels compute, where that was chosen, for people."""

    def launch(self, waveforms: Sequence[np.ndarray], num_quantizers: int) -> Future[list[Coded]]:
        """Begin to encode clips, each float32 (channels, num_samples) at the codec's rate; their codes in the order
        given. Raises torch.OutOfMemoryError, or the future does.
        """

    def stream(self, num_quantizers: int, max_frames: int) -> CodeStream:
        """Encode a clip part by part, at most `max_frames` frames at once where the codec streams."""

    def decode(self, clips: Sequence[Coded], num_samples: Sequence[int]) -> list[np.ndarray]:
        """Sound of each clip, float32 (channels, description.decoded_samples(num_samples))."""

    def decode_pieces(self, clip: Coded, num_samples: int) -> Iterator[np.ndarray]:
        """`decode` of one clip as pieces that follow each other; of a codec that streams, in bounded memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of codec. Under the entry point group `moss_tok.codecs` other packages offer theirs."""

    name: str
    """What `model.codec` names."""
    describe: Callable[[Mapping[str, Any]], CodecDescription]
    """From the contents of `config.json`. Raises ValueError, KeyError or TypeError where they make no sense."""
    load: Callable[[Checkpoint, str, str, Parts], Codec]
    """From a folder with config.json and safetensors files, a device ("cpu", "cuda"), a precision and a half."""
    model_types: tuple[str, ...] = ()
    """Values of `model_type` in config.json that are this family's."""
    recognises: Callable[[Mapping[str, Any]], bool] = lambda config: False
    """For families whose config.json has no model_type."""
    decisive: Callable[[Mapping[str, Any]], Any] | None = None
    """What of config.json decides the codes, as JSON; by default all but where it comes from."""
    dtypes: tuple[str, ...] = ("float32",)
    """Precisions that it can be loaded in."""
    packages: tuple[str, ...] = ()
    """Distributions whose versions decide its codes."""
