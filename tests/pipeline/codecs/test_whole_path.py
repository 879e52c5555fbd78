"""Every family through the whole pipeline: tokenize, load, decode, verify, export, report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pipeline import storage
from pipeline.codecs import Coded, find_codec, load_codec
from pipeline.config import parse_config
from pipeline.dataset.dataset import Output, read_output
from pipeline.dataset.opening import open_output, with_absolute_uris
from pipeline.export.config import load_export_config
from pipeline.export.job import run_export
from pipeline.export.tokens.files import read_documents
from pipeline.items import as_matrix
from pipeline.loading import load_codes
from pipeline.loading.decode import SoundFiles, decode_rows, load_decoder
from pipeline.loading.rows import RowQuery, select_rows
from pipeline.report.gather import gather
from pipeline.report.page import render
from pipeline.verify import verify
from tests.pipeline.codecs.models import MODELS
from tests.support import rows, run_command, tokenize_in_process

Folder = Callable[[str], Path]
pytestmark = pytest.mark.slow  # each family through the whole pipeline

LENGTHS = (0.31, 0.5, 1.07)
"""Seconds of the clips: none is whole frames of every codec, and the last is more than a chunk."""


def sounds(folder: Path, rate: int, channels: int) -> dict[str, np.ndarray]:
    """Files of noise, and what is in each, float32 (channels, samples): at the codec's rate nothing is resampled."""
    folder.mkdir()
    random = np.random.default_rng(5)
    for number, seconds in enumerate(LENGTHS):
        samples = (3000 * random.standard_normal((round(seconds * rate), channels))).astype(np.int16)
        soundfile.write(folder / f"{number}.wav", samples, rate, "PCM_16")
    names = sorted(path.name for path in folder.iterdir())
    lines = [json.dumps({"audio_filepath": name, "text": f"clip {name}"}) for name in names]
    (folder / "list.jsonl").write_text("\n".join(lines))
    return {name: soundfile.read(folder / name, dtype="float32", always_2d=True)[0].T for name in names}


def document(model: Path, audio: Path, output: Path) -> dict[str, Any]:
    return {
        "input": {"splits": {"train": [str(audio)]}, "clips_per_shard": 2},
        "output": {"uri": str(output)},
        "model": {"name": str(model), "device": "cpu"},
        "batch": {"max_frames": 64},
    }


@pytest.fixture(scope="module")
def made(model_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Output, Any]]:
    """The output of a model by its name, and the sounds that went in; made once."""
    outputs: dict[str, tuple[Output, Any]] = {}

    def make(name: str) -> tuple[Output, Any]:
        if name not in outputs:
            root = tmp_path_factory.mktemp(name)
            description = find_codec(str(model_folder(name))).description
            clips = sounds(root / "audio", description.sample_rate, description.channels)
            config = parse_config(document(model_folder(name), root / "audio" / "list.jsonl", root / "codes"))
            tokenize_in_process(with_absolute_uris(config))
            outputs[name] = read_output(str(root / "codes")), clips
        return outputs[name]

    return make


Made = Callable[[str], tuple[Output, Any]]


@pytest.mark.parametrize("name", MODELS)
def test_rows_hold_the_codes_of_each_clip_alone(made: Made, model_folder: Folder, name: str):
    output, clips = made(name)
    codec = load_codec(find_codec(str(model_folder(name))), "cpu")
    found = rows(Path(output.layout.root))
    assert {row["key"] for row in found} == clips.keys()
    for row in found:
        waveform = clips[row["key"]]
        (alone,) = codec.launch([waveform], len(codec.description.codebooks)).result()
        assert row["num_samples"] == waveform.shape[1]
        assert row["num_frames"] == codec.description.frames(waveform.shape[1])
        for column, layer in zip(output.record.code_columns.names, alone.codes, strict=True):
            assert row[column] == layer.tolist()
        assert row.get("scales") == (None if alone.scales is None else alone.scales.tolist())


@pytest.mark.parametrize("name", MODELS)
def test_load_codes_gives_matrices_or_one_array_for_each_codebook(made: Made, tmp_path: Path, name: str):
    output, _ = made(name)
    stored = {row["id"]: row for row in rows(Path(output.layout.root))}
    names = output.record.code_columns.names
    for dataset in (
        load_codes(output.layout.root, num_quantizers=None, cache_dir=tmp_path),
        load_codes(output.layout.root, num_quantizers=None, streaming=True),
    ):
        count = 0
        for row in dataset:
            codes = row["codes"]
            assert isinstance(codes, np.ndarray) == output.record.model.codec.single_rate
            assert [layer.tolist() for layer in codes] == [stored[row["id"]][column] for column in names]
            assert codes[0].dtype == (np.int32 if output.record.model.codebook_size > 32_768 else np.int16)
            count += 1
        assert count == len(stored)
    usual = load_codes(output.layout.root, cache_dir=tmp_path)
    assert len(usual[0]["codes"]) == min(8, len(names))


