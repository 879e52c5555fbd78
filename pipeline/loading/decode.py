"""Decodes rows of an output to sound files that are exactly as long as the clips that were encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import soundfile
import torch

from moss_tok import MossAudioTokenizerModel, decode_stream
from pipeline import storage
from pipeline.dataset.provenance import RunRecord
from pipeline.loading.rows import Row
from pipeline.steps.batch import Batcher

FORMATS = ("wav", "flac")
MAX_FRAMES = 1024  # of a batch; a longer row is decoded in pieces of PIECE_FRAMES, whatever its length
PIECE_FRAMES = 256
WAV_BYTES = 2**32 - 2**16  # a WAV file counts its bytes in 32 bits: longer ones are RF64, which readers of WAV know


def load_decoder(record: RunRecord, name: str | None = None) -> MossAudioTokenizerModel:
    """The decoder of the model that made an output, from where the record says or from `name`, on the GPU if any.

    Raises ValueError where other weights are there now, and OSError or ValueError where none can be had.
    """
    revision = None if name else record.model.revision
    name = name or record.model.name
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = MossAudioTokenizerModel.from_pretrained(name, revision=revision, device=device, parts="decoder").eval()
    if model.weights_sha256 != record.model.weights_sha256:
        made_by = record.model.name
        raise ValueError(f"{name} has other weights than {made_by}, which made the output: pass that with --model")
    return model


def decode_row(row: Row, model: MossAudioTokenizerModel) -> np.ndarray:
    """float32 (channels, num_samples): exactly as long as the clip that was encoded."""
    return decode_batch([row], model)[0]


def decode_batch(rows: list[Row], model: MossAudioTokenizerModel) -> list[np.ndarray]:
    """Decode rows in one batch. The sound of a row does not depend on the others."""
    decoded = model.batch_decode([torch.from_numpy(row.codes.astype(np.int64)) for row in rows])
    audio = decoded.audio.float().cpu().numpy()
    return [np.ascontiguousarray(audio[number, :, : row.num_samples]) for number, row in enumerate(rows)]


def decode_in_pieces(row: Row, model: MossAudioTokenizerModel) -> Iterator[np.ndarray]:
    """Yield the sound of `decode_row` in pieces (channels, n). Memory does not grow with the length of the clip."""
    codes = torch.from_numpy(row.codes.astype(np.int64))
    left = row.num_samples
    for piece in decode_stream(model, torch.split(codes, PIECE_FRAMES, dim=1)):
        yield piece[:, :left].float().cpu().numpy()
        left -= min(left, piece.shape[1])


@dataclass(frozen=True, slots=True)
class SoundFiles:
    """The sound files of rows: one file per row in a folder, or a single file."""

    uri: str
    """The folder; with `single`, the file."""
    format: str
    """One of FORMATS."""
    single: bool
    made_by: str
    """What besides the row decides the sound, which is written into the file as its comment: see `comment_of`."""

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
        return found == (row.num_samples, row.sample_rate, self._comment(row))

    def write(self, row: Row, pieces: Iterator[np.ndarray], channels: int) -> None:
        """Write the sound with 16 bits per sample. The file appears when it is complete."""
        large = row.num_samples * channels * 2 > WAV_BYTES
        kind = "FLAC" if self.format == "flac" else "RF64" if large else "WAV"
        with (
            storage.published_file(self.uri_of(row)) as path,
            soundfile.SoundFile(path, "w", row.sample_rate, channels, "PCM_16", format=kind) as file,
        ):
            file.comment = self._comment(row)
            for piece in pieces:
                file.write(piece.T)

    def _comment(self, row: Row) -> str:
        return f"{row.clip_id}: {len(row.codes)} RVQ layers, {self.made_by}"


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
    load: Callable[[], MossAudioTokenizerModel],
    advance: Callable[[int], None] = lambda done: None,
) -> Decoded:
    """Write a file for each row: short rows are decoded in batches, long ones in pieces. Finished files are kept.

    `load` is called for the decoder when the first row has to be decoded. `advance` is called with the number of rows
    that are done.
    """
    decoded = Decoded()
    model: MossAudioTokenizerModel | None = None
    batcher: Batcher[Row] = Batcher(MAX_FRAMES)

    def write(row: Row, pieces: Iterator[np.ndarray], channels: int) -> None:
        files.write(row, pieces, channels)
        decoded.written += 1
        decoded.seconds += row.num_samples / row.sample_rate
        advance(decoded.written + decoded.existing)

    def write_batch(model: MossAudioTokenizerModel) -> None:
        batch = batcher.take()
        for row, waveform in zip(batch, decode_batch(batch, model), strict=True):
            write(row, iter([waveform]), model.number_channels)

    for row in rows:
        if files.finished(row):
            decoded.existing += 1
            advance(decoded.written + decoded.existing)
            continue
        model = model or load()
        if row.codes.shape[1] > MAX_FRAMES:
            write(row, decode_in_pieces(row, model), model.number_channels)
            continue
        batcher.add(row, row.codes.shape[1])
        while batcher.full:
            write_batch(model)
    while model is not None and batcher.frames:
        write_batch(model)
    return decoded
