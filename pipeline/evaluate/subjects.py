"""What is evaluated: a codec, or the codes of an output, as something that turns a clip into decoded sound.

A subject decodes each clip with several numbers of quantizers. Each number is a point of its own in the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.codecs import Codec, CodecDescription, CodecError, Coded, find_codec, load_codec, precision_of
from pipeline.config import ModelConfig
from pipeline.dataset.dataset import Output, read_output
from pipeline.dataset.provenance import source_of
from pipeline.loading.decode import load_decoder
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
    output: str | None = None
    """The output whose codes are decoded; None for a codec that encodes."""

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


def find_subject(model: ModelConfig, num_quantizers: Sequence[int], device: str) -> Subject:
    """The codec of that name, in the precision that it has on such a device.

    Raises CodecError for numbers of quantizers that it does not have, and what `pipeline.codecs.find_codec` raises.
    """
    source = find_codec(model.name, model.revision, model.codec)
    dtype = precision_of(source.family, model.dtype, on_gpu=device.startswith("cuda"))
    label = model.name if dtype == "float32" else f"{model.name} ({dtype})"
    counts = quantizer_counts(source.description, num_quantizers)
    exact = model.model_copy(update={"dtype": dtype})
    return Subject(label, source.description, source.config_hash, exact, counts)


def find_codes(output: Output, num_quantizers: Sequence[int], named: str = "") -> Subject:
    """The codes of an output, decoded by the model that made them; `named` in the label tells outputs apart.

    Raises CodecError for numbers of quantizers that it does not hold, and what finding the model raises.
    """
    record = output.record
    if too_many := [count for count in num_quantizers if count > record.num_quantizers]:
        raise CodecError(
            f"evaluate.num_quantizers: {too_many[0]}, but {output.layout.root} holds the codes of "
            f"{record.num_quantizers}"
        )
    source = source_of(record)
    held = replace(source.description, codebooks=source.description.codebooks[: record.num_quantizers])
    counts = quantizer_counts(held, num_quantizers)
    label = f"{record.model.label} ({record.dtype} codes{named and f' of {named}'})"
    model = ModelConfig(name=record.model.name, revision=record.model.revision)
    return Subject(label, source.description, source.config_hash, model, counts, output.layout.root)


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
    """The codec with its weights: encoder and decoder, or the decoder of an output.

    Raises ValueError where the weights are not those that made the output.
    """
    model = subject.model
    if subject.output is not None:
        return load_decoder(read_output(subject.output).record, dtype="float32")
    return load_codec(find_codec(model.name, model.revision, model.codec), device, model.dtype, "all")


def encoded(codec: Codec, waveform: np.ndarray, num_quantizers: int) -> Coded:
    """The codes of a clip (channels, samples)."""
    (coded,) = codec.launch([waveform], num_quantizers).result()
    return coded


def decoded_with_each(
    codec: Codec, coded: Coded, num_samples: int, num_quantizers: Sequence[int]
) -> Iterator[tuple[Coded, np.ndarray]]:
    """Decode a clip with each number of quantizers: its first codes, and the sound (channels, samples) of them."""
    for count in num_quantizers:
        first = first_layers(coded, count)
        (sound,) = codec.decode([first], [num_samples])
        yield first, sound


def first_layers(coded: Coded, count: int) -> Coded:
    """The codes of the first `count` codebooks."""
    return Coded(coded.codes[:count], coded.scales)
