"""Which family a model is of, and what is said where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch

from moss_tok import MossAudioTokenizerModel
from pipeline.codecs import CodecError, find_codec, load_codec, registry
from pipeline.codecs.moss import FAMILY as MOSS
from pipeline.config import load_config
from tests.support import ROOT

Folder = Callable[[str], Path]


def changed(folder: Path, copy: Path, **values: object) -> str:
    """A copy of a model with other values in its config.json; None takes a key out."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text()) | values
    config = {key: value for key, value in config.items() if value is not None or key not in values}
    (copy / "config.json").write_text(json.dumps(config))
    return str(copy)


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("mimi", "mimi"),
        ("qwen3_tts", "qwen3_tts"),
        ("higgs", "higgs"),
        ("snac", "snac"),
        ("speechtokenizer", "speechtokenizer"),
    ],
)
def test_the_family_is_read_from_config_json(model_folder: Folder, model: str, family: str):
    assert find_codec(str(model_folder(model))).family.name == family


def test_moss_is_a_family_like_any_other():
    source = find_codec("cat-tiny")
    model = MossAudioTokenizerModel.from_pretrained("cat-tiny")
    codec = load_codec(source, "cpu")
    assert source.family is MOSS
    assert codec.description.streams
    assert not codec.description.trained
    assert len(codec.description.codebooks) == model.num_quantizers
    random = np.random.default_rng(0)
    clips = [(0.1 * random.standard_normal((1, n))).astype(np.float32) for n in (1, 24_000, 30_011)]
    coded = codec.launch(clips, 3).result()
    assert [np.shape(clip.codes) for clip in coded] == [(3, codec.description.frames(clip.shape[1])) for clip in clips]
    stream = codec.stream(3, 16)
    stream.step(clips[2])
    assert np.array_equal(stream.finish().codes, coded[2].codes)
    sounds = codec.decode(coded, [clip.shape[1] for clip in clips])
    assert [sound.shape for sound in sounds] == [clip.shape for clip in clips]


def test_a_model_type_that_nobody_knows_is_refused_with_what_to_do(model_folder: Folder, tmp_path: Path):
    name = changed(model_folder("mimi"), tmp_path / "model", model_type="sonic")
    with pytest.raises(CodecError, match=r"model_type 'sonic'.*model\.codec.*mimi"):
        find_codec(name)
    assert find_codec(name, family="mimi").description.family == "mimi"
    with pytest.raises(CodecError, match="no codec 'mimy' is installed"):
        find_codec(name, family="mimy")


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '"mimi"'])
def test_a_damaged_config_json_is_refused(tmp_path: Path, text: str):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CodecError, match=r"config\.json"):
        find_codec(str(tmp_path))


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("mimi", {"num_quantizers": "many"}),
        ("mimi", {"num_quantizers": 0}),
        ("snac", {"codebook_size": None}),
        ("snac", {"vq_strides": []}),
        ("dac", {"codebook_size": 0}),
        ("qwen3_tts", {"encoder_valid_num_quantizers": 5}),
        ("qwen3_tts", {"decoder_config": {}}),
    ],
)
def test_a_config_json_of_nonsense_is_refused(
    model_folder: Folder, tmp_path: Path, model: str, values: dict[str, object]
):
    with pytest.raises(CodecError, match=f"{model}|{model.title()}"):
        find_codec(changed(model_folder(model), tmp_path / "model", **values))


@pytest.mark.parametrize(("model", "key"), [("mimi", "codebook_size"), ("snac", "codebook_size")])
def test_weights_that_do_not_fit_are_refused(model_folder: Folder, tmp_path: Path, model: str, key: str):
    name = changed(model_folder(model), tmp_path / "model", **{key: 4})
    with pytest.raises(CodecError, match=r"do not fit its config\.json|cannot be loaded"):
        load_codec(find_codec(name), "cpu")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(CodecError):
        load_codec(find_codec(name), "cpu")


def test_precision_and_origin(model_folder: Folder, tmp_path: Path):
    source = find_codec(str(model_folder("mimi")))
    with pytest.raises(CodecError, match=r"model\.dtype: bfloat16"):
        load_codec(source, "cpu", dtype="bfloat16")
    moved = find_codec(changed(model_folder("mimi"), tmp_path / "moved", transformers_version="6.0", trained=False))
    assert moved.config_hash == source.config_hash, "where a model comes from decides no code"
    assert moved.checkpoint.weights_sha256 == source.checkpoint.weights_sha256
    assert not moved.description.trained
    other = find_codec(changed(model_folder("mimi"), tmp_path / "other", sliding_window=20))
    assert other.config_hash != source.config_hash


def test_a_gpu_without_flash_attention_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(CodecError, match=r"bfloat16 .* Tesla T4 is not: set model\.dtype=float32"):
        load_codec(find_codec("cat-tiny"), "cuda", "auto", parts="encoder")


def test_a_missing_library_is_a_message_that_says_what_to_install(
    model_folder: Folder, monkeypatch: pytest.MonkeyPatch
):
    import builtins

    load = builtins.__import__

    def without(name: str, *arguments: object) -> object:
        if name == "transformers":
            raise ImportError("No module named 'transformers'")
        return load(name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CodecError, match=r"pip install 'moss-tok\[codecs\]'"):
        find_codec(str(model_folder("mimi")))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mimi", "pipeline.codecs.mimi:FAMILY", "has one of that name itself"),
        ("other", "no.such.module:FAMILY", "cannot be loaded"),
        ("other", "pipeline.codecs.mimi:Mimi", "is no pipeline.codecs.Family"),
    ],
)
def test_an_entry_point_that_is_no_family_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, message: str
):
    """Where no family of ours knows a model. Our own models are found, whatever else is installed."""
    point = EntryPoint(name, value, registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert find_codec("cat-tiny").family is MOSS
    (tmp_path / "config.json").write_text('{"model_type": "unknown"}')
    with pytest.raises(CodecError, match=message):
        find_codec(str(tmp_path))


@pytest.mark.parametrize(
    ("family", "config", "rate", "size", "count", "samples_per_code"),
    [
        ("mimi", {}, 24_000, 2048, 32, 1920),
        ("encodec", {}, 24_000, 1024, 32, 320),
        ("dac", {"sampling_rate": 44_100, "downsampling_ratios": [2, 4, 8, 8]}, 44_100, 1024, 9, 512),
        ("xcodec2", {}, 16_000, 65_536, 1, 320),
        ("neucodec", {}, 16_000, 65_536, 1, 320),
        ("xcodec", {}, 16_000, 1024, 8, 320),
        ("wavtokenizer", {}, 24_000, 4096, 1, 600),
    ],
)
def test_the_libraries_own_defaults_are_the_published_sizes(
    family: str, config: dict[str, object], rate: int, size: int, count: int, samples_per_code: int
) -> None:
    description = registry.family_named(family).describe(config)
    assert description.sample_rate == rate
    assert {(book.size, book.samples_per_code) for book in description.codebooks} == {(size, samples_per_code)}
    assert len(description.codebooks) == count
    assert type(description).from_json(json.loads(json.dumps(description.to_json()))) == description


@pytest.mark.parametrize("name", ["mimi", "dac"])
def test_the_example_configurations_are_accepted(name: str) -> None:
    assert load_config(ROOT / "configs" / f"{name}.yaml").model.name.endswith(("/mimi", "/dac_44khz"))
