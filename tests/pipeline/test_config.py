"""Configurations are typed, strict and frozen, and every fault names its key and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline.config import Config, ModelConfig, load_config, parse_config
from pipeline.yaml_config import ConfigError

SMALLEST = {"input": {"splits": {"train": "a.wav"}}, "output": {"uri": "out"}}


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def smallest_with(path: str, value: Any) -> dict[str, Any]:
    """The smallest configuration with one more key."""
    document = yaml.safe_load(yaml.safe_dump({"input": {"splits": {"train": ["a.wav"]}}, "output": {"uri": "out"}}))
    *sections, key = path.split(".")
    node = document
    for section in sections:
        node = node.setdefault(section, {})
    node[key] = value
    return document


def test_the_smallest_configuration_has_documented_defaults() -> None:
    config = parse_config(smallest_with("input.splits", {"train": ["a.wav"]}))
    assert config.input.splits == {"train": ("a.wav",)}
    assert (config.model.dtype, config.input.format, config.cluster.actors) == ("auto", "auto", "auto")


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("input.format", "zip", "'auto', 'files', 'list', 'webdataset', 'parquet', 'arrow' or 'librispeech'"),
        ("input.format", "manifest", "this format is called list"),
        ("input.clips_per_shard", 0, "greater than or equal to 1"),
        ("input.clips_per_shard", 1.5, "integer"),
        ("input.clips_per_shard", "20", "integer"),
        ("input.clips_per_shard", True, "integer"),
        ("input.max_clip_bytes", -1, "greater than or equal to 1"),
        ("input.text_column", 3, "string"),
        ("input.splits", {}, "at least 1"),
        ("input.splits.train", [], "at least one URI"),
        ("input.splits.train", [""], "none of them empty"),
        ("input.splits.train", [7], "string"),
        ("output.uri", "", "at least 1 character"),
        ("output.row_group_rows", 0, "greater than or equal to 1"),
        ("model.dtype", "float16", "'auto', 'float32' or 'bfloat16'"),
        ("model.device", "tpu", "'auto', 'cpu' or 'cuda'"),
        ("model.num_quantizers", 0, "greater than or equal to 1"),
        ("prepare.min_seconds", -0.5, "greater than or equal to 0"),
        ("prepare.max_seconds", 0, "greater than 0"),
        ("prepare.max_seconds", "1h", "number"),
        ("prepare.max_seconds", float("nan"), "finite number"),
        ("prepare.max_seconds", float("inf"), "finite number"),
        ("prepare.max_channels", None, "integer"),
        ("input.split_at_pauses", "often", "give true, false, or settings in braces"),
        ("signals.bandwidth", 1, "give true, false, or settings in braces"),
        ("signals.language", True, "give the model to hear it with: {model: small}"),
        ("signals.language", "small", "give the model to hear it with: {model: small}"),
        ("batch.max_frames", 0, "greater than or equal to 1"),
        ("cluster.actors", "many", "'auto'"),
        ("cluster.actors", 0, "greater than or equal to 1"),
        ("cluster.gpus_per_actor", 0, "greater than 0"),
        ("run.max_attempts", 0, "greater than or equal to 1"),
    ],
)
def test_a_bad_value_names_its_key_what_is_allowed_and_what_was_found(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(smallest_with(key, value), "run.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("run.yaml")
    fault = next(line.strip() for line in lines if line.strip().startswith(key) and allowed in line)
    assert repr(value) in fault or value is None or isinstance(value, list | dict)


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("modle", "input, output, model, models, prepare, signals, batch, cluster, run, card"),
        ("model.typo", "name, codec, revision, dtype, device, static_frames, compile, max_seconds"),
        ("batch.max_clips", "max_frames"),
    ],
)
def test_an_unknown_key_is_refused_with_the_keys_that_exist(key: str, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: unknown key; allowed here: {allowed}"):
        parse_config(smallest_with(key, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cluster.log_format", "run.log_format"),
        ("cluster.max_attempts", "run.max_attempts"),
        ("cluster.max_reject_fraction", "run.max_reject_fraction"),
        ("prepare.stall_seconds", "run.stall_seconds"),
    ],
)
def test_a_key_of_an_earlier_version_is_refused_with_its_new_name(old: str, new: str) -> None:
    with pytest.raises(ConfigError, match=rf"{old}: this key is now {new}$"):
        parse_config(smallest_with(old, 1))


@pytest.mark.parametrize("missing", ["input", "output", "input.splits", "output.uri"])
def test_a_missing_key_is_named(missing: str) -> None:
    document = smallest_with("model.name", "cat-tiny")
    *sections, key = missing.split(".")
    node = document
    for section in sections:
        node = node[section]
    del node[key]
    with pytest.raises(ConfigError, match=rf"{missing}: required and missing"):
        parse_config(document)


def test_every_fault_is_reported_at_once() -> None:
    document = smallest_with("model.dtype", "float16") | {"batch": {"max_frames": 0}, "extra": 1}
    with pytest.raises(ConfigError) as caught:
        parse_config(document)
    assert all(key in str(caught.value) for key in ("model.dtype", "batch.max_frames", "extra"))


@pytest.mark.parametrize("name", ["train", "test.clean", "validation_2"])
def test_split_names_that_datasets_accepts_are_accepted(name: str) -> None:
    assert list(parse_config(smallest_with("input.splits", {name: ["a.wav"]})).input.splits) == [name]


@pytest.mark.parametrize("name", ["test-clean", "a/b", "../up", "", ".hidden", "train\n"])
def test_split_names_that_datasets_refuses_are_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"input\.splits"):
        parse_config(smallest_with("input.splits", {name: ["a.wav"]}))


def test_one_uri_needs_no_list() -> None:
    assert parse_config(smallest_with("input.splits.train", "a.wav")).input.splits["train"] == ("a.wav",)


def test_a_configuration_is_frozen() -> None:
    config = parse_config(smallest_with("model.dtype", "float32"))
    with pytest.raises(ValidationError):
        config.model.dtype = "bfloat16"


def test_overrides_win_over_the_file_and_over_each_other_in_order(config_file: Callable[[str], Path]) -> None:
    path = config_file("input: {splits: {train: [a.wav]}}\noutput: {uri: out}\nmodel: {dtype: float32}\n")
    config = load_config(
        path,
        ["model.dtype=bfloat16", "cluster.actors=2", "input.splits.test=[b.wav]", "cluster.actors=3", "output.uri=a=b"],
    )
    assert config.model.dtype == "bfloat16"
    assert config.cluster.actors == 3
    assert config.input.splits == {"train": ("a.wav",), "test": ("b.wav",)}
    assert config.output.uri == "a=b"


def test_an_override_fills_a_section_that_the_file_leaves_empty(config_file: Callable[[str], Path]) -> None:
    path = config_file("input: {splits: {train: [a.wav]}}\noutput: {uri: out}\nmodel:\n")
    assert load_config(path, ["model.dtype=bfloat16"]).model.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.dtype", "section.key=value"),
        ("dtype=float32", "section.key=value"),
        ("model..dtype=float32", "section.key=value"),
        ("model.dtype=[", "not YAML"),
        ("output.uri.deeper=1", "uri holds 'out'"),
        ("model.dtpye=float32", "model.dtpye: unknown key"),
        ("batch.max_frames=many", "batch.max_frames"),
    ],
)
def test_a_bad_override_is_quoted_or_named(config_file: Callable[[str], Path], override: str, message: str) -> None:
    path = config_file("input: {splits: {train: [a.wav]}}\noutput: {uri: out}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected sections"),
        ("- a\n- b\n", "expected sections"),
        ("input: [", "not a YAML file"),
        ("input: &a [*b]\n", "not a YAML file"),
        ("!!python/object/apply:os.getcwd []\n", "not a YAML file"),
        ("[" * 5000, "not a YAML file"),
        ("model: 3\ninput: {splits: {train: a}}\noutput: {uri: o}\n", "model: "),
        ("1: 2\n", "1: Keys should be strings"),
        ("input:\n  splits: {train: a}\noutput: {uri: a}\noutput: {uri: b}\n", "the key 'output' is there twice"),
    ],
)
def test_a_file_that_is_no_configuration_says_so(config_file: Callable[[str], Path], text: str, message: str) -> None:
    path = config_file(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_a_binary_and_an_unreadable_file_are_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, message in [
        (tmp_path / "gone.yaml", "No such file"),
        (tmp_path, "Is a directory"),
        (binary, "not a YAML file"),
    ]:
        with pytest.raises(ConfigError, match=message) as caught:
            load_config(path)
        assert str(path) in str(caught.value)


def test_configurations_in_the_project_load(corpus: Path) -> None:
    paths = sorted((corpus.parents[1] / "configs").glob("*.yaml"))
    runs = [path for path in paths if not path.name.startswith(("export_", "evaluate_"))]
    assert len(runs) >= 6
    for path in runs:
        assert isinstance(load_config(path), Config)


def test_limits_that_no_clip_can_meet_are_refused() -> None:
    document = smallest_with("prepare.min_seconds", 10.0)
    document["prepare"]["max_seconds"] = 1.0
    with pytest.raises(ConfigError, match="prepare: min_seconds 10 is above max_seconds 1"):
        parse_config(document)


def test_each_of_several_models_has_a_configuration_and_a_folder_of_its_own() -> None:
    document = smallest_with("output.uri", "s3://bucket/codes/")
    models = ["kyutai/mimi", {"name": "/models/moss/", "num_quantizers": 8}, {"name": "kyutai/mimi", "folder": "few"}]
    config = parse_config(document | {"models": models})
    each = config.of_each_model()
    assert [one.output.uri for one in each] == [f"s3://bucket/codes/{folder}" for folder in ("mimi", "moss", "few")]
    assert [one.model for one in each] == [
        ModelConfig(name="kyutai/mimi"),
        ModelConfig(name="/models/moss/", num_quantizers=8),
        ModelConfig(name="kyutai/mimi"),
    ]
    assert all(one.of_each_model() == (one,) for one in each)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["a/mimi", "b/mimi"], "two datasets would be in the folder mimi"),
        (["a/b c"], "'b c' cannot be the name of a folder"),
        ([{"name": "a", "folder": "../up"}], "models.0.folder"),
        ([{"name": "a", "device": "cpu"}, "b"], "they need the same device"),
        ([{"name": "a", "dtype": "int4"}], "models.0.dtype"),
        ("a", "give a list of names of models"),
    ],
)
def test_models_that_do_not_go_together_are_refused(models: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_config(smallest_with("models", models))


def test_a_model_beside_models_is_refused_and_models_can_be_set_on_the_command_line(
    config_file: Callable[[str], Path],
) -> None:
    path = config_file("input: {splits: {train: [a.wav]}}\noutput: {uri: out}\n")
    assert [each.model.name for each in load_config(path, ["models=[a, b]"]).of_each_model()] == ["a", "b"]
    with pytest.raises(ConfigError, match="give one of them"):
        load_config(path, ["models=[a, b]", "model.dtype=bfloat16"])