@pytest.mark.parametrize("name", MODELS)
def test_rows_decode_to_exactly_the_length_of_their_clips(made: Made, tmp_path: Path, name: str):
    output, clips = made(name)
    _, selected = select_rows(output, RowQuery())
    files = SoundFiles(str(tmp_path), "wav", False, output.record)
    decoded = decode_rows(selected, files, lambda: load_decoder(output.record))
    assert decoded.written == len(clips)
    codec = output.record.model.codec
    for row in rows(Path(output.layout.root)):
        info = soundfile.info(tmp_path / f"{row['id']}.wav")
        assert (info.samplerate, info.channels) == (codec.output_rate, codec.channels)
        assert info.frames == -(-row["num_samples"] * codec.output_rate // codec.sample_rate)
    _, selected = select_rows(output, RowQuery())
    assert decode_rows(selected, files, lambda: pytest.fail("the files are there")).existing == len(clips)


@pytest.mark.parametrize("name", MODELS)
def test_verify_encodes_every_clip_again_and_finds_nothing(made: Made, name: str):
    output, clips = made(name)
    findings = verify(output.layout.root, sample=None)
    assert not findings.wrong, findings.as_json()
    assert findings.tallies["encoded again"].looked == len(clips)


@pytest.mark.parametrize("name", ["mimi", "xcodec2", "snac", "encodec_48k"])
def test_exports_are_readable(made: Made, tmp_path: Path, name: str):
    output, clips = made(name)
    _, selected = select_rows(output, RowQuery())
    codes = {row.clip_id: as_matrix(row.codes) for row in selected}
    for kind, more in (("nemo", []), ("tokens", ["tokens.template=['{audio}', 0]"])):
        given = {"dataset": {"uri": output.layout.root}, "export": {"to": kind, "uri": str(tmp_path / kind)}}
        run_export(load_export_config(None, more, given), lambda *_: None)
    documents = dict(read_documents(str(tmp_path / "tokens" / "train")))
    assert documents.keys() == codes.keys()
    for clip_id, matrix in codes.items():
        assert np.array_equal(documents[clip_id].codes, matrix)
    lines = [
        json.loads(line)
        for path in (tmp_path / "nemo").rglob("*.json*")
        for line in path.open()
        if "audio_codes" in line
    ]
    assert len(lines) == len(clips)
    for line in lines:
        assert np.array_equal(np.array(line["audio_codes"]).T, codes[line["id"]])


def test_snac_is_laid_out_for_orpheus(made: Made, tmp_path: Path):
    """Of each coarsest code: it, the first of the middle, two of the finest, the second of the middle, two more."""
    output, _ = made("snac")
    given = {"dataset": {"uri": output.layout.root}, "export": {"to": "tokens", "uri": str(tmp_path)}}
    run_export(load_export_config(None, ["tokens.template=['{audio}']"], given), lambda *_: None)
    import pyarrow.parquet as pq

    (sequence, *_) = [row for path in tmp_path.rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    row = next(row for row in rows(Path(output.layout.root)) if row["id"] == sequence["ids"][0])
    a, b, c = (row[f"codes_{layer:02d}"] for layer in range(3))
    expected = []
    for n in range(len(a)):
        expected += [a[n], 256 + b[2 * n], 512 + c[4 * n], 512 + c[4 * n + 1]]
        expected += [256 + b[2 * n + 1], 512 + c[4 * n + 2], 512 + c[4 * n + 3]]
    assert sequence["tokens"] == expected


@pytest.mark.parametrize("name", ["mimi", "snac", "neucodec", "encodec_48k"])
def test_the_report_and_the_card_follow_the_description(made: Made, name: str):
    output, _ = made(name)
    page = render(gather(output, 2, lambda: load_decoder(output.record))).decode()
    assert page.count("<audio") >= 4
    card = storage.read_bytes(output.layout.card).decode()
    assert f"| codec | {output.record.model.codec.family} |" in card
    assert "MossAudioTokenizer" not in card


def test_codecs_that_need_all_codebooks_are_neither_cut_nor_decoded_in_part(
    made: Made, model_folder: Folder, tmp_path: Path
):
    output, _ = made("snac")
    cut = document(model_folder("snac"), tmp_path / "in", tmp_path / "out")
    cut["model"]["num_quantizers"] = 2
    with pytest.raises(ValueError, match="decode all 3 together"):
        open_output(parse_config(cut))
    _, selected = select_rows(output, RowQuery(stop=1), 2)
    with pytest.raises(ValueError, match="decode all 3 together"):
        decode_rows(
            selected, SoundFiles(str(tmp_path), "wav", False, output.record), lambda: load_decoder(output.record)
        )


def test_a_clip_that_would_not_fit_memory_is_a_reject(made: Made, model_folder: Folder, tmp_path: Path):
    output, _ = made("dac")
    config = document(model_folder("dac"), Path(output.record.input["splits"]["train"][0]), tmp_path / "codes")
    config["model"]["max_seconds"] = 0.6
    tokenize_in_process(with_absolute_uris(parse_config(config)))
    (reject,) = rows(tmp_path / "codes", "rejects")
    assert (reject["key"], reject["reason"]) == ("2.wav", "too_long")
    assert not verify(str(tmp_path / "codes"), sample=None).wrong


def test_mimi_on_ray_makes_the_bytes_of_one_process(
    made: Made, model_folder: Folder, cluster_for_all: Mapping[str, str], tmp_path: Path
):
    output, _ = made("mimi")
    audio = output.record.input["splits"]["train"][0]
    config = tmp_path / "mimi.yaml"
    config.write_text(json.dumps(document(model_folder("mimi"), Path(audio), tmp_path / "codes")))
    result = run_command("tokenize", str(config), "cluster.actors=1", environment=cluster_for_all)
    assert result.returncode == 0, result.stderr
    for path in Path(output.layout.root).glob("data/**/*.parquet"):
        other = tmp_path / "codes" / path.relative_to(output.layout.root)
        assert other.read_bytes() == path.read_bytes()
    assert not verify(str(tmp_path / "codes"), sample=None).wrong


def test_codes_with_scales_cannot_be_written_without_them(made: Made):
    from pipeline.items import CodedClip
    from pipeline.steps.records import codes_table
    from tests.support import info_of

    output, _ = made("encodec_48k")
    bare = Coded(np.zeros((4, 3), np.int16))
    with pytest.raises(ValueError, match="scales"):
        codes_table("f00d", [CodedClip(info_of(0, 900), bare.codes)], output.record.code_columns, 48_000)
