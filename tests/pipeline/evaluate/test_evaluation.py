"""Whole evaluations: every clip once, the same after a kill, the codes of an output, and pages that need nothing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.main import main
from pipeline.config import ClusterConfig, parse_config
from pipeline.dataset.opening import with_absolute_uris
from pipeline.distributed.map_tasks import map_on_ray
from pipeline.evaluate.config import EvaluateConfig, load_evaluate_config
from pipeline.evaluate.evaluation import Task, in_this_process, measure_task, open_evaluation, run_evaluation
from pipeline.evaluate.publish import publish_results
from pipeline.evaluate.table import percent
from pipeline.yaml_config import ConfigError
from tests.pipeline.conftest import Tokenized
from tests.support import tokenize_in_process

METRICS = ("mel", "stft", "si_sdr", "stoi")


def configuration(folder: Path, output: Path, **evaluate: Any) -> EvaluateConfig:
    given: dict[str, Any] = {
        "input": {"splits": {"test": [str(folder)]}, "clips_per_shard": 2, "format": "files"},
        "models": [{"name": "cat-tiny"}],
        "evaluate": {"uri": str(output), "metrics": list(METRICS), "num_quantizers": [1, 32], **evaluate},
    }
    return load_evaluate_config(None, [], given)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, wav: Callable[..., bytes]) -> Path:
    """Six files: tones, one of them silent, one of a tenth of a second, one that is no sound."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(3):
        (folder / f"tone{number}.wav").write_bytes(wav(1.0, amplitude=0.2 + 0.1 * number))
    (folder / "silence.wav").write_bytes(wav(1.0, amplitude=0.0))
    (folder / "tenth.wav").write_bytes(wav(0.1))
    (folder / "zz.wav").write_bytes(b"this is no sound")
    return folder


