from __future__ import annotations

import functools
import json
import math
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from moss_tok import MossAudioTokenizerModel
from moss_tok.training import launch
from moss_tok.training.__main__ import main
from moss_tok.training.checkpoint import TrainingCheckpointError
from moss_tok.training.export import write_checkpoint
from moss_tok.training.group import Group
from moss_tok.training.launch import WorkerFailedError, default_processes, train
from moss_tok.training.loop import CHECKPOINT, CURVE, Run, Trainer
from tests.support import DEADLINE_SECONDS

pytestmark = pytest.mark.slow


def curve(run):
    return [json.loads(line) for line in (run / CURVE).read_text().splitlines()]


def test_a_run_goes_through_all_phases_and_exports_a_codec(data, recipe, tmp_path, capsys):
    run = Run(data, tmp_path / "run", validate_steps=4)
    train(recipe, run, processes=1)
    lines = curve(run.output)
    assert [line["step"] for line in lines] == [4, 8, 12]
    assert "noise_1" in lines[0]
    assert {"quantizers_1", "quantizers_8", "codes_used"} <= set(lines[1])
    assert "commitment" in lines[2]["train"]
    assert main(["export", str(run.output), str(tmp_path / "codec")]) == 0
    codec = MossAudioTokenizerModel.from_pretrained(tmp_path / "codec")
    assert codec.trained
    audio = codec.decode(codec.encode(torch.randn(1, 5000) * 0.1).audio_codes).audio
    assert torch.isfinite(audio).all()


def test_an_interrupted_run_ends_with_the_same_codec(data, recipe, tmp_path):
    train(recipe, Run(data, tmp_path / "whole"), processes=1)
    for steps in (4, 7, 10):  # cut in each phase
        train(replace(recipe, steps=steps, decay_steps=0), Run(data, tmp_path / "cut"), processes=1)
    train(recipe, Run(data, tmp_path / "cut"), processes=1)
    whole, cut = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        assert torch.allclose(value, cut[name], atol=1e-5, rtol=1e-3), name


def test_in_the_last_phase_codes_stand_and_the_decoder_learns(data, recipe, tmp_path):
    run = Run(data, tmp_path / "run")
    after = {}
    for steps in (10, 12):
        train(replace(recipe, steps=steps, decay_steps=0), run, processes=1)
        after[steps] = load_file(run.output / CHECKPOINT)
    stand = ("model.encoder.", "model.quantizer.input_proj.", "model.quantizer.codebooks", "model.quantizer.in_weight")
    for name, value in after[10].items():
        if name.startswith(stand):
            assert torch.equal(value, after[12][name]), name
        elif name.startswith("model.decoder.") and "input_proj" in name:
            assert not torch.equal(value, after[12][name]), name


def test_a_run_can_start_from_a_trained_codec(codec, data, recipe, tmp_path):
    write_checkpoint(tmp_path / "codec", codec, None, dtype=torch.float32)
    recipe = replace(recipe, start=str(tmp_path / "codec"), steps=0)
    train(recipe, Run(data, tmp_path / "run"), processes=1)
    started = load_file(tmp_path / "run" / CHECKPOINT)
    for name, value in codec.named_parameters():
        assert torch.allclose(started[f"average.{name}"], value, atol=1e-6), name
    assert started["model.quantizer.variance"].std() > 0
    other = replace(recipe, shape=replace(recipe.shape, rvq_dim=24))
    with pytest.raises(ValueError, match="of another shape"):
        train(other, Run(data, tmp_path / "other"), processes=1)


