"""Provenance: what decides the rows is in the fingerprint, what does not is not, and differences are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pipeline.codecs import Codebook, CodecDescription, precision_of
from pipeline.codecs.registry import family_named
from pipeline.config import Config, parse_config
from pipeline.dataset.opening import open_output
from pipeline.dataset.provenance import ModelInfo, RunRecord, describe_model, record_run, software_versions

MODEL = ModelInfo(
    name="org/model",
    revision="abc",
    weights_sha256="0" * 64,
    config_hash="1" * 16,
    codec=CodecDescription(
        family="moss", sample_rate=24_000, channels=1, codebooks=(Codebook(1024, 1920),) * 32, streams=True
    ),
)


def model_with(**changes: Any) -> ModelInfo:
    return replace(MODEL, codec=replace(MODEL.codec, **changes))


RECORD = RunRecord(
    run_version=1,
    model=MODEL,
    dtype="float32",
    num_quantizers=32,
    codes_schema="codes.v1",
    prepare={"min_seconds": 0.0, "max_seconds": 60.0},
    input={"splits": {"train": ["a.wav"]}, "clips_per_shard": 10},
    versions={"torch": "2.11"},
)


def config_of(**sections: Any) -> Config:
    return parse_config(
        {"input": {"splits": {"train": ["a.wav"]}}, "output": {"uri": "out"}, "model": {"name": "cat-tiny"}} | sections
    )


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"model": replace(MODEL, weights_sha256="2" * 64)}, "model.weights_sha256"),
        ({"model": replace(MODEL, config_hash="3")}, "model.config_hash"),
        ({"model": model_with(sample_rate=48_000)}, "model.sample_rate"),
        ({"model": model_with(channels=2)}, "model.channels"),
        ({"model": model_with(codebooks=(Codebook(1024, 3840),) * 32)}, "model.samples_per_frame"),
        ({"model": model_with(codebooks=(Codebook(2048, 1920),) * 32)}, "model.codebook_size"),
        ({"dtype": "bfloat16"}, "model.dtype"),
        ({"num_quantizers": 8}, "model.num_quantizers"),
        ({"codes_schema": "codes.v2"}, "schema"),
        ({"waveform_version": 2}, "waveform_version"),
        ({"prepare": {"min_seconds": 1.0, "max_seconds": 60.0}}, "prepare.min_seconds"),
        ({"prepare": {"min_seconds": 0.0, "max_seconds": 60.0, "loudness": -23.0}}, "prepare.loudness"),
    ],
)
def test_what_decides_the_rows_changes_the_fingerprint_and_is_named(change: dict[str, Any], key: str) -> None:
    other = replace(RECORD, **change)
    assert other.fingerprint != RECORD.fingerprint
    (difference,) = other.differences(RECORD)
    assert difference.startswith(f"{key}: the output has ")
    assert ", this run " in difference


@pytest.mark.parametrize(
    "change",
    [
        {"model": replace(MODEL, name="/local/copy", revision=None)},
        {"versions": {"torch": "2.12"}},
        {"prepare": {"max_seconds": 60.0, "min_seconds": 0.0}},
    ],
)
def test_where_the_weights_lie_and_what_ran_them_do_not_part_outputs(change: dict[str, Any]) -> None:
    other = replace(RECORD, **change)
    assert other.fingerprint == RECORD.fingerprint
    assert other.differences(RECORD) == []


def test_another_input_cannot_go_on_with_an_output_though_its_rows_would_be_alike() -> None:
    other = replace(RECORD, input={"splits": {"train": ["b.wav"]}, "clips_per_shard": 10})
    assert other.fingerprint == RECORD.fingerprint
    assert other.differences(RECORD) == [
        "input.splits: the output has {'train': ['a.wav']}, this run {'train': ['b.wav']}"
    ]


def test_every_difference_is_named() -> None:
    other = replace(RECORD, dtype="bfloat16", num_quantizers=8)
    assert [line.partition(":")[0] for line in other.differences(RECORD)] == ["model.dtype", "model.num_quantizers"]


def test_the_fingerprint_is_the_same_for_ever() -> None:
    """A change of this literal refuses to go on with every output that is half done."""
    assert RECORD.fingerprint == "a463b281e5922be3"


def test_a_record_is_read_back_as_it_was_and_differs_in_nothing() -> None:
    record = record_run(config_of())
    back = RunRecord.from_json(record.to_json())
    assert back == record
    assert back.differences(record) == []
    assert back.fingerprint == record.fingerprint
    assert back.to_json() == record.to_json() == record_run(config_of()).to_json()


def test_a_record_of_inputs_whose_names_are_not_utf8_is_read_back() -> None:
    record = replace(RECORD, input={"splits": {"train": ["/audio/latin-\udce9/ü.wav"]}})
    assert RunRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"model": {}}', b'{"model": 3}', b"\xff", b"null"])
def test_what_is_no_record_says_so(data: bytes) -> None:
    with pytest.raises(ValueError, match="not the record of a run of version 1"):
        RunRecord.from_json(data)


def test_the_footer_holds_what_a_stranger_needs_to_decode() -> None:
    metadata = RECORD.file_metadata()
    assert all(key.startswith("moss_tok.") and isinstance(value, str) for key, value in metadata.items())
    assert metadata["moss_tok.model"] == "org/model"
    assert metadata["moss_tok.samples_per_frame"] == "1920"
    assert metadata["moss_tok.fingerprint"] == RECORD.fingerprint
    assert json.loads(metadata["moss_tok.prepare"]) == RECORD.prepare
    assert replace(RECORD, model=replace(MODEL, revision=None)).file_metadata()["moss_tok.model_revision"] == ""


def test_the_embedded_model_is_described_without_being_built() -> None:
    model = describe_model("cat-tiny", None)
    assert (model.sample_rate, model.channels, model.samples_per_frame) == (24_000, 1, 1920)
    assert (model.num_quantizers, model.codebook_size) == (32, 1024)
    assert len(model.weights_sha256) == 64
    assert model == describe_model("cat-tiny", None)


def test_a_copy_of_a_model_under_another_name_has_the_same_fingerprint(tmp_path: Path) -> None:
    source = Path(__file__).parents[3] / "moss_tok" / "models" / "cat-tiny"
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in source.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert record_run(config_of(model={"name": str(copy)})).fingerprint == record_run(config_of()).fingerprint


def test_batching_cluster_and_output_are_no_part_of_the_record() -> None:
    other = config_of(batch={"max_frames": 100}, cluster={"actors": 3}, output={"uri": "elsewhere"})
    assert record_run(other) == record_run(config_of())


def test_the_limits_of_a_run_can_change_and_the_level_cannot() -> None:
    assert record_run(config_of(run={"stall_seconds": 5.0, "max_attempts": 1})) == record_run(config_of())
    louder = record_run(config_of(prepare={"loudness": {}}))
    assert [line.partition(":")[0] for line in louder.differences(record_run(config_of()))] == ["prepare.loudness"]
    assert RunRecord.from_json(louder.to_json()).fingerprint == louder.fingerprint


def test_more_layers_than_the_model_has_are_refused() -> None:
    assert record_run(config_of(model={"name": "cat-tiny", "num_quantizers": 8})).num_quantizers == 8
    with pytest.raises(ValueError, match=r"model\.num_quantizers: 33, but cat-tiny has 32"):
        record_run(config_of(model={"name": "cat-tiny", "num_quantizers": 33}))


def test_versions_name_what_decodes_encodes_and_writes() -> None:
    versions = software_versions()
    assert {"moss-tok", "torch", "soundfile", "av", "pyarrow", "python"} <= versions.keys()
    assert all(versions.values())


def test_precision_is_bfloat16_on_a_gpu_unless_it_is_said():
    document = {"input": {"splits": {"train": ["a"]}}, "output": {"uri": "o"}, "model": {"name": "cat-tiny"}}
    auto = parse_config(document)
    said = parse_config({**document, "model": {"name": "cat-tiny", "dtype": "float32"}})
    assert [record_run(auto, on_gpu).dtype for on_gpu in (False, True)] == ["float32", "bfloat16"]
    assert record_run(said, on_gpu=True).dtype == "float32"
    assert precision_of(family_named("dac"), "auto", on_gpu=True) == "float32", "it runs in nothing else"


def test_an_output_keeps_the_precision_that_it_was_begun_in(tmp_path):
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", np.zeros(24_000), 24_000)
    config = parse_config(
        {
            "input": {"splits": {"train": [str(tmp_path / "in")]}},
            "output": {"uri": str(tmp_path / "out")},
            "model": {"name": "cat-tiny"},
        }
    )
    assert open_output(config, lambda config: True).record.dtype == "bfloat16"
    assert open_output(config, lambda config: False).record.dtype == "bfloat16"
