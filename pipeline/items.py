"""The values that travel from step to step.

ShardSpec -> RawClip -> Clip -> CodedClip, with a Reject in place of any clip that cannot go on. A clip too long to
travel whole is many ClipParts and a ClipEnd instead of one Clip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Protocol, TypeAlias

import numpy as np


def stable_hash(*parts: str) -> str:
    """16 hexadecimal digits that depend on the parts alone: the same in every process, run and version of Python."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


RENAMED_FORMATS = {"manifest": "list"}
"""Formats that had another name in earlier versions. A plan may still hold the old name, and shard ids are hashes of
it."""
_FORMAT_IN_IDS = {new: old for old, new in RENAMED_FORMATS.items()}

FILE_DIGITS = 8


def file_version(version: str) -> str:
    """A hash of what the store says of one file, FILE_DIGITS hexadecimal digits long."""
    return stable_hash(version)[:FILE_DIGITS]


Codes: TypeAlias = "np.ndarray | tuple[np.ndarray, ...]"
"""Integers (num_quantizers, frames), or one array for each codebook where codebooks differ in their frame rate."""


def join_codes(layers: Sequence[np.ndarray]) -> Codes:
    """The codes of a clip from those of each codebook: a matrix where they are equally many."""
    return np.stack(layers) if len({len(layer) for layer in layers}) == 1 else tuple(layers)


