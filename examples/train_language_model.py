"""A small language model of codes, with the delay pattern: proof that a dataset of codes can be trained on.

    python examples/train_language_model.py out/codes --minutes 10 --checkpoint out/lm          # again to go on
    python examples/train_language_model.py out/codes --minutes 0 --checkpoint out/lm --continuation out/lm.wav

The code of RVQ layer q at frame t stands at step t + q, so that a step predicts one code of each layer, and the codes
of a frame are predicted one after another (MusicGen, Copet et al. 2023). Some clips are kept for validation. What is
printed of them is bits a code: of the model, and of the codes taken alone, by how often each was used in training. A
model that has learned is below that. It fits two CPU cores.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moss_tok import MossAudioTokenizerModel
from pipeline.dataset.dataset import read_output
from pipeline.loading import load_codes
from pipeline.storage import StorageError

IGNORED = -100
HELD_OUT = 20
"""One clip in so many is kept for validation."""


@dataclass(frozen=True)
class Shape:
    num_quantizers: int
    codebook_size: int
    width: int = 256
    layers: int = 4
    heads: int = 4
    steps: int = 256
    """Steps of a training window, and as far as the model looks back."""


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm1, self.norm2 = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)
        self.up, self.down = nn.Linear(shape.width, 4 * shape.width), nn.Linear(4 * shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, steps, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, steps, width)
        x = x + self.out(mixed)
        added: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + added


class LanguageModel(nn.Module):
    """Delayed codes (B, Q, steps), codebook_size where there is none -> logits of the next ones (B, Q, steps, K)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        rows = shape.num_quantizers * (shape.codebook_size + 1)
        self.codes = nn.Embedding(rows, shape.width)
        self.positions = nn.Embedding(shape.steps, shape.width)
        nn.init.normal_(self.codes.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.logits = nn.Linear(shape.width, shape.num_quantizers * shape.codebook_size)

    def forward(self, delayed: Tensor) -> Tensor:
        batch, quantizers, steps = delayed.shape
        first_rows = torch.arange(quantizers)[:, None] * (self.shape.codebook_size + 1)
        x = self.codes(delayed + first_rows).sum(1) + self.positions.weight[:steps]
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.logits(self.norm(x))
        return logits.view(batch, steps, quantizers, -1).transpose(1, 2)


def delay(codes: Tensor, none: int) -> Tensor:
    """codes (Q, frames) -> (Q, frames + Q - 1): each layer a step later than the one before, `none` elsewhere."""
    quantizers, frames = codes.shape
    delayed = codes.new_full((quantizers, frames + quantizers - 1), none)
    for layer in range(quantizers):
        delayed[layer, layer : layer + frames] = codes[layer]
    return delayed


def undelay(delayed: Tensor) -> Tensor:
    """Undo `delay`."""
    quantizers, steps = delayed.shape
    return torch.stack([delayed[layer, layer : steps - quantizers + 1 + layer] for layer in range(quantizers)])


def loss_of(model: LanguageModel, windows: Tensor) -> Tensor:
    """Mean bits a code of the windows (B, Q, steps): each step is predicted from those before it."""
    none = model.shape.codebook_size
    begin = windows.new_full((*windows.shape[:2], 1), none)
    logits = model(torch.cat([begin, windows[..., :-1]], 2))
    targets = windows.masked_fill(windows == none, IGNORED)
    nats: Tensor = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), ignore_index=IGNORED)
    return nats / math.log(2)


def bits_alone(train: list[Tensor], validation: list[Tensor], codebook_size: int) -> tuple[float, float]:
    """Bits a code with no context at all: the entropy of the training codes, layer by layer, and what the validation
    codes cost by the training codes' frequencies (each code counted once more, so that none is impossible).
    """
    joined, unseen = torch.cat(train, 1), torch.cat(validation, 1)
    entropies, costs = [], []
    for seen, new in zip(joined, unseen, strict=True):
        counts = torch.bincount(seen, minlength=codebook_size).double()
        share = counts / counts.sum()
        entropies.append(-(share * share.clamp_min(1e-300).log2()).sum())
        costs.append(-((counts + 1) / (counts + 1).sum()).log2()[new].mean())
    return float(torch.stack(entropies).mean()), float(torch.stack(costs).mean())


