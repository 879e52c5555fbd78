"""Back to sound: exact lengths, the same samples alone, in batches and in pieces, and no file made twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import soundfile

from moss_tok.outputs import DecoderOutput
from pipeline import storage
from pipeline.codecs import Codec, moss_codec
from pipeline.dataset.dataset import Output, read_output
from pipeline.loading import decode
from pipeline.loading.decode import SoundFiles, decode_row, decode_rows, load_decoder
from pipeline.loading.rows import Row, RowQuery, select_rows
from tests.pipeline.conftest import Tokenized


@pytest.fixture(scope="module")
def output(tokenized: Tokenized) -> Output:
    return read_output(str(tokenized.output))


@pytest.fixture(scope="module")
def model(output: Output) -> Codec:
    return load_decoder(output.record)


def some_rows(output: Output, num_quantizers: int | None = None) -> list[Row]:
    """Four rows of two shards."""
    return list(select_rows(output, RowQuery(stop=4), num_quantizers)[1])


def files_in(folder: Path | str, output: Output, kind: str = "wav") -> SoundFiles:
    return SoundFiles(str(folder), kind, False, output.record)


def never() -> NoReturn:
    raise AssertionError("a decoder was loaded")


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_each_row_is_a_file_of_its_clips_length(output: Output, model: Codec, tmp_path: Path, kind: str):
    rows = some_rows(output)
    decoded = decode_rows(iter(rows), files_in(tmp_path, output, kind), lambda: model)
    assert (decoded.written, decoded.existing) == (len(rows), 0)
    for row in rows:
        info = soundfile.info(tmp_path / f"{row.clip_id}.{kind}")
        assert (info.frames, info.samplerate, info.format) == (row.num_samples, row.sample_rate, kind.upper())
    assert decoded.seconds == pytest.approx(sum(row.num_samples for row in rows) / 24_000)
    assert len(list(tmp_path.iterdir())) == len(rows), "nothing half-written is left"


def test_rows_of_a_batch_sound_as_they_do_alone(output: Output, model: Codec, tmp_path: Path):
    rows = some_rows(output, 3)
    decode_rows(iter(rows), files_in(tmp_path, output), lambda: model)
    for row in rows:
        alone = decode_row(row, model)
        assert alone.shape == (1, row.num_samples)
        written, _ = soundfile.read(tmp_path / f"{row.clip_id}.wav", dtype="int16")
        soundfile.write(tmp_path / "alone.wav", alone.T, row.sample_rate)
        assert np.array_equal(written, soundfile.read(tmp_path / "alone.wav", dtype="int16")[0])


def test_a_long_row_is_decoded_in_pieces_to_the_same_samples(
    output: Output, model: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    row = max(some_rows(output), key=lambda row: row.num_samples)
    frames = 5 * row.codes.shape[1]
    row = replace(row, codes=np.tile(row.codes, 5), num_samples=frames * 1920 - 7)
    whole = decode_row(row, model)
    monkeypatch.setattr(moss_codec, "PIECE_FRAMES", 140)
    pieces = list(decode.decode_in_pieces(row, model))
    assert [piece.shape[1] for piece in pieces[:-1]] == [125 * 1920] * (frames // 125), "whole blocks of attention"
    assert np.array_equal(np.concatenate(pieces, axis=1), whole)
    monkeypatch.setattr(decode, "MAX_FRAMES", 10)
    monkeypatch.setattr(decode, "decode_batch", None)  # and nothing else is done to a long row
    decode_rows(iter([row]), files_in(tmp_path, output), lambda: model)
    assert soundfile.info(tmp_path / f"{row.clip_id}.wav").frames == row.num_samples


def test_fewer_layers_give_another_sound_of_the_same_length(output: Output, model: Codec):
    all_layers, one_layer = some_rows(output)[0], some_rows(output, 1)[0]
    assert len(one_layer.codes) == 1
    assert decode_row(one_layer, model).shape == decode_row(all_layers, model).shape
    assert not np.array_equal(decode_row(one_layer, model), decode_row(all_layers, model))


def test_finished_files_are_left_alone_and_loading_a_decoder_is_spared(output: Output, model: Codec, tmp_path: Path):
    rows, files = some_rows(output), files_in(tmp_path, output)
    decode_rows(iter(rows), files, lambda: model)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = decode_rows(iter(rows), files, never)
    assert (again.written, again.existing) == (0, len(rows))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_file_that_is_another_rows_or_of_other_layers_or_cut_is_made_again(
    output: Output, model: Codec, tmp_path: Path
):
    rows, files = some_rows(output), files_in(tmp_path, output)
    decode_rows(iter(rows), files, lambda: model)
    cut, other, empty = (tmp_path / f"{row.clip_id}.wav" for row in rows[:3])
    cut.write_bytes(cut.read_bytes()[:-2000])
    other.write_bytes((tmp_path / f"{rows[3].clip_id}.wav").read_bytes())
    empty.write_bytes(b"")
    assert decode_rows(iter(rows), files, lambda: model).written == 3
    fewer = decode_rows(iter(some_rows(output, 2)), files, lambda: model)
    assert (fewer.written, fewer.existing) == (len(rows), 0)


def test_an_interruption_leaves_no_half_file(output: Output, model: Codec, tmp_path: Path):
    row = some_rows(output)[0]
    files = files_in(tmp_path, output)

    def pieces() -> Iterator[np.ndarray]:
        yield np.zeros((1, 1000), np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write(row, pieces(), 1)
    assert list(tmp_path.iterdir()) == []
    assert not files.finished(row)


def test_sound_goes_to_a_store_as_to_a_folder(output: Output, model: Codec):
    row = some_rows(output)[0]
    files = files_in("memory://decoded/sounds", output, "flac")
    assert decode_rows(iter([row]), files, lambda: model).written == 1
    assert storage.list_names("memory://decoded/sounds") == {f"{row.clip_id}.flac"}
    assert decode_rows(iter([row]), files, never).existing == 1


def test_a_decoder_with_other_weights_is_refused(output: Output):
    with pytest.raises(ValueError, match="has other weights than cat-tiny"):
        load_decoder(output.record, str(Path(__file__).parents[2] / "golden" / "v1_tiny"))


def test_a_file_of_another_precision_is_made_again(output: Output, model: Codec, tmp_path: Path):
    rows, files = some_rows(output)[:1], files_in(tmp_path, output)
    decode_rows(iter(rows), files, lambda: model)
    assert not replace(files, dtype="bfloat16").finished(rows[0])
    assert files.finished(rows[0])


def test_no_clip_of_a_batch_is_padded_to_the_longest(output: Output, model: Codec, monkeypatch: pytest.MonkeyPatch):
    """One long clip beside many short ones would take as much memory as if all were long."""
    monkeypatch.setattr(DecoderOutput, "padded", None)
    rows = some_rows(output)
    assert [sound.shape[1] for sound in decode.decode_batch(rows, model)] == [row.num_samples for row in rows]
