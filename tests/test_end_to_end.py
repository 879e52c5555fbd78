"""The whole journey on real audio, with a real Ray: each clip a row or a reject, the same bytes however it went."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from moss_tok import MossAudioTokenizerModel
from moss_tok.audio import REASONS
from pipeline.config import Config, load_config
from pipeline.encode import load_encoder
from pipeline.output import open_output, read_output, with_absolute_uris
from pipeline.read import SourceChanged, read_shard
from pipeline.reasons import PREPARE_REASONS, READ_REASONS
from pipeline.shard import tokenize_shard
from tests.support import CORPUS, data_files, rows, run_command, start_command

CONFIG = "configs/demo.yaml"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo corpus, tokenized by the command with two actors."""
    output = tmp_path_factory.mktemp("demo") / "codes"
    result = run_command("tokenize", CONFIG, f"output.uri={output}", "cluster.actors=2", "input.clips_per_shard=10")
    assert result.returncode == 0, result.stderr
    assert str(output) in result.stdout
    assert 'load_dataset("' in result.stdout
    assert "untrained" in result.stdout
    assert "shards" in result.stderr, "a run without a terminal prints its progress as lines"
    return output


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same dataset, made in this process without Ray, one shard after the other and in batches of another size."""
    output = tmp_path_factory.mktemp("oracle") / "codes"
    config = demo_config(output, "input.clips_per_shard=10", "batch.max_frames=200")
    tokenize_in_process(config)
    return output


def demo_config(output: Path, *overrides: str) -> Config:
    return with_absolute_uris(load_config(CONFIG, [f"output.uri={output}", *overrides]))


def tokenize_in_process(config: Config) -> None:
    output = open_output(config)
    encoder = load_encoder(config.model, output.record.num_quantizers, config.batch.max_frames)
    for spec in output.todo:
        tokenize_shard(spec, encoder, config, output.record)
    output.finish()


def test_every_clip_is_a_row_or_a_reject_and_none_is_there_twice(demo: Path, inventory: list[dict[str, Any]]):
    def place(source: str, key: str) -> tuple[str, str]:
        packing = Path(source).relative_to(CORPUS).parts[0]
        return packing, key

    expected = Counter((entry["packing"], entry["key"], entry["expected"]) for entry in inventory)
    found = Counter((*place(row["source"], row["key"]), "row") for row in rows(demo))
    found += Counter((*place(row["source"], row["key"]), "reject") for row in rows(demo, "rejects"))
    assert found == expected


def test_rejects_have_a_reason_of_the_closed_list_and_say_what_is_wrong(demo: Path):
    known = {**READ_REASONS, **PREPARE_REASONS, **REASONS}
    for reject in rows(demo, "rejects"):
        assert reject["reason"] in known
        assert reject["reason"] != "crashed"
        assert len(reject["message"]) > 10


def test_two_actors_write_the_bytes_that_one_process_writes(demo: Path, oracle: Path):
    distributed, plain = data_files(demo), data_files(oracle)
    assert len(plain) > 8
    assert distributed == plain


def test_text_and_metadata_follow_their_clips(demo: Path, inventory: list[dict[str, Any]]):
    with_text = {entry["key"] for entry in inventory if entry["has_text"] and entry["expected"] == "row"}
    assert {row["key"] for row in rows(demo) if row["text"]} == with_text
    russian = next(row for row in rows(demo) if json.loads(row["metadata"]).get("language") == "ru")
    assert any("CYRILLIC" in unicodedata.name(letter) for letter in russian["text"])
    labelled = [row for row in rows(demo) if "labels" in json.loads(row["metadata"])]
    assert labelled


def test_datasets_loads_the_output_in_one_line(demo: Path, inventory: list[dict[str, Any]], tmp_path: Path):
    dataset = datasets.load_dataset(str(demo), split="train", cache_dir=str(tmp_path))
    assert len(dataset) == sum(entry["expected"] == "row" for entry in inventory)
    assert dataset.features["codes_31"] == datasets.List(datasets.Value("int16"))
    lengths = {len(dataset[0][f"codes_{layer:02d}"]) for layer in range(32)}
    assert lengths == {dataset[0]["num_frames"]}


def test_a_row_decodes_to_exactly_its_samples(demo: Path):
    model = MossAudioTokenizerModel.from_pretrained("cat-tiny")
    for row in rows(demo)[:6]:
        codes = torch.tensor([row[f"codes_{layer:02d}"] for layer in range(32)])
        waveform = model.batch_decode([codes]).audio[0, :, : row["num_samples"]]
        assert waveform.shape == (1, row["num_samples"])
        assert row["num_frames"] == -(-row["num_samples"] // 1920)
        assert torch.isfinite(waveform).all()


def test_the_codes_of_a_row_are_those_of_its_clip_encoded_alone(demo: Path):
    model = MossAudioTokenizerModel.from_pretrained("cat-tiny")
    row = next(row for row in rows(demo) if row["source"].endswith("librivox/0870.wav"))
    waveform, rate = soundfile.read(row["source"], dtype="float32")
    assert rate == 16000
    from moss_tok.audio import resample

    alone = model.encode(torch.from_numpy(resample(waveform[None], rate, 24000))[None]).audio_codes[:, 0]
    written = np.array([row[f"codes_{layer:02d}"] for layer in range(32)])
    assert np.array_equal(alone.numpy(), written)
    assert all(len(np.unique(layer)) > 10 for layer in written), "codes that hardly vary could not show a difference"


def test_the_command_decode_writes_sound_of_the_clips_length(demo: Path, tmp_path: Path):
    row = rows(demo)[0]
    sound = tmp_path / "a.wav"
    result = run_command("decode", str(demo), "--id", row["id"], "--num-quantizers", "8", "-o", str(sound))
    assert result.returncode == 0, result.stderr
    info = soundfile.info(sound)
    assert (info.frames, info.samplerate) == (row["num_samples"], 24000)


def test_decode_says_why_a_rejected_clip_has_no_sound(demo: Path, tmp_path: Path):
    reject = rows(demo, "rejects")[0]
    result = run_command("decode", str(demo), "--id", reject["id"], "-o", str(tmp_path / "a.wav"))
    assert result.returncode == 2
    assert reject["message"] in result.stderr


def test_status_tells_how_far_an_output_is(demo: Path, inventory: list[dict[str, Any]]):
    result = run_command("status", str(demo), "--json")
    figures = json.loads(result.stdout)
    assert figures["complete"]
    assert figures["shards_committed"] == figures["shards_planned"]
    assert figures["clips"] + figures["rejects"] == len(inventory)
    assert run_command("status", str(demo.parent)).returncode == 2


def test_the_same_command_again_reads_no_audio_and_changes_nothing(oracle: Path, tmp_path: Path):
    """Resume goes by manifests: with the committed sources gone, only the shard that was undone is read again."""
    corpus, output = tmp_path / "corpus", tmp_path / "codes"
    shutil.copytree(CORPUS / "webdataset", corpus)
    arguments = ["tokenize", CONFIG, f"input.splits.train=['{corpus}/*.tar']", f"output.uri={output}"]
    assert run_command(*arguments).returncode == 0
    before = data_files(output)
    first, second = read_output(str(output)).specs
    os.unlink(first.uri)
    os.unlink(output / "_moss_tok" / "shards" / f"{second.shard_id}.json")
    os.unlink(output / "data" / "train" / f"{second.shard_id}.parquet")
    again = run_command(*arguments)
    assert again.returncode == 0, again.stderr
    assert data_files(output) == before


def test_another_precision_into_the_same_output_is_refused_by_name(demo: Path):
    same = ["tokenize", CONFIG, f"output.uri={demo}", "input.clips_per_shard=10"]
    result = run_command(*same, "model.dtype=bfloat16", "prepare.max_seconds=20")
    assert result.returncode == 2
    assert "model.dtype: the output has 'float32', this run 'bfloat16'" in result.stderr
    assert "prepare.max_seconds" in result.stderr


def test_a_folder_with_other_files_is_not_written_into(tmp_path: Path):
    (tmp_path / "README.md").write_text("mine")
    result = run_command("tokenize", CONFIG, f"output.uri={tmp_path}")
    assert result.returncode == 2
    assert "holds other files" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_shard_that_cannot_be_read_fails_and_the_others_are_committed(tmp_path: Path):
    import pyarrow as pa

    wrong = tmp_path / "wrong.parquet"
    pq.write_table(pa.table({"sound": ["not audio"]}), wrong)
    sources = f"['{CORPUS}/parquet/*.parquet', '{wrong}']"
    arguments = ["tokenize", CONFIG, f"input.splits.train={sources}", f"output.uri={tmp_path / 'codes'}"]
    result = run_command(*arguments, "cluster.max_attempts=2")
    assert result.returncode == 1
    assert "no column audio among sound" in result.stderr
    assert "try 1 of 2" in result.stderr
    assert not (tmp_path / "codes" / "_SUCCESS").exists()
    assert "**Incomplete:**" in (tmp_path / "codes" / "README.md").read_text()
    assert rows(tmp_path / "codes")


def many_shards(output: Path) -> list[str]:
    return ["tokenize", CONFIG, f"output.uri={output}", "input.clips_per_shard=2", "cluster.actors=1"]


def start_and_wait_for_commits(output: Path, count: int) -> subprocess.Popen[str]:
    process = start_command(*many_shards(output), start_new_session=True)
    wait_for(lambda: len(list((output / "_moss_tok" / "shards").glob("*.json"))) >= count or process.poll() is not None)
    assert process.poll() is None, process.communicate()[1]
    return process


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run in many small shards that nothing happened to."""
    output = tmp_path_factory.mktemp("clean") / "codes"
    tokenize_in_process(demo_config(output, "input.clips_per_shard=2"))
    return data_files(output)