def test_sigterm_ends_it_after_the_step_that_it_is_in(data, recipe, tmp_path, monkeypatch, capsys):
    one_step, before = Trainer._one_step, signal.getsignal(signal.SIGTERM)

    def interrupted(self):
        if self.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return one_step(self)

    monkeypatch.setattr(Trainer, "_one_step", interrupted)
    file, run = tmp_path / "recipe.json", tmp_path / "run"
    file.write_text(recipe.to_json())
    assert main(["train", str(data), str(run), "--recipe-file", str(file), "--processes", "1"]) == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert load_file(run / CHECKPOINT)["step"] == 3
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_end_before_the_last_step_keeps_every_step(data, recipe, tmp_path, number):
    """By a signal to the first process alone, which must tell the others, or whose death they must notice."""
    file = tmp_path / "recipe.json"
    file.write_text(replace(recipe, steps=100_000, channel_steps=100_000, freeze_step=100_000).to_json())
    run = tmp_path / "run"
    command = [sys.executable, "-m", "moss_tok.training", "train", str(data), str(run), "--recipe-file", str(file)]
    in_background = functools.partial(signal.signal, signal.SIGINT, signal.SIG_IGN)  # as a shell does with `&`
    with subprocess.Popen(
        [*command, "--processes", "2"], stderr=subprocess.PIPE, text=True, preexec_fn=in_background
    ) as process:
        shown = ""
        while "log_mel" not in shown and (character := process.stderr.read(1)):
            shown += character
        process.send_signal(number)
        shown += process.communicate(timeout=DEADLINE_SECONDS)[1]  # to the end of the last process
    if number != signal.SIGKILL:
        assert process.returncode == 130, shown
        assert "interrupted; the same command goes on" in shown
    assert "Traceback" not in shown
    assert load_file(run / CHECKPOINT)["step"] > 0


def test_two_processes_learn_what_one_does(data, recipe, tmp_path):
    for name, steps, processes in (("start", 0, 1), ("one", 3, 1), ("two", 3, 2)):
        train(replace(recipe, steps=steps, decay_steps=0), Run(data, tmp_path / name), processes)
    start, one, two = (load_file(tmp_path / name / CHECKPOINT) for name in ("start", "one", "two"))
    for name in ("model.encoder.1.input_proj.weight", "model.decoder.6.output_proj.weight"):
        # Some losses are means of the batch's parts, so the ways are near, not equal.
        ways = [(after[name] - start[name]).flatten() for after in (one, two)]
        assert torch.cosine_similarity(*ways, dim=0) > 0.8, name


def test_a_failing_process_ends_the_others(data, recipe, tmp_path):
    (data / "sound.i16").write_bytes(b"")
    with pytest.raises(WorkerFailedError):
        train(recipe, Run(data, tmp_path / "run"), processes=2)


def test_a_damaged_checkpoint_is_named(data, recipe, tmp_path):
    run = Run(data, tmp_path / "run")
    train(replace(recipe, steps=1), run, processes=1)
    path = run.output / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TrainingCheckpointError, match=r"checkpoint\.safetensors is damaged"):
        train(recipe, run, processes=1)


def test_there_is_no_codec_before_the_quantizer_is_fitted(data, recipe, tmp_path, capsys):
    train(replace(recipe, steps=3), Run(data, tmp_path / "run"), processes=1)
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "codec")]) == 2
    assert "no quantizer before step 6" in capsys.readouterr().err


def test_the_encoder_learns_more_slowly_only_while_codebooks_follow_it(data, recipe, tmp_path):
    trainer = Trainer(replace(recipe, encoder_share=0.25), Run(data, tmp_path), Group())
    encoder, decoder = "encoder.1.input_proj.weight", "decoder.0.input_proj.weight"
    assert trainer._peak(encoder) == trainer._peak(decoder) == recipe.projection_rate
    trainer.step = recipe.channel_steps
    assert trainer._peak(encoder) == 0.25 * trainer._peak(decoder)


def test_a_batch_can_be_split_over_the_processes(monkeypatch):
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda _: set(range(4)))
    assert [default_processes("cpu", size) for size in (8, 6, 5, 3)] == [4, 3, 1, 3]
    assert default_processes("cuda", 8) == 1


@pytest.mark.parametrize(("command", "missing"), [("train", "no training data"), ("export", "no training run")])
def test_what_is_not_there_is_named(command, missing, tmp_path, capsys):
    assert main([command, str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert f"none: {missing}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_in_bfloat16_is_measured_in_single_precision(data, recipe, tmp_path):
    trainer = Trainer(recipe, Run(data, tmp_path, bfloat16=True), Group())
    trainer._start()
    assert trainer.codec.products == torch.bfloat16
    assert trainer._averaged().products == torch.float32
    with torch.no_grad():
        rounded, exact = (codec.encode(trainer.validation) for codec in (trainer.codec, trainer._averaged()))
    assert 0 < (rounded - exact).norm() < 0.01 * exact.norm()
    assert all(math.isfinite(value) for value in trainer._one_step().values())