class Training:
    """A model and its optimizer. What is drawn at a step follows from the seed and the step, so it can be resumed."""

    def __init__(self, shape: Shape, clips: list[Tensor], arguments: argparse.Namespace) -> None:
        torch.manual_seed(arguments.seed)
        self.model, self.seed, self.batch_size = LanguageModel(shape), arguments.seed, arguments.batch_size
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=arguments.learning_rate, weight_decay=0.1)
        self.peak, self.step = arguments.learning_rate, 0
        self.delayed = [delay(clip, shape.codebook_size) for clip in clips]
        self.shares = np.array([clip.shape[1] for clip in clips]) / sum(clip.shape[1] for clip in clips)
        self.path = arguments.checkpoint / "checkpoint.safetensors"
        self.best = math.inf
        """Bits a code in validation of the model in best.safetensors: of few clips it soon learns too much by heart."""

    def one_step(self) -> float:
        loss = loss_of(self.model, self._batch())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak * min(1.0, (self.step + 1) / 100)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def _batch(self) -> Tensor:
        draw, steps, none = (
            np.random.default_rng((self.seed, self.step)),
            self.model.shape.steps,
            self.model.shape.codebook_size,
        )
        windows = torch.full((self.batch_size, self.model.shape.num_quantizers, steps), none)
        for row, index in enumerate(draw.choice(len(self.delayed), self.batch_size, p=self.shares)):
            clip = self.delayed[index]
            start = int(draw.integers(max(1, clip.shape[1] - steps + 1)))
            piece = clip[:, start : start + steps]
            windows[row, :, : piece.shape[1]] = piece
        return windows

    def save(self) -> None:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            tensors |= {f"{key}.{name}": value for key, value in self.optimizer.state.get(parameter, {}).items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.partial")
        save_file(tensors | {"done": torch.tensor(self.step), "best": torch.tensor(self.best)}, partial)
        partial.replace(self.path)

    def resume(self) -> None:
        """Raises ValueError for the checkpoint of a model of another shape."""
        tensors = load_file(self.path)
        try:
            self.model.load_state_dict({name: tensors[f"model.{name}"] for name in self.model.state_dict()})
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{self.path} is of another model: {error}") from error
        for name, parameter in self.model.named_parameters():
            keys = ("exp_avg", "exp_avg_sq", "step")
            if f"step.{name}" in tensors:
                self.optimizer.state[parameter] = {key: tensors[f"{key}.{name}"] for key in keys}
        self.step, self.best = int(tensors["done"]), float(tensors["best"])

    def keep_best(self, bits: float) -> None:
        """Keep the model if none was better in validation."""
        if bits < self.best:
            self.best = bits
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(self.model.state_dict(), self.path.with_name("best.safetensors"))

    def take_best(self) -> None:
        self.model.load_state_dict(load_file(self.path.with_name("best.safetensors")))


@torch.no_grad()
def validate(model: LanguageModel, clips: list[Tensor]) -> float:
    """Mean bits a code of whole clips, in windows of the model's steps."""
    none, steps = model.shape.codebook_size, model.shape.steps
    bits, codes = 0.0, 0
    for clip in clips:
        for window in torch.split(delay(clip, none), steps, dim=1):
            number = int((window != none).sum())
            bits, codes = bits + float(loss_of(model, window[None])) * number, codes + number
    return bits / codes


@torch.no_grad()
def go_on(model: LanguageModel, prompt: Tensor, frames: int, seed: int, temperature: float = 0.9) -> Tensor:
    """The codes (Q, frames) that the model adds to a prompt (Q, n), drawn from the 50 likeliest at each step."""
    shape, draw = model.shape, torch.Generator().manual_seed(seed)
    quantizers, given = prompt.shape
    delayed = delay(torch.cat([prompt, prompt.new_full((quantizers, frames), -1)], 1), shape.codebook_size)
    for step in range(given, delayed.shape[1]):
        before = delayed[:, max(0, step - shape.steps + 1) : step]
        begin = before.new_full((quantizers, 1), shape.codebook_size)
        logits = model(torch.cat([begin, before], 1)[None])[0, :, -1] / temperature
        likeliest = logits.topk(min(50, shape.codebook_size)).values[:, -1:]
        drawn = torch.multinomial(logits.masked_fill(logits < likeliest, -torch.inf).softmax(-1), 1, generator=draw)
        delayed[:, step] = torch.where(delayed[:, step] == -1, drawn[:, 0], delayed[:, step])
    return undelay(delayed)[:, given:]


def run(arguments: argparse.Namespace) -> None:
    """Raises ValueError, LookupError, OSError or StorageError with what to do."""
    torch.set_num_threads(arguments.threads)
    record = read_output(arguments.output).record
    rows = load_codes(arguments.output, arguments.split, arguments.num_quantizers)
    clips = [torch.from_numpy(row["codes"].astype(np.int64)) for row in rows if row["codes"].shape[1]]
    validation, train = clips[::HELD_OUT], [clip for number, clip in enumerate(clips) if number % HELD_OUT]
    if not train:
        raise ValueError(f"{arguments.output}: {len(clips)} clips are too few to keep some for validation")
    shape = Shape(arguments.num_quantizers, record.model.codebook_size, arguments.width, arguments.layers)
    entropy, alone = bits_alone(train, validation, shape.codebook_size)
    print(f"{sum(clip.numel() for clip in train):,} codes; alone: {entropy:.3f} bits each, {alone:.3f} in validation")
    training = Training(shape, train, arguments)
    if training.path.exists():
        training.resume()
        print(f"goes on from step {training.step}")
    end, recent = time.monotonic() + 60 * arguments.minutes, 0.0
    while time.monotonic() < end and (arguments.steps is None or training.step < arguments.steps):
        bits = training.one_step()
        recent = bits if recent == 0 else recent + 0.05 * (bits - recent)
        if training.step % arguments.report_steps == 0:
            found = validate(training.model, validation)
            print(f"step {training.step}: {recent:.3f} bits, {found:.3f} in validation", flush=True)
            training.keep_best(found)
            training.save()
    training.keep_best(validate(training.model, validation))
    training.save()
    training.take_best()
    best = training.best
    print(f"step {training.step}: {best:.3f} bits a code in validation at best, {alone - best:.3f} less than alone")
    if arguments.continuation:
        write_continuation(
            training.model, max(validation, key=lambda clip: clip.shape[1]), record.model.name, arguments
        )


def write_continuation(model: LanguageModel, clip: Tensor, codec: str, arguments: argparse.Namespace) -> None:
    """A WAV file: the first half of what it says are the codes of a clip, the second those that the model adds."""
    decoder = MossAudioTokenizerModel.from_pretrained(codec, parts="decoder")
    frames = min(round(arguments.seconds * decoder.frame_rate), clip.shape[1])
    prompt = clip[:, :frames]
    added = go_on(model, prompt, round(arguments.seconds * decoder.frame_rate), arguments.seed)
    audio = decoder.batch_decode([torch.cat([prompt, added], 1)]).audio[0]
    soundfile.write(arguments.continuation, audio.T.numpy(), decoder.sampling_rate)
    print(f"{arguments.continuation}: {frames} frames of a clip, and {added.shape[1]} that go on from it")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="folder or URI of a dataset of codes")
    parser.add_argument("--split", default="train")
    parser.add_argument("--num-quantizers", type=int, default=8)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--steps", type=int, help="stop at this step")
    parser.add_argument("--report-steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder; training goes on from what is there")
    parser.add_argument("--continuation", type=Path, help="WAV file of a clip's beginning and how the model goes on")
    parser.add_argument("--seconds", type=float, default=4, help="seconds of both halves of the continuation")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except (ValueError, LookupError, OSError, StorageError) as error:
        print(f"train_language_model: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