@pytest.fixture(scope="module")
def whole(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished evaluation."""
    output = tmp_path_factory.mktemp("evaluation") / "results"
    evaluation = open_evaluation(configuration(clips, output), "cpu")
    publish_results(evaluation, run_evaluation(evaluation, in_this_process, lambda done, total: None))
    return output


def tokenize(source: Path, output: Path) -> None:
    document = {"input": {"splits": {"train": [str(source)]}}, "output": {"uri": str(output)}}
    tokenize_in_process(with_absolute_uris(parse_config(document | {"model": {"name": "cat-tiny"}})))


def data_of(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("data/*.parquet"))}


@pytest.mark.slow
def test_every_clip_is_there_with_values_or_a_reason(whole: Path):
    rows = ds.dataset(whole / "data").to_table().to_pylist()
    assert {Path(row["key"]).name for row in rows} == {
        *("tone0.wav", "tone1.wav", "tone2.wav", "silence.wav", "tenth.wav", "zz.wav")
    }
    for row in rows:
        reasons = json.loads(row["undefined"])
        if row["key"].endswith("zz.wav"):
            assert row["reject_reason"] == "not_audio"
            continue
        assert row["reject_reason"] is None
        assert {name for name in METRICS if row[name] is None} == reasons.keys()
        if row["key"].endswith("silence.wav"):
            assert reasons == {"si_sdr": "silent", "stoi": "silent"}
        if row["key"].endswith("tenth.wav"):
            assert reasons == {"stoi": "too_short"}


def test_a_clip_has_a_row_for_each_number_of_quantizers(whole: Path):
    rows = ds.dataset(whole / "data").to_table().to_pylist()
    counts = sorted(row["num_quantizers"] for row in rows if row["key"].endswith("tone0.wav"))
    assert counts == [1, 32]
    rates = {row["num_quantizers"]: row["bits_per_second"] for row in rows if row["subject"]}
    assert rates == {1: 125.0, 32: 4000.0}


def test_an_evaluation_that_was_killed_goes_on_to_the_same_bytes(clips: Path, tmp_path: Path, whole: Path):
    def killed_after_one(function: Callable[[Task], str], tasks: Sequence[Task]) -> Any:
        yield function(tasks[0])
        raise KeyboardInterrupt

    evaluation = open_evaluation(configuration(clips, tmp_path / "results"), "cpu")
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(evaluation, killed_after_one, lambda done, total: None)
    assert len(data_of(tmp_path / "results")) == 1
    again = open_evaluation(configuration(clips, tmp_path / "results"), "cpu")
    seen: list[tuple[int, int]] = []
    publish_results(again, run_evaluation(again, in_this_process, lambda done, total: seen.append((done, total))))
    assert seen[0] == (1, 3)
    assert data_of(tmp_path / "results") == data_of(whole)
    for name in ("results.json", "table.md"):
        assert (tmp_path / "results" / name).read_bytes() == (whole / name).read_bytes()


def test_a_shard_that_is_measured_twice_is_there_once(clips: Path, tmp_path: Path):
    evaluation = open_evaluation(configuration(clips, tmp_path / "results"), "cpu")
    task = Task(evaluation.specs[0], evaluation.work, evaluation.root)
    assert measure_task(task) == measure_task(task)
    assert len(data_of(tmp_path / "results")) == 1


def test_other_settings_in_the_same_folder_are_refused(clips: Path, whole: Path):
    with pytest.raises(ConfigError, match=r"other settings \(metrics\)"):
        open_evaluation(configuration(clips, whole, metrics=["mel"]), "cpu")


@pytest.mark.slow
def test_the_codes_of_an_output_are_compared_with_its_sources(tokenized: Tokenized, tmp_path: Path):
    given = {
        "dataset": str(tokenized.output),
        "evaluate": {"uri": str(tmp_path / "results"), "metrics": ["mel"], "num_quantizers": [1], "max_clips": 3},
    }
    evaluation = open_evaluation(load_evaluate_config(None, [], given), "cpu")
    summary = run_evaluation(evaluation, in_this_process, lambda done, total: None)
    (point,) = summary.points
    assert point.subject == "cat-tiny (float32 codes)"
    rows = ds.dataset(tmp_path / "results" / "data").to_table().to_pylist()
    assert len({row["id"] for row in rows}) == len(rows) > 0


@pytest.mark.slow
def test_two_precisions_stand_side_by_side(clips: Path, tmp_path: Path):
    given = {
        "input": {"splits": {"test": [str(clips / "tone*.wav")]}, "format": "files"},
        "models": [{"name": "cat-tiny"}, {"name": "cat-tiny", "dtype": "bfloat16"}],
        "evaluate": {"uri": str(tmp_path), "metrics": ["mel"], "num_quantizers": [8]},
    }
    evaluation = open_evaluation(load_evaluate_config(None, [], given), "cpu")
    summary = run_evaluation(evaluation, in_this_process, lambda done, total: None)
    assert [point.subject for point in summary.points] == ["cat-tiny", "cat-tiny (bfloat16)"]
    (difference,) = summary.differences
    assert difference.estimate.clips == 3
    assert np.isfinite(difference.estimate.mean)
    (agreement,) = summary.agreements
    assert (agreement.subject, agreement.reference, agreement.clips) == ("cat-tiny (bfloat16)", "cat-tiny", 3)
    assert len(agreement.layers) == 8
    assert 0.5 < agreement.layers[0] <= 1
    (sound,) = agreement.sounds
    assert 0 < sound.equal_frames <= min(agreement.layers) < 1
    assert sound.mel is not None
    assert sound.mel.mean > 0
    assert "bfloat16" in " ".join(summary.machines["cat-tiny (bfloat16)"])
    text = publish_results(evaluation, summary)
    assert f"| 8 | {percent(agreement.layers[7])} |" in text
    assert json.loads((tmp_path / "results.json").read_text())["summary"]["agreements"][0]["layers"] == agreement.layers
    assert "Equal codes in each layer" in (tmp_path / "index.html").read_text()


@pytest.mark.slow
def test_an_output_is_compared_with_what_this_machine_makes_and_with_another_output(
    tokenized: Tokenized, tmp_path: Path
):
    other = tmp_path / "other"
    shutil.copytree(tokenized.output, other)
    given = {
        "dataset": [str(tokenized.output), str(other)],
        "models": [{"name": "cat-tiny"}],
        "evaluate": {"uri": str(tmp_path / "results"), "metrics": ["mel"], "num_quantizers": [1, 32], "max_clips": 2},
    }
    evaluation = open_evaluation(load_evaluate_config(None, [], given), "cpu")
    summary = run_evaluation(evaluation, in_this_process, lambda done, total: None)
    first = f"cat-tiny (float32 codes of {tokenized.output})"
    assert [(found.subject, found.reference) for found in summary.agreements] == [
        (f"cat-tiny (float32 codes of {other})", first),
        ("cat-tiny", first),
    ]
    for found in summary.agreements:
        assert found.layers == [1.0] * 32
        assert [sound.num_quantizers for sound in found.sounds] == [1, 32]
        assert all(sound.equal_sounds == found.clips > 0 for sound in found.sounds)
    assert all("CPU" in kind for kinds in summary.machines.values() for kind in kinds)


def test_outputs_of_other_sources_are_refused(tokenized: Tokenized, clips: Path, tmp_path: Path):
    tokenize(clips, tmp_path / "other")
    given = {
        "dataset": [str(tokenized.output), str(tmp_path / "other")],
        "evaluate": {"uri": str(tmp_path / "results"), "metrics": ["mel"]},
    }
    with pytest.raises(ConfigError, match="is made of other sources"):
        open_evaluation(load_evaluate_config(None, [], given), "cpu")


def test_a_clip_that_an_output_has_no_codes_of_is_a_reject(clips: Path, wav: Callable[..., bytes], tmp_path: Path):
    """One was missing when the output was made, another has another length now."""
    for name in ("tone0.wav", "tone1.wav"):
        shutil.copy(clips / name, tmp_path / name)
    listed = "".join(json.dumps({"audio": f"tone{number}.wav"}) + "\n" for number in range(3))
    (tmp_path / "list.jsonl").write_text(listed)
    tokenize(tmp_path / "list.jsonl", tmp_path / "codes")
    (tmp_path / "tone1.wav").write_bytes(wav(0.5))
    shutil.copy(clips / "tone2.wav", tmp_path / "tone2.wav")
    given = {
        "dataset": str(tmp_path / "codes"),
        "evaluate": {"uri": str(tmp_path / "results"), "metrics": ["mel"], "num_quantizers": [1]},
    }
    evaluation = open_evaluation(load_evaluate_config(None, [], given), "cpu")
    summary = run_evaluation(evaluation, in_this_process, lambda done, total: None)
    assert summary.rejects == {"no_codes": 2}
    assert summary.points[0].estimates["mel"].clips == 1


def test_a_command_that_could_measure_no_clip_has_failed(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["evaluate", str(clips / "zz.wav"), "--model", "cat-tiny", "-o", str(tmp_path), "--metrics", "mel"]
    assert main(arguments) == ExitStatus.FAILED
    assert "no clip could be measured: not_audio 1" in capsys.readouterr().err


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(clips: Path, tmp_path: Path, whole: Path):
    evaluation = open_evaluation(configuration(clips, tmp_path / "results"), "cpu")

    def on_ray(function: Callable[[Task], str], tasks: Sequence[Task]) -> Any:
        return map_on_ray(function, tasks, ClusterConfig(), gpu=False)

    run_evaluation(evaluation, on_ray, lambda done, total: None)
    assert data_of(tmp_path / "results") == data_of(whole)


def test_the_page_is_one_document_without_scripts_and_links(whole: Path):
    page = (whole / "index.html").read_text()
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert page.count("<audio") == 6  # of the three worst clips, the reference and what was decoded


def test_the_published_rows_stand_beside_ours(clips: Path, tmp_path: Path):
    evaluation = open_evaluation(configuration(clips, tmp_path, published="audioset", metrics=["mel"]), "cpu")
    table = publish_results(evaluation, run_evaluation(evaluation, in_this_process, lambda done, total: None))
    assert "| MOSS Audio Tokenizer (published) | 4,000 | 12.5 | 32 | 0.68 |" in table
    assert "| cat-tiny | 4,000 | 12.5 | 32 |" in table


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluate": {"uri": "x", "metrics": ["pesk"]}}, "no metric 'pesk'"),
        ({"evaluate": {"uri": "x", "metrics": ["sim"]}}, "needs speakers.model"),
        ({"evaluate": {"uri": "x", "metrics": ["wer"]}}, "need recognizer.model"),
        ({"dataset": "out/demo"}, "give either input"),
        ({"models": []}, "name at least one codec"),
    ],
)
def test_settings_that_cannot_be_used_say_why(changes: dict[str, Any], message: str):
    given = {
        "input": {"splits": {"test": ["a"]}},
        "models": [{"name": "cat-tiny"}],
        "evaluate": {"uri": "x", "metrics": ["mel"]},
    }
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_evaluate_config(None, [], given | changes)
