"""Several codecs in one pass: each output has the bytes of a run with its codec alone, whatever happened on the way."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Config, parse_config
from pipeline.dataset.dataset import read_output
from pipeline.dataset.layout import Layout
from pipeline.dataset.opening import OutputMismatch, open_output, open_outputs, with_absolute_uris
from pipeline.items import Clip
from pipeline.monitoring.status import Observer
from pipeline.shard import in_process
from pipeline.steps.encode import Encoder
from pipeline.verify import verify
from tests.kills.sitecustomize import Point, arm
from tests.support import CORPUS, DEADLINE_SECONDS, FORKSERVER, data_files, rows, run_command, tokenize_in_process

Folder = Callable[[str], Path]
pytestmark = pytest.mark.slow  # whole runs

CODECS = ("moss", "mimi", "encodec")
"""The first two take the same waveforms, but the second no long ones; the third takes stereo at another rate."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards: a clip and a reject, then a clip, another reject and one more clip."""
    folder = tmp_path_factory.mktemp("sources")
    names = ("librivox/0880.wav", "broken/nan.wav", "sounds/elec_plip.wav", "librivox/0930.wav")
    for number, name in enumerate(names):
        shutil.copyfile(CORPUS / "folder" / name, folder / f"{number}.wav")
    return folder


@pytest.fixture(scope="module")
def document(sources: Path, model_folder: Folder) -> Callable[[Path], dict[str, Any]]:
    def make(output: Path) -> dict[str, Any]:
        return {
            "input": {"splits": {"train": [str(sources)]}, "clips_per_shard": 2},
            "output": {"uri": str(output)},
            "models": [
                {"name": "cat-tiny", "folder": "moss", "device": "cpu"},
                {"name": str(model_folder("mimi")), "num_quantizers": 3, "max_seconds": 3.0, "device": "cpu"},
                {"name": str(model_folder("encodec_48k")), "folder": "encodec", "device": "cpu"},
            ],
            "batch": {"max_frames": 512},
            "cluster": {"actors": 1},
        }

    return make


@pytest.fixture(scope="module")
def config(document: Callable[[Path], dict[str, Any]]) -> Callable[[Path], Config]:
    return lambda output: with_absolute_uris(parse_config(document(output)))


