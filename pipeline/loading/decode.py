"""Rows of an output back into sound, in files of exactly the length of the clips that were encoded."""

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
    """`decode_row` of each, together; the sound of a row does not depend on the others."""
    decoded = model.batch_decode([torch.from_numpy(row.codes.astype(np.int64)) for row in rows])
    audio = decoded.audio.float().cpu().numpy()
    return [np.ascontiguousarray(audio[number, :, : row.num_samples]) for number, row in enumerate(rows)]


def decode_in_pieces(row: Row, model: MossAudioTokenizerModel) -> Iterator[np.ndarray]:
    """`decode_row` as pieces (channels, n), end to end the same sound, in memory that does not grow with its length."""
    codes = torch.from_numpy(row.codes.astype(np.int64))
    left = row.num_samples
    for piece in decode_stream(model, torch.split(codes, PIECE_FRAMES, dim=1)):
        yield piece[:, :left].float().cpu().numpy()
        left -= min(left, piece.shape[1])


@dataclass(frozen=True, slots=True)
class SoundFiles:
    """Where the sound of each row goes: a folder, or one file."""

    uri: str
    """Folder, or the file if `single`."""
    format: str
    """One of FORMATS."""
    single: bool
    made_by: str
    """What besides the row decides the sound, which is written into the file as its comment: see `comment_of`."""

    def uri_of(self, row: Row) -> str:
        return self.uri if self.single else storage.join(self.uri, f"{row.clip_id}.{self.format}")

    def finished(self, row: Row) -> bool:
        """Whether the file is there, of this row, by this model and of as many layers."""
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
        """Write the sound, 16 bits a sample; the file appears when it is whole."""
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
    """What was done."""

    written: int = 0
    existing: int = 0
    seconds: float = 0.0
    """Of sound, in the files that were written."""


def comment_of(record: RunRecord) -> str:
    """What decides the sound besides the codes: the model's name and its weights."""
    return f"{record.model.label}, weights {record.model.weights_sha256[:16]}"


def decode_rows(
    rows: Iterator[Row],
    files: SoundFiles,
    load: Callable[[], MossAudioTokenizerModel],
    advance: Callable[[int], None] = lambda done: None,
) -> Decoded:
    """A file for each row, short rows in batches and long ones in pieces; files that are there are left alone.

    `load` gives the decoder once there is something to decode.
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
