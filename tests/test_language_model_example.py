"""The language model of the examples learns what can be learnt, and no code sees itself."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.read import random_output
from examples.train_language_model import (
    Shape,
    Training,
    bits_alone,
    delay,
    go_on,
    loss_of,
    main,
    undelay,
    validate,
)

SHAPE = Shape(num_quantizers=3, codebook_size=16, width=32, layers=2, heads=2, steps=24)


def counting(clips: int, frames: int = 40) -> list[torch.Tensor]:
    """Codes that count up from a random one: alone each says 4 bits, after another one nothing."""
    starts = torch.randint(16, (clips, 3, 1), generator=torch.Generator().manual_seed(0))
    return list((starts + torch.arange(frames)) % 16)


def training(folder: Path, clips: list[torch.Tensor]) -> Training:
    arguments = argparse.Namespace(seed=1, batch_size=8, learning_rate=3e-3, checkpoint=folder)
    return Training(SHAPE, clips, arguments)


def test_delay_puts_each_layer_a_step_later_and_is_undone():
    codes = torch.arange(12).view(3, 4)
    delayed = delay(codes, none=99)
    assert delayed.tolist() == [[0, 1, 2, 3, 99, 99], [99, 4, 5, 6, 7, 99], [99, 99, 8, 9, 10, 11]]
    assert torch.equal(undelay(delayed), codes)


@pytest.mark.slow
def test_it_learns_what_codes_alone_do_not_say(tmp_path):
    clips = counting(40)
    _, alone = bits_alone(clips[4:], clips[:4], 16)
    learner = training(tmp_path, clips[4:])
    before = validate(learner.model, clips[:4])
    for _ in range(200):
        learner.one_step()
    assert alone > 3.8
    assert before > 3.8
    assert validate(learner.model, clips[:4]) < 1.0
    added = go_on(learner.model, clips[0][:, :12], 8, seed=0, temperature=0.1)
    assert (added == clips[0][:, 12:20]).float().mean() > 0.5  # by chance 1 in 16


def test_codes_that_say_nothing_stay_at_their_entropy():
    noise = list(torch.randint(16, (200, 3, 40), generator=torch.Generator().manual_seed(3)))
    entropy, alone = bits_alone(noise[20:], noise[:20], 16)
    assert abs(entropy - 4) < 0.02
    assert abs(alone - 4) < 0.05


def test_no_code_is_predicted_from_itself_or_a_later_one(tmp_path):
    model = training(tmp_path, counting(2)).model
    codes = torch.randint(16, (1, 3, 20), generator=torch.Generator().manual_seed(0))
    changed = codes.clone()
    changed[..., 10:] = (changed[..., 10:] + 1) % 16
    with torch.no_grad():
        before, after = model(codes), model(changed)
    assert torch.equal(before[:, :, :10], after[:, :, :10])
    assert not torch.allclose(before[:, :, 10:], after[:, :, 10:])
    assert loss_of(model, codes) > 0


def test_a_resumed_training_is_that_of_an_uninterrupted_one(tmp_path):
    clips = counting(20)
    whole = training(tmp_path, clips)
    for _ in range(6):
        whole.one_step()
    stopped = training(tmp_path, clips)
    for _ in range(3):
        stopped.one_step()
    stopped.save()
    resumed = training(tmp_path, clips)
    resumed.resume()
    assert resumed.step == 3
    for _ in range(3):
        resumed.one_step()
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.slow
def test_the_script_trains_goes_on_and_writes_a_continuation(tmp_path, monkeypatch, capsys):
    output = random_output(tmp_path / "codes", 1, 24, 20)
    wav = tmp_path / "on.wav"
    common = ["train_language_model.py", str(output), "--checkpoint", str(tmp_path / "lm"), "--width", "32"]
    common += ["--num-quantizers", "4", "--layers", "1", "--seconds", "1", "--report-steps", "2", "--threads", "1"]
    for steps, more in (("2", []), ("4", ["--continuation", str(wav)])):
        monkeypatch.setattr(sys, "argv", [*common, "--steps", steps, *more])
        assert main() == 0
    said = capsys.readouterr().out
    assert "goes on from step 2" in said
    assert "step 4:" in said
    assert wav.stat().st_size > 2 * 24000 // 2


def test_a_dataset_of_one_clip_is_refused(tmp_path, monkeypatch, capsys):
    output = random_output(tmp_path / "codes", 1, 1, 20)
    monkeypatch.setattr(sys, "argv", ["x", str(output), "--checkpoint", str(tmp_path), "--minutes", "0"])
    assert main() == 2
    assert "too few" in capsys.readouterr().err


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    training(tmp_path, counting(2)).save()
    other = Training(
        Shape(3, 16, width=64, layers=2, heads=2, steps=24),
        counting(2),
        argparse.Namespace(seed=1, batch_size=8, learning_rate=1e-3, checkpoint=tmp_path),
    )
    with pytest.raises(ValueError, match="of another model"):
        other.resume()