def test_a_killed_run_goes_on_to_the_bytes_of_a_clean_one(clean: dict[str, bytes], tmp_path: Path):
    output = tmp_path / "codes"
    process = start_and_wait_for_commits(output, count=3)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    committed = {path.name for path in (output / "_moss_tok" / "shards").glob("*.json")}
    assert not (output / "_SUCCESS").exists()
    resumed = run_command(*many_shards(output))
    assert resumed.returncode == 0, resumed.stderr
    assert data_files(output) == clean
    assert len(committed) < len(read_output(str(output)).specs), "the run was over before it was killed"


@pytest.mark.parametrize("worker", ["ray::TokenizerActor", "ray::_prepare"])
def test_a_run_outlives_the_death_of_its_workers(clean: dict[str, bytes], tmp_path: Path, worker: str):
    output = tmp_path / "codes"
    process = start_and_wait_for_commits(output, count=1)
    killed = kill_workers(process.pid, worker)
    _, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    assert killed
    assert "failed, try 1 of 3" in complaint
    assert data_files(output) == clean


def kill_workers(driver: int, title: str) -> list[int]:
    """SIGKILL the Ray workers of this driver that are at the named work; waits for the first to appear."""
    killed: list[int] = []

    def found_one() -> bool:
        for process in psutil.Process(driver).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.cmdline()[:1] and process.cmdline()[0].startswith(title):
                    process.kill()
                    killed.append(process.pid)
        return bool(killed)

    wait_for(found_one)
    return killed


