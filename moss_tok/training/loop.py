"""The training loop: from the KLT start through the noise channel to the quantizer, resumable at every checkpoint."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from moss_tok.training import channel, checkpoint, validation
from moss_tok.training.data import Clips
from moss_tok.training.export import start_from_codec
from moss_tok.training.group import Group
from moss_tok.training.interrupts import interrupts_handled_by
from moss_tok.training.klt import start_from_klt
from moss_tok.training.losses import Losses, distances
from moss_tok.training.model import TrainableCodec
from moss_tok.training.recipe import Recipe, codec_config

CHECKPOINT, CURVE, RECIPE = "checkpoint.safetensors", "curve.jsonl", "recipe.json"
START_CLIPS = 600
VALIDATION_CLIPS, VALIDATION_FRAMES = 24, 48
# Numbers of batches that no step has.
START_BATCH, FIT_BATCH = 1 << 40, 1 << 41
# The numbers of quantizers that clips are given; how often, and how much a clip's waveform then counts.
PREFIXES = (1, 2, 4, 8, 16, 24, 32)
PREFIX_SHARES = (0.08, 0.07, 0.1, 0.12, 0.1, 0.08, 0.45)
PREFIX_FINENESS = (0.0, 0.0, 0.1, 0.3, 0.6, 0.9, 1.0)
# Of the noise channel: the share of clips with noise of unit power, and the largest deviation of the others.
UNIT_NOISE, LOUDEST_NOISE = 0.6, 12.0


@dataclass(frozen=True)
class Run:
    """Where a training run reads and writes, how it computes, and how often it looks up."""

    data: Path
    output: Path
    device: str = "cpu"
    bfloat16: bool = False
    minutes: float | None = None
    checkpoint_minutes: float = 4.0
    validate_steps: int = 250


class Trainer:
    def __init__(self, recipe: Recipe, run: Run, group: Group) -> None:
        self.recipe, self.run, self.group = recipe, run, group
        config = codec_config(recipe.shape)
        self.rate, self.frame = config.sampling_rate, config.downsample_rate
        torch.manual_seed(recipe.seed)
        self.codec = TrainableCodec(config, products=torch.bfloat16 if run.bfloat16 else torch.float32).to(run.device)
        self.clips = Clips(run.data, recipe.clip_frames * self.frame)
        self.validation = Clips.validation(run.data, VALIDATION_FRAMES * self.frame, VALIDATION_CLIPS).to(run.device)
        self.optimizer = torch.optim.AdamW(
            [{"params": [value], "name": name} for name, value in self.codec.named_parameters()],
            lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True,
        )  # fmt: skip
        self.average = {name: value.detach().clone() for name, value in self.codec.named_parameters()}
        self.step = 0
        self.stopping = False

    def _peak(self, name: str) -> float:
        """The learning rate of a parameter between warming up and falling."""
        recipe = self.recipe
        peak = recipe.learning_rate if ".transformer." in name else recipe.projection_rate
        followed = self.step >= recipe.channel_steps and name.startswith(("encoder.", "quantizer.input_proj."))
        return peak * recipe.encoder_share if followed else peak

    # The whole run.

    def stop(self) -> None:
        """Let `train` save and return after the step that it is in. The second call raises KeyboardInterrupt."""
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True

    def train(self) -> None:
        """Train on until the recipe's last step, until the run's minutes are over, or until `stop`."""
        path = self.run.output / CHECKPOINT
        if path.exists():
            self.step = checkpoint.load(path, self.codec, self.average, self.optimizer)
        else:
            self._start()
        self._freeze(self.step > self.recipe.freeze_step)
        begun = saved = time.monotonic()
        recent: dict[str, float] = {}
        bar = tqdm(total=self.recipe.steps, initial=self.step, disable=self.group.rank > 0, unit="step", mininterval=5)
        while self.step < self.recipe.steps:
            if self.step == self.recipe.freeze_step:
                self._settle()
            elif self.step == self.recipe.channel_steps:
                self._fit()
            values = self._one_step()
            self.step += 1
            recent = {name: 0.98 * recent.get(name, value) + 0.02 * value for name, value in values.items()}
            bar.update()
            bar.set_postfix({name: f"{value:.3f}" for name, value in recent.items()}, refresh=False)
            if self.step % self.run.validate_steps == 0 or self.step == self.recipe.steps:
                self._record(recent, time.monotonic() - begun)
            now = time.monotonic()
            if self.group.rank == 0 and now - saved > 60 * self.run.checkpoint_minutes:
                self._save()
                saved = now
            if self._time_is_up(now - begun):
                break
        bar.close()
        if self.group.rank == 0:
            self._save()

    def _time_is_up(self, seconds: float) -> bool:
        late = self.run.minutes is not None and seconds > 60 * self.run.minutes
        parent = multiprocessing.parent_process()
        orphaned = parent is not None and not parent.is_alive()
        over = torch.tensor([float(late or orphaned or self.stopping)])
        self.group.share([over])
        return bool(over)

    def _save(self) -> None:
        checkpoint.save(self.run.output / CHECKPOINT, self.codec, self.average, self.optimizer, self.step)

    # Beginnings.

    def _start(self) -> None:
        sound = self.clips.batch(START_CLIPS, self.recipe.seed, START_BATCH)
        if self.recipe.start is None:
            start_from_klt(self.codec, sound, self.recipe.bits)
        else:
            start_from_codec(self.codec, sound, self.recipe.start)
        self.average = {name: value.detach().clone() for name, value in self.codec.named_parameters()}
        self.group.share([*self.codec.parameters(), *self.codec.buffers(), *self.average.values()])

    def _fit(self) -> None:
        """Fit the quantizer to what the encoder gives: the second phase begins."""
        if self.group.rank == 0:
            frames = 0
            latents: list[Tensor] = []
            codec = self._averaged()
            with torch.no_grad():
                while frames < self.recipe.fit_frames:
                    clips = self.clips.batch(32, self.recipe.seed, FIT_BATCH + len(latents))
                    latents.append(codec.encode(clips.to(self.run.device)).flatten(0, 1).cpu())
                    frames += len(latents[-1])
            left = self.codec.quantizer.fit(torch.cat(latents), torch.Generator().manual_seed(self.recipe.seed))
            tqdm.write(f"left after 1, 8 and 32 quantizers: {left[0]:.3f}, {left[7]:.3f}, {left[-1]:.3f}")
        self.group.share(self.codec.buffers())

    def _settle(self) -> None:
        """Go on from the averaged codec and a quantizer fitted to it; from now on only the decoder is trained."""
        self.codec.load_state_dict(self.codec.state_dict() | self.average)
        self._fit()
        self._freeze(True)

    def _freeze(self, frozen: bool) -> None:
        """Let codes stand, or not: they depend on the encoder and on the projection into the quantizer."""
        for parameter in [*self.codec.encoder.parameters(), *self.codec.quantizer.input_proj.parameters()]:
            parameter.requires_grad_(not frozen)

    # One step.

    def _one_step(self) -> dict[str, float]:
        recipe, codec = self.recipe, self.codec
        for group in self.optimizer.param_groups:
            group["lr"] = self._peak(group["name"]) * self._schedule()
        whole = self.clips.batch(recipe.batch_size, recipe.seed, self.step)
        clips = self._part(whole)
        draw = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.step)
        latents = codec.encode(clips)
        seen = self.group.gather(latents.flatten(0, 1))
        if self.step < recipe.channel_steps:
            received, fine, extra = self._through_channel(latents, seen, draw)
        else:
            received, fine, extra = self._through_quantizer(latents, seen, draw)
        losses = distances(codec.decode(received), clips, self.rate, fine)
        parts = {item.name: getattr(losses, item.name) for item in fields(Losses)} | extra
        loss = torch.stack(
            [recipe.weights[name] * value for name, value in parts.items() if recipe.weights.get(name)]
        ).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.group.average_gradients(codec.parameters())
        norm = torch.nn.utils.clip_grad_norm_(codec.parameters(), recipe.clip_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"step {self.step}: the gradient is not finite; go on with a lower learning rate")
        self.optimizer.step()
        keep = min(recipe.averaging, (self.step + 1) / (self.step + 10))
        for name, parameter in codec.named_parameters():
            self.average[name].lerp_(parameter.detach(), 1 - keep)
        return {name: float(value.detach()) for name, value in (parts | {"norm": norm}).items()}

    def _schedule(self) -> float:
        """Warm up, stay, and fall linearly to nothing over the last `decay_steps`."""
        recipe = self.recipe
        left = (recipe.steps - self.step) / max(1, recipe.decay_steps)
        return min(1.0, (self.step + 1) / max(1, recipe.warmup_steps), left)

    def _through_channel(
        self, latents: Tensor, seen: Tensor, draw: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        channel.follow(self.codec.quantizer, seen)
        count = self.recipe.batch_size
        chance, louder = torch.rand(count, generator=draw), torch.rand(count, generator=draw)
        deviation = self._part(torch.where(chance < UNIT_NOISE, 1.0, LOUDEST_NOISE**louder))
        noise = self._part(torch.randn(count, *latents.shape[1:], generator=draw))
        bits = channel.information(latents)
        excess = (bits / self.recipe.bits - 1).clamp_min(0)
        received = channel.transmit(self.codec.quantizer, latents, noise, deviation)
        return received, (1.2 / deviation - 0.2).clamp(0, 1), {"information": excess, "bits": bits.detach()}

    def _through_quantizer(
        self, latents: Tensor, seen: Tensor, draw: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        frames = latents.shape[1]
        shares = torch.tensor(PREFIX_SHARES)
        drawn = torch.multinomial(shares, self.recipe.batch_size, replacement=True, generator=draw)
        used = self._part(torch.tensor(PREFIXES).clamp_max(self.recipe.shape.num_quantizers)[drawn])
        quantized = self.codec.quantizer(latents.flatten(0, 1), used.repeat_interleave(frames))
        if latents.requires_grad:  # else codes stand
            draw = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)
            self.codec.quantizer.follow(seen, draw)
        extra = {"commitment": quantized.commitment, "left_8": quantized.left[7], "left": quantized.left[-1]}
        return quantized.latents.view_as(latents), self._part(torch.tensor(PREFIX_FINENESS)[drawn]), extra

    def _part(self, whole: Tensor) -> Tensor:
        """This process's part of something that has a row for each clip of the batch."""
        size = self.recipe.batch_size // self.group.size
        return whole[self.group.rank * size : (self.group.rank + 1) * size].to(self.run.device)

    # Looking up.

    def _averaged(self) -> TrainableCodec:
        """A copy with the averaged parameters."""
        codec = TrainableCodec(self.codec.config).to(self.run.device)
        codec.load_state_dict(self.codec.state_dict() | self.average)
        return codec

    def _record(self, recent: dict[str, float], seconds: float) -> None:
        """Write a line of the curve: recent training losses, and the averaged codec on the validation clips."""
        if self.group.rank:
            return
        measured = validation.measure(
            self._averaged(), self.validation, quantized=self.step > self.recipe.channel_steps
        )
        line = {
            "step": self.step, "seconds": round(seconds, 1), "hours": round(self._hours(), 3),
            "train": {name: round(value, 4) for name, value in recent.items()}, **measured,
        }  # fmt: skip
        with (self.run.output / CURVE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _hours(self) -> float:
        return self.step * self.recipe.batch_size * self.recipe.clip_frames / 12.5 / 3600


def run_training(recipe: Recipe, run: Run, rank: int = 0, size: int = 1, meeting_place: Path | None = None) -> None:
    """Train in this process, one of `size`. After SIGINT or SIGTERM it saves, then raises KeyboardInterrupt; the second
    does not wait for that. It also saves and ends if the process that started it is gone."""
    os.makedirs(run.output, exist_ok=True)
    group = Group.join(rank, size, meeting_place or run.output / "meeting", "nccl" if run.device == "cuda" else "gloo")
    if rank == 0:
        (run.output / RECIPE).write_text(recipe.to_json(), encoding="utf-8")
    try:
        trainer = Trainer(recipe, run, group)
        with interrupts_handled_by(lambda *_: trainer.stop()):
            trainer.train()
    finally:
        group.leave()
    if trainer.stopping:
        raise KeyboardInterrupt
