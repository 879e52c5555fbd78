"""Decodes rows of an output to sound files that are exactly as long as the clips that were encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import soundfile

from pipeline import storage
from pipeline.codecs import Codec, Coded, load_codec
from pipeline.dataset.provenance import RunRecord, source_of
from pipeline.items import Codes, num_frames
from pipeline.loading.rows import Row
from pipeline.steps.batch import Batcher
from pipeline.steps.encode import device_of

FORMATS = ("wav", "flac")
MAX_FRAMES = 1024  # of a batch; a longer row is decoded in pieces, if its codec can
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
        return f"{row.clip_id}: {len(row.codes)} RVQ layers, {comment_of(self.record)}"


@dataclass(slots=True)
class Decoded:
    """What `decode_rows` did."""

    written: int = 0
    existing: int = 0
    seconds: float = 0.0
    """Seconds of sound in the files that were written."""


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
    that are done.
    """
    decoded = Decoded()
    codec: Codec | None = None
    batcher: Batcher[Row] = Batcher(MAX_FRAMES)

    def write(row: Row, pieces: Iterator[np.ndarray], channels: int) -> None:
        files.write(row, pieces, channels)
        decoded.written += 1
        decoded.seconds += row.num_samples / row.sample_rate
        advance(decoded.written + decoded.existing)

    def write_batch(codec: Codec) -> None:
        batch = batcher.take()
        for row, waveform in zip(batch, decode_batch(batch, codec), strict=True):
            write(row, iter([waveform]), codec.description.channels)

    for row in rows:
        if files.finished(row):
            decoded.existing += 1
            advance(decoded.written + decoded.existing)
            continue
        codec = codec or load()
        if num_frames(row.codes) > MAX_FRAMES:
            write(row, decode_in_pieces(row, codec), codec.description.channels)
            continue
        batcher.add(row, num_frames(row.codes))
        while batcher.full:
            write_batch(codec)
    while codec is not None and batcher.frames:
        write_batch(codec)
    return decoded