def as_matrix(codes: Codes) -> np.ndarray:
    """(num_quantizers, frames): a codebook of a lower frame rate repeats each code until its next one."""
    if isinstance(codes, np.ndarray):
        return codes
    frames = num_frames(codes)
    return np.stack([layer[np.arange(frames) * len(layer) // frames] for layer in codes])


def num_frames(codes: Codes) -> int:
    """Codes of the codebook that has the most, which is the frame rate that counts."""
    return max((len(layer) for layer in codes), default=0)


JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSpec:
    """One unit of work and of output: an object, or a range of one, or a group of files."""

    shard_id: str = field(init=False)
    """Stable hash of what is read (format, URI, range, members). It never depends on a rank or a count."""
    split: str
    format: str
    """One of the formats of the configuration, except auto."""
    uri: str
    """The object that is read; for files, the folder that `members` are relative to."""
    start: int = 0
    """First row group (parquet) or byte (list) of the range."""
    stop: int | None = None
    """One past the last row group or byte; None for the whole object."""
    first_line: int = 1
    """Number of the line that the range begins with (list)."""
    members: tuple[str, ...] = ()
    """Paths of the files, relative to `uri` (files only)."""
    root: str = ""
    """The part of the input's URI before any wildcard: local links that lead out of it are not followed."""
    size: int
    """Bytes that the shard will read, as far as the listing tells."""
    clips: int | None = None
    """Number of clips where the listing tells it; None for tars."""
    version: str
    """What the store said of the input when it was planned: ETag, or size and modification time. For a shard of files
    it is the `file_version` of each, joined together."""

    def planned_version(self, position: int) -> str:
        """The `file_version` of a member when it was planned."""
        return self.version[FILE_DIGITS * position : FILE_DIGITS * (position + 1)]

    def __post_init__(self) -> None:
        kind = _FORMAT_IN_IDS.get(self.format, self.format)
        identity = stable_hash(kind, self.uri, str(self.start), str(self.stop), *self.members)
        object.__setattr__(self, "shard_id", identity)

    @property
    def place(self) -> str:
        """A description of what is read, for people."""
        if self.members:
            return f"{self.uri}/{self.members[0]} to {self.members[-1]}"
        return self.uri if (self.start, self.stop) == (0, None) else f"{self.uri} from {self.start} to {self.stop}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The part of its file that a clip is. Times are in seconds from the beginning of the file."""

    start: float
    stop: float | None = None
    """Where the part ends. None if `duration` says how long it is, or if it goes on to the end of the file."""
    duration: float | None = None
    channels: tuple[int, ...] | None = None
    """Positions of the channels that belong to it; None for all channels of the file."""
    file_channels: int | None = None
    """Channels that the file must have; None for any number."""
    halves_up: bool = False
    """How half a sample is rounded: up, as Lhotse does, or to the even number, as Python does."""

    def samples(self, sample_rate: int) -> tuple[int, int | None]:
        """The first sample, and the one past the last or None for the end of the file, at the file's own sample
        rate."""
        first = self._round(self.start, sample_rate)
        if self.duration is not None:
            return first, first + self._round(self.duration, sample_rate)
        return first, None if self.stop is None else self._round(self.stop, sample_rate)

    def ends_at(self, sample_rate: int) -> int | None:
        """The sample at the end in seconds, at the file's own sample rate. Start and duration, each rounded up, may
        give one more."""
        stop = self.stop if self.duration is None else self.start + self.duration
        return None if stop is None else self._round(stop, sample_rate)

    def _round(self, seconds: float, sample_rate: int) -> int:
        if self.halves_up:  # lhotse.utils.compute_num_samples
            return int(Decimal(round(seconds * sample_rate, 8)).quantize(0, rounding=ROUND_HALF_UP))
        return round(seconds * sample_rate)

    @property
    def fragment(self) -> str:
        """The part as a fragment of its file's URI, such as t=1.5,4 (W3C, Media Fragments URI 1.0)."""
        stop = self.stop if self.duration is None else self.start + self.duration
        return f"t={self.start:.10g}" + ("" if stop is None else f",{stop:.10g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a clip came from. It follows the clip to its row or its reject."""

    index: int
    """Position in the shard, from 0: the order of rows."""
    source: str
    """URI of the object that holds the clip."""
    key: str
    """The clip's name inside its source."""
    segment: Segment | None = None
    """The part of the source's audio that the clip is; None for all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the source says of a clip, apart from its audio. It follows the clip to its row."""

    text: str | None = None
    """Transcript."""
    language: str | None = None
    speaker_id: str | None = None
    labels: tuple[str, ...] | None = None
    metadata: Mapping[str, JSON] = field(default_factory=dict)
    """All other fields."""


class SizedPath(Protocol):
    """A local file whose length in bytes is known."""

    def __len__(self) -> int: ...

    def __fspath__(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RawClip:
    """A clip as the source holds it: encoded bytes, not decoded yet."""

    origin: Origin
    name: str
    """File name, needed for the few formats that the bytes alone do not tell."""
    data: bytes | SizedPath
    """The bytes. Where the clip is a part of a file, the local file that has them: it may be too large for memory."""
    description: Description = Description()
    shares_data: bool = False
    """Whether the previous clip is a part of the same file and has the same bytes."""

    @property
    def input_bytes(self) -> int:
        """Encoded bytes that were read for this clip and for no clip before it."""
        return 0 if self.shares_data else len(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipInfo:
    """What a row says of a clip, apart from its codes. Definitions and units are in schemas/codes.v2.yaml."""

    origin: Origin
    num_samples: int
    source_format: str
    source_codec: str
    source_sample_rate: int
    source_channels: int
    peak: float
    rms: float
    clipping: float
    silence: float
    gain_db: float = 0.0
    audio_xxh3: str
    signals: Mapping[str, float | str | None] = field(default_factory=dict)
    """By column: what the section `signals` asks for."""
    description: Description = Description()


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip ready to encode. `waveform` is float32 (channels, num_samples) at the model's sample rate and channels."""

    info: ClipInfo
    waveform: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPart:
    """A part of a long clip. The parts follow one another, and after the last comes the clip's ClipEnd or its
    Reject."""

    origin: Origin
    start: int
    """Number of samples before this part. A part that starts at 0 begins the clip, or begins it again."""
    waveform: np.ndarray
    """float32 (channels, n); n is whole frames in all parts but the last."""


@dataclass(frozen=True, slots=True)
class ClipEnd:
    """Says that the long clip whose parts came before is sound, and what its row says of it."""

    info: ClipInfo


@dataclass(frozen=True, slots=True)
class CodedClip:
    """A clip with its codes."""

    info: ClipInfo
    codes: Codes
    scales: np.ndarray | None = None
    """float32, a number for each chunk, of a codec that needs them to decode."""
    latents: np.ndarray | None = None
    """float16 (frames, D), what was quantized, where output.latents asks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A clip that gets no codes, and the reason."""

    origin: Origin
    stage: str
    """read, prepare or encode."""
    reason: str
    """One code of a closed list, so that rejects can be counted by reason."""
    message: str
    """What is wrong with this clip, for people."""


Prepared: TypeAlias = "Clip | ClipPart | ClipEnd | Reject"
"""What preparing a RawClip can give."""
