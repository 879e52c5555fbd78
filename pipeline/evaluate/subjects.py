"""What is evaluated: a codec, or the codes of an output, as something that turns a clip into decoded sound.

A subject decodes each clip with several numbers of quantizers. Each number is a point of its own in the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.codecs import Codec, CodecDescription, CodecError, Coded, find_codec, load_codec
from pipeline.config import ModelConfig
from pipeline.steps.prepare import Target


@dataclass(frozen=True, slots=True)
class Subject:
    """A codec under evaluation, without its weights."""

    label: str
    """How the table names it: the model, and its precision where that is not float32."""
    description: CodecDescription
    config_hash: str
    model: ModelConfig
    num_quantizers: tuple[int, ...]

    @property
    def target(self) -> Target:
        """What clips are prepared to."""
        about = self.description
        return Target(about.sample_rate, about.channels, about.samples_per_frame)

    def bits_per_second(self, num_quantizers: int) -> float:
        """Of codes: the sum over codebooks of log2(size) times codes per second."""
        return bits_per_second(self.description, num_quantizers)


def bits_per_second(description: CodecDescription, num_quantizers: int) -> float:
    """Of the codes of the first `num_quantizers` codebooks."""
    rate = description.sample_rate
    books = description.codebooks[:num_quantizers]
    return float(sum(np.log2(book.size) * rate / book.samples_per_code for book in books))


def find_subject(model: ModelConfig, num_quantizers: Sequence[int]) -> Subject:
    """The codec of that name. Raises CodecError for numbers of quantizers that it does not have, and what
    `pipeline.codecs.find_codec` raises.
    """
    source = find_codec(model.name, model.revision)
    label = model.name if model.dtype == "float32" else f"{model.name} ({model.dtype})"
    counts = quantizer_counts(source.description, num_quantizers)
    return Subject(label, source.description, source.config_hash, model, counts)


def quantizer_counts(description: CodecDescription, wanted: Sequence[int]) -> tuple[int, ...]:
    """The wanted numbers in order, each once; without any the powers of two and all. Raises CodecError."""
    available = len(description.codebooks)
    if not description.prefix:
        if any(count != available for count in wanted):
            raise CodecError(f"num_quantizers: all {available} codebooks of {description.family} decode together")
        return (available,)
    if too_many := [count for count in wanted if count > available]:
        raise CodecError(f"num_quantizers: {too_many[0]}, but {description.family} has {available}")
    if wanted:
        return tuple(sorted(set(wanted)))
    powers = [1 << bit for bit in range(available.bit_length()) if 1 << bit < available]
    return (*powers, available)


def load_subject(subject: Subject, device: str) -> Codec:
    """The codec with its weights, encoder and decoder."""
    model = subject.model
    return load_codec(find_codec(model.name, model.revision), device, model.dtype, "all")


def decoded_with_each(
    codec: Codec, waveform: np.ndarray, num_quantizers: Sequence[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Encode a clip (channels, samples) once, and decode it with each number of quantizers."""
    (coded,) = codec.launch([waveform], max(num_quantizers)).result()
    for count in num_quantizers:
        (sound,) = codec.decode([first_layers(coded, count)], [waveform.shape[1]])
        yield count, sound


def first_layers(coded: Coded, count: int) -> Coded:
    """The codes of the first `count` codebooks."""
    return Coded(coded.codes[:count], coded.scales)
