"""Weights are found, checked strictly, mapped rather than copied, and written back unchanged."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from moss_tok import (
    CheckpointError,
    HubUnreachableError,
    ModelNotFoundError,
    MossAudioTokenizerModel,
    UntrainedModelWarning,
    weights_sha256,
)


@pytest.fixture
def folder(tmp_path: Path, golden) -> Path:
    """A copy of a small codec's folder that a test may damage."""
    copy = tmp_path / "codec"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(golden.folder / name, copy / name)
    return copy


def rewrite(folder: Path, change) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(change(tensors), folder / "model.safetensors")


def test_saving_and_loading_gives_the_same_codec(golden, tmp_path):
    golden.model.save_pretrained(tmp_path / "saved")
    names = load_file(tmp_path / "saved" / "model.safetensors").keys()
    assert "encoder.1.transformer.layers.0.self_attn.in_projs.0.weight" in names
    again = MossAudioTokenizerModel.from_pretrained(tmp_path / "saved")
    ours, theirs = dict(golden.model.named_parameters()), dict(again.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    clip = golden.clips[1][None]
    assert torch.equal(again.encode(clip).encoder_hidden_states, golden.model.encode(clip).encoder_hidden_states)
    assert json.loads((tmp_path / "saved" / "config.json").read_text()) == golden.model.config.to_dict()


def test_saving_a_v1_checkpoint_keeps_every_tensor(v1_tiny, tmp_path):
    v1_tiny.model.save_pretrained(tmp_path)
    saved, original = load_file(tmp_path / "model.safetensors"), load_file(v1_tiny.folder / "model.safetensors")
    assert saved.keys() == original.keys()
    assert all(torch.equal(saved[name], original[name]) for name in saved)


def test_shards_and_older_weight_norm_names_load_alike(folder, golden):
    tensors = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    (folder / "model.safetensors").unlink()
    weight_map = {name: file for file, part in halves.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    model = MossAudioTokenizerModel.from_pretrained(folder)
    assert torch.equal(model.encode(golden.clips[1][None]).audio_codes[:, 0], golden.vectors["1.codes"].long())
    content = b"".join((folder / file).read_bytes() for file in sorted(halves))
    assert model.weights_sha256 == hashlib.sha256(content).hexdigest()


def test_parts_load_only_their_half(folder):
    """The decoder's weights may even be gone when only the encoder is asked for."""
    rewrite(folder, lambda tensors: {name: t for name, t in tensors.items() if not name.startswith("decoder.")})
    model = MossAudioTokenizerModel.from_pretrained(folder, parts="encoder")
    assert not any(name.startswith("decoder") for name, _ in model.named_parameters())
    with pytest.raises(CheckpointError, match=r"missing decoder\."):
        MossAudioTokenizerModel.from_pretrained(folder)


def test_weights_are_mapped_not_copied(v1_tiny):
    """A parameter that needs no conversion lies in memory where its file is mapped."""
    model = MossAudioTokenizerModel.from_pretrained(v1_tiny.folder)
    layer = next(iter(model.encoder.stages[0].transformer))
    address = layer.linear1.weight.data_ptr()
    mapped = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    bounds = [(*(int(bound, 16) for bound in line[0].split("-")), line[-1]) for line in mapped]
    assert [name for low, high, name in bounds if low <= address < high] == [
        str((v1_tiny.folder / "model.safetensors").resolve())
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if "layers.0.norm1.bias" not in k}, r"missing .*layers\.0\.norm1\.bias"),
        (lambda t: t | {"encoder.1.extra": torch.zeros(1)}, r"unexpected encoder\.1\.extra"),
        (lambda t: t | {"wte.weight": torch.zeros(1)}, r"unexpected wte\.weight"),
        (
            lambda t: t | {"quantizer.input_proj.bias": torch.zeros(7)},
            r"quantizer\.input_proj\.bias is \[7\], expected \[24\]",
        ),
        (lambda t: t | {"quantizer.input_proj.bias": torch.zeros(24, dtype=torch.int32)}, "not floating point"),
        (
            lambda t: {k: v for k, v in t.items() if "encoder.1.output_proj" not in k},
            r"missing encoder\.1\.output_proj",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message):
        MossAudioTokenizerModel.from_pretrained(folder)


def test_damaged_files_are_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        MossAudioTokenizerModel.from_pretrained(folder)
    path.unlink()
    with pytest.raises(ModelNotFoundError, match=r"neither model\.safetensors nor"):
        MossAudioTokenizerModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "no weight_map"),
        ('{"weight_map": []}', "no weight_map"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "not a .safetensors file beside it"),
        ('{"weight_map": {"a": "model.bin"}}', "not a .safetensors file beside it"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "missing, truncated"),
    ],
)
def test_a_lying_index_is_refused(folder, index, message):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=message):
        MossAudioTokenizerModel.from_pretrained(folder)


def test_names_that_are_no_codec(tmp_path):
    with pytest.raises(
        ModelNotFoundError, match=r"not an embedded codec \(cat-speech, cat-tiny\).*OpenMOSS-Team/MOSS-Audio-Tokenizer"
    ):
        MossAudioTokenizerModel.from_pretrained("cat-huge")
    with pytest.raises(ModelNotFoundError, match="not a folder"):
        MossAudioTokenizerModel.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ModelNotFoundError, match=r"holds no config\.json"):
        MossAudioTokenizerModel.from_pretrained(tmp_path)


def test_an_unreachable_hub_names_both_remedies(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("name resolution failed")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(HubUnreachableError) as error:
        MossAudioTokenizerModel.from_pretrained("OpenMOSS-Team/MOSS-Audio-Tokenizer")
    assert "local folder" in str(error.value)
    assert "'cat-speech' (small" in str(error.value)
    assert "name resolution failed" in str(error.value)


def test_a_hub_repo_is_loaded_at_its_commit(monkeypatch, tmp_path, v1_tiny):
    """The hub's client is given the revision and only weights and config; its snapshot folder is named by the
    commit.
    """
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(v1_tiny.folder, tmp_path / commit)
    asked = {}

    def snapshot_download(repo, *, revision, allow_patterns):
        asked.update(repo=repo, revision=revision, patterns=allow_patterns)
        return str(tmp_path / commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    model = MossAudioTokenizerModel.from_pretrained("someone/codec", revision="v1.0")
    assert asked == {
        "repo": "someone/codec",
        "revision": "v1.0",
        "patterns": ["*.safetensors", "config.json", "model.safetensors.index.json"],
    }
    assert model.revision == commit
    assert model.name_or_path == "someone/codec"


def test_the_hash_is_that_of_the_file(golden):
    expected = hashlib.sha256((golden.folder / "model.safetensors").read_bytes()).hexdigest()
    assert golden.model.weights_sha256 == expected
    assert weights_sha256(golden.folder) == expected
    assert golden.model.revision is None


def test_an_untrained_codec_says_so(v1_tiny):
    with pytest.warns(UntrainedModelWarning, match="cat-tiny is an untrained codec"):
        model = MossAudioTokenizerModel.from_pretrained("cat-tiny")
    assert not model.trained
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert MossAudioTokenizerModel.from_pretrained(v1_tiny.folder).trained