@pytest.fixture(scope="module")
def alone(config: Callable[[Path], Config], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of a run with each codec alone, by the name of its folder."""
    root = tmp_path_factory.mktemp("alone")
    for each in config(root).of_each_model():
        tokenize_in_process(each)
    return {codec: data_files(root / codec) for codec in CODECS}


def files(root: Path) -> dict[str, dict[str, bytes]]:
    return {codec: data_files(root / codec) for codec in CODECS}


def tokenize_and_die(config: Config, point: Point) -> None:
    """The whole of a process that is to be killed."""
    arm(point)
    tokenize_in_process(config)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets the codec's name with every clip that is encoded."""
    names: list[str] = []
    launch = Encoder.launch

    def recording(encoder: Encoder, clips: Sequence[Clip]) -> Any:
        names.extend([encoder._codec.description.family] * len(clips))
        return launch(encoder, clips)

    monkeypatch.setattr(Encoder, "launch", recording)
    return names


def test_each_output_is_that_of_its_codec_alone_and_they_join_by_id(
    config: Callable[[Path], Config], alone: dict[str, dict[str, bytes]], tmp_path: Path
):
    tokenize_in_process(config(tmp_path))
    assert files(tmp_path) == alone
    for codec in CODECS:
        assert (tmp_path / codec / "_SUCCESS").exists()
    found = {codec: {row["id"] for row in rows(tmp_path / codec)} for codec in CODECS}
    assert found["moss"] == found["encodec"] > found["mimi"]
    (too_long,) = {row["id"] for row in rows(tmp_path / "mimi", "rejects") if row["reason"] == "too_long"}
    assert found["moss"] - found["mimi"] == {too_long}


def test_after_a_kill_between_the_commits_of_two_codecs_only_the_missing_ones_are_made(
    config: Callable[[Path], Config], alone: dict[str, dict[str, bytes]], encoded: list[str], tmp_path: Path
):
    """Of the first shard one codec has its manifest, the next its data without one, and the last nothing."""
    point = Point("pipeline.dataset.commit", "commit", 2, "before", mark=str(tmp_path / "mark"))
    process = FORKSERVER.Process(target=tokenize_and_die, args=(config(tmp_path / "codes"), point))
    process.start()
    process.join(DEADLINE_SECONDS)
    assert process.exitcode == -signal.SIGKILL, "this commit was never reached"
    assert [len(read_output(str(tmp_path / "codes" / codec)).done) for codec in CODECS] == [1, 0, 0]
    assert len(data_files(tmp_path / "codes" / "mimi")) > 0
    tokenize_in_process(config(tmp_path / "codes"))
    assert files(tmp_path / "codes") == alone
    assert [encoded.count(codec) for codec in CODECS] == [2, 2, 3], "one clip of the first codec was committed"


def test_a_shard_that_one_output_has_lost_is_made_again_for_that_one_alone(
    config: Callable[[Path], Config], alone: dict[str, dict[str, bytes]], encoded: list[str], tmp_path: Path
):
    tokenize_in_process(config(tmp_path))
    output = read_output(str(tmp_path / "mimi"))
    lost, layout = output.specs[0], Layout(output.layout.root)
    for uri in (layout.data(lost), layout.rejects(lost), layout.manifest(lost.shard_id), layout.success):
        Path(uri).unlink(missing_ok=True)
    encoded.clear()
    tokenize_in_process(config(tmp_path))
    assert set(encoded) == {"mimi"}
    assert files(tmp_path) == alone


def test_a_codec_that_fails_keeps_no_other_from_committing_and_they_are_left_out_when_it_is_tried_again(
    config: Callable[[Path], Config],
    alone: dict[str, dict[str, bytes]],
    encoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    launch = Encoder.launch

    def broken(encoder: Encoder, clips: Sequence[Clip]) -> Any:
        if encoder._codec.description.family == "moss":
            raise RuntimeError("this codec is broken")
        return launch(encoder, clips)

    outputs = open_outputs(config(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "launch", broken)
        with pytest.raises(RuntimeError, match="this codec is broken"):
            in_process.tokenize_in_process(config(tmp_path), outputs)
    assert [len(read_output(str(tmp_path / codec)).done) for codec in CODECS] == [0, 1, 1]
    encoded.clear()
    in_process.tokenize_in_process(config(tmp_path), outputs)  # which know of no commit
    assert files(tmp_path) == alone
    assert (encoded.count("moss"), encoded.count("encodec")) == (3, 2)


def test_the_input_is_listed_once_and_a_codec_that_is_added_gets_the_plan_that_is_there(
    config: Callable[[Path], Config], sources: Path, tmp_path: Path
):
    grown = tmp_path / "sources"
    shutil.copytree(sources, grown)
    both = config(tmp_path / "codes")
    inputs = both.input.model_copy(update={"splits": {"train": (str(grown),)}})
    both = both.model_copy(update={"input": inputs})
    first = open_output(both.of_each_model()[0])
    shutil.copyfile(sources / "0.wav", grown / "9.wav")
    tokenize_in_process(both)
    for codec in CODECS:
        assert read_output(str(tmp_path / "codes" / codec)).specs == first.specs


def test_outputs_of_different_plans_are_refused_and_so_is_a_folder_that_is_an_output(
    config: Callable[[Path], Config], sources: Path, tmp_path: Path
):
    grown = tmp_path / "sources"
    shutil.copytree(sources, grown)
    both = config(tmp_path / "codes")
    both = both.model_copy(update={"input": both.input.model_copy(update={"splits": {"train": (str(grown),)}})})
    first, second, _ = both.of_each_model()
    open_output(first)
    shutil.copyfile(sources / "0.wav", grown / "9.wav")
    open_output(second)
    with pytest.raises(OutputMismatch, match="have different shards"):
        tokenize_in_process(both)
    inside = first.output.model_copy(update={"uri": first.output.uri})
    with pytest.raises(OutputMismatch, match="is the dataset of one codec"):
        tokenize_in_process(both.model_copy(update={"output": inside}))


def test_a_run_with_ray_gives_the_same_and_each_output_is_one_like_any_other(
    document: Callable[[Path], dict[str, Any]],
    alone: dict[str, dict[str, bytes]],
    cluster_for_all: Mapping[str, str],
    tmp_path: Path,
):
    path = tmp_path / "several.yaml"
    path.write_text(yaml.safe_dump(document(tmp_path / "codes")))
    result = run_command("tokenize", str(path), "cluster.actors=1", environment=cluster_for_all)
    assert result.returncode == 0, result.stderr
    assert files(tmp_path / "codes") == alone
    for codec in CODECS:
        output = str(tmp_path / "codes" / codec)
        status = Observer(output).look()
        assert status.complete
        assert [run.state for run in status.runs] == ["done"]
        assert verify(output, sample=None).wrong == 0
