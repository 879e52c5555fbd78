"""Decodes rows of an output to sound files that are exactly as long as the clips that were encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import soundfile

from pipeline import storage
from pipeline.codecs import Codec, Coded, load_codec, precision_of
from pipeline.codecs.registry import family_named
from pipeline.concurrency import in_order
from pipeline.config import BatchConfig
from pipeline.dataset.provenance import RunRecord, source_of
from pipeline.items import Codes, num_frames
from pipeline.loading.rows import Row
from pipeline.steps.batch import Batcher
from pipeline.steps.encode import device_of

FORMATS = ("wav", "flac")
MAX_FRAMES = BatchConfig().max_frames  # as in encoding; a longer row is decoded in pieces, if its codec can
THREADS = 4  # that look for files and write them, while the next batch is decoded
WAV_BYTES = 2**32 - 2**16  # a WAV file counts its bytes in 32 bits: longer ones are RF64, which readers of WAV know


def load_decoder(record: RunRecord, name: str | None = None, dtype: str = "auto") -> Codec:
    """The decoder of the model that made an output, from where the record says or from `name`, on the GPU if any.

    `dtype` "auto" is bfloat16 on a GPU and float32 on a CPU.

    Raises ValueError where other weights are there now, and OSError or ValueError where none can be had.
    """
    source = source_of(record, name)
    codec = load_codec(source, device_of("auto"), dtype, parts="decoder")
    if source.checkpoint.weights_sha256 != record.model.weights_sha256:
        made_by = record.model.name
        raise ValueError(
            f"{source.name} has other weights than {made_by}, which made the output: pass that with --model"
        )
    return codec


def decoding_precision(record: RunRecord, dtype: str = "auto") -> str:
    """What `load_decoder` takes on this machine. Raises CodecError for a precision that the codec does not have."""
    return precision_of(family_named(record.model.codec.family), dtype, on_gpu=device_of("auto") == "cuda")


def decode_row(row: Row, codec: Codec) -> np.ndarray:
    """float32 (channels, samples): exactly as long as the clip that was encoded."""
    return decode_batch([row], codec)[0]


def decode_batch(rows: list[Row], codec: Codec) -> list[np.ndarray]:
    """Decode rows in one batch. The sound of a row does not depend on the others."""
    clips = [Coded(_prefix(row, codec), row.scales) for row in rows]
    return codec.decode(clips, [row.num_samples for row in rows])


def decode_in_pieces(row: Row, codec: Codec) -> Iterator[np.ndarray]:
    """The sound of `decode_row` in pieces (channels, n). Memory does not grow with the length of the clip if the codec
    streams."""
    return codec.decode_pieces(Coded(_prefix(row, codec), row.scales), row.num_samples)


def _prefix(row: Row, codec: Codec) -> Codes:
    """The row's codes, if they decode. Raises ValueError for some codebooks of a codec that needs all of them."""
    codec.description.first(len(row.codes))
    return row.codes


@dataclass(frozen=True, slots=True)
class SoundFiles:
    """The sound files of rows: one file per row in a folder, or a single file."""

    uri: str
    """The folder; with `single`, the file."""
    format: str
    """One of FORMATS."""
    single: bool
    record: RunRecord
    """Of the output, which says what besides the row decides the sound."""
    dtype: str = "float32"
    """Precision that is decoded in."""

    def uri_of(self, row: Row) -> str:
        return self.uri if self.single else storage.join(self.uri, f"{row.clip_id}.{self.format}")

    def finished(self, row: Row) -> bool:
        """Whether the file exists and was made of this row, by the same model, from as many layers."""
        uri = self.uri_of(row)
        if storage.stat(uri) is None:
            return False
        try:
            with storage.open_read(uri) as stream, soundfile.SoundFile(stream) as file:
                found = (file.frames, file.samplerate, file.comment)
        except soundfile.LibsndfileError:
            return False
        codec = self.record.model.codec
        return found == (codec.decoded_samples(row.num_samples), codec.output_rate, self._comment(row))

    def write(self, row: Row, pieces: Iterator[np.ndarray], channels: int) -> None:
        """Write the sound with 16 bits per sample. The file appears when it is complete."""
        codec = self.record.model.codec
        large = codec.decoded_samples(row.num_samples) * channels * 2 > WAV_BYTES
        kind = "FLAC" if self.format == "flac" else "RF64" if large else "WAV"
        with (
            storage.published_file(self.uri_of(row)) as path,
            soundfile.SoundFile(path, "w", codec.output_rate, channels, "PCM_16", format=kind) as file,
        ):
            file.comment = self._comment(row)
            for piece in pieces:
                file.write(piece.T)

    def _comment(self, row: Row) -> str:
        precision = "" if self.dtype == "float32" else f", {self.dtype}"
        return f"{row.clip_id}: {len(row.codes)} RVQ layers, {comment_of(self.record)}{precision}"


@dataclass(slots=True)
class Decoded:
    """What `decode_rows` did."""

    written: int = 0
    existing: int = 0
    seconds: float = 0.0
    """Seconds of sound in the files that were written."""

    def __add__(self, other: Decoded) -> Decoded:
        return Decoded(self.written + other.written, self.existing + other.existing, self.seconds + other.seconds)


def comment_of(record: RunRecord) -> str:
    """What besides the codes decides the sound: the name and the weights of the model."""
    return f"{record.model.label}, weights {record.model.weights_sha256[:16]}"


def decode_rows(
    rows: Iterator[Row],
    files: SoundFiles,
    load: Callable[[], Codec],
    advance: Callable[[int], None] = lambda done: None,
) -> Decoded:
    """Write a file for each row: short rows are decoded in batches, long ones in pieces. Finished files are kept.

    `load` is called for the decoder when the first row has to be decoded. `advance` is called with the number of rows
    that are done. Files are looked for and written in threads of their own.
    """
    decoded = Decoded()
    for row, written in in_order(lambda write: write(), _writes(rows, files, load), THREADS):
        decoded.written += written
        decoded.existing += not written
        decoded.seconds += written * row.num_samples / row.sample_rate
        advance(decoded.written + decoded.existing)
    return decoded


_Write: TypeAlias = "Callable[[], tuple[Row, bool]]"
"""Writes the file of a row, if it is not there. Gives the row, and whether it was written."""


def _same(done: tuple[Row, bool]) -> tuple[Row, bool]:
    return done


def _writes(rows: Iterator[Row], files: SoundFiles, load: Callable[[], Codec]) -> Iterator[_Write]:
    """Decodes in the thread that asks for the next."""
    codec: Codec | None = None
    batcher: Batcher[Row] = Batcher(MAX_FRAMES)

    def write(row: Row, pieces: Iterator[np.ndarray], channels: int) -> tuple[Row, bool]:
        files.write(row, pieces, channels)
        return row, True

    def of_batch(codec: Codec) -> Iterator[_Write]:
        batch = batcher.take()
        for row, waveform in zip(batch, decode_batch(batch, codec), strict=True):
            yield partial(write, row, iter([waveform]), codec.description.channels)

    for row, finished in in_order(lambda row: (row, files.finished(row)), rows, THREADS):
        if finished:
            yield partial(_same, (row, False))
            continue
        codec = codec or load()
        if num_frames(row.codes) > MAX_FRAMES:
            done = write(row, decode_in_pieces(row, codec), codec.description.channels)
            yield partial(_same, done)
            continue
        batcher.add(row, num_frames(row.codes))
        while batcher.full:
            yield from of_batch(codec)
    while codec is not None and batcher.frames:
        yield from of_batch(codec)