def test_two_jobs_on_one_output_make_it_once(clean: dict[str, bytes], tmp_path: Path):
    output = tmp_path / "codes"
    jobs = [start_command(*many_shards(output)) for _ in range(2)]
    complaints = [job.communicate(timeout=300)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], complaints
    assert data_files(output) == clean


def test_a_file_that_was_replaced_since_the_plan_fails_its_shard(tmp_path: Path):
    corpus = tmp_path / "corpus"
    shutil.copytree(CORPUS / "folder" / "librivox", corpus)
    config = demo_config(tmp_path / "codes", f"input.splits.train=['{corpus}']")
    opened = open_output(config)
    shutil.copyfile(corpus / "0870.wav", corpus / "0880.wav")
    with pytest.raises(SourceChanged, match=r"0870\.wav to .*a file changed since it was planned"):
        list(read_shard(opened.specs[0], config.input))


def test_an_input_that_changed_since_the_plan_fails_its_shard(tmp_path: Path):
    corpus, output = tmp_path / "corpus", tmp_path / "codes"
    shutil.copytree(CORPUS / "webdataset", corpus)
    config = demo_config(output, f"input.splits.train=['{corpus}/*.tar']")
    opened = open_output(config)
    first, second = opened.specs
    with open(first.uri, "ab") as tar:
        tar.write(bytes(512))
    encoder = load_encoder(config.model, opened.record.num_quantizers, config.batch.max_frames)
    with pytest.raises(SourceChanged, match="changed since it was planned"):
        tokenize_shard(first, encoder, config, opened.record)
    assert tokenize_shard(second, encoder, config, opened.record).rows > 0
    assert not (output / "data" / "train" / f"{first.shard_id}.parquet").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_within_seconds_and_says_how_to_go_on(
    clean: dict[str, bytes], tmp_path: Path, number: signal.Signals
):
    output = tmp_path / "codes"
    process = start_and_wait_for_commits(output, count=1)
    interrupted = time.monotonic()
    os.kill(process.pid, number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - interrupted < 20
    assert "to go on: moss-tok tokenize" in complaint
    assert "Traceback" not in complaint
    resumed = run_command(*many_shards(output))
    assert resumed.returncode == 0, resumed.stderr
    assert data_files(output) == clean


def test_the_command_encode_makes_a_dataset_without_ray(tmp_path: Path):
    clips = [str(CORPUS / "folder" / "librivox" / name) for name in ("0870.wav", "0880.wav")]
    result = run_command("encode", *clips, "-o", str(tmp_path / "codes"), "--model", "cat-tiny")
    assert result.returncode == 0, result.stderr
    assert sorted(row["key"] for row in rows(tmp_path / "codes")) == ["0870.wav", "0880.wav"]


def test_plan_estimates_what_the_run_then_makes(demo: Path):
    result = run_command("plan", CONFIG)
    assert result.returncode == 0, result.stderr
    hours = float(next(line for line in result.stdout.splitlines() if "hours" in line).split()[-1])
    made = sum(row["duration"] for row in rows(demo)) / 3600
    assert made * 0.6 < hours < made * 1.7


def test_a_hub_that_cannot_be_reached_gets_both_remedies(tmp_path: Path):
    result = run_command("tokenize", CONFIG, f"output.uri={tmp_path / 'codes'}", "model.name=OpenMOSS-Team/No-Such")
    assert result.returncode == 2
    assert "local folder" in result.stderr
    assert "cat-tiny" in result.stderr


def test_the_command_agreement_prints_every_layer(tmp_path: Path):
    sound = next((CORPUS / "folder").rglob("librivox/*.wav"))
    result = run_command("agreement", str(sound), "--model", "cat-tiny", "--dtype", "bfloat16", "--num-quantizers", "8")
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"\d+\.\d{3} %", result.stdout)) == 8 + 2
    assert "STFT distance" in result.stdout
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    refused = run_command("agreement", str(tmp_path / "broken.wav"), "--model", "cat-tiny")
    assert refused.returncode == 2
    assert "broken.wav" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["tokenize", "nothing.yaml"], "nothing.yaml: cannot read"),
        (["tokenize", CONFIG, "model.dtypo=float32"], "model.dtypo: unknown key; allowed here: name, revision, dtype"),
        (["tokenize", CONFIG, "model.dtype=float16"], "model.dtype: Input should be 'float32' or 'bfloat16'"),
        (["tokenize", CONFIG, "model.num_quantizers=33"], "model.num_quantizers: 33, but cat-tiny has 32"),
        (["tokenize", CONFIG, "input.splits.train=[nowhere/*.wav]"], "nowhere/*.wav: nothing there"),
        (["plan", CONFIG, "dtype"], "an override is section.key=value"),
    ],
)
def test_bad_usage_ends_with_status_2_and_names_the_key(arguments: list[str], complaint: str, tmp_path: Path):
    result = run_command(*arguments, *([f"output.uri={tmp_path / 'o'}"] if arguments[-1] != "nothing.yaml" else []))
    assert result.returncode == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
