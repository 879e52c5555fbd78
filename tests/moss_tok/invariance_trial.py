"""A trial of its own process, for test_instruction_sets.py: prints JSON of what differs and of what came out.

python -m tests.moss_tok.invariance_trial
"""

from __future__ import annotations

import hashlib
import json
import warnings

import torch
from torch import Tensor

from moss_tok import MossAudioTokenizerModel
from moss_tok.numerics import Product, Work, choose
from tests.support import ROOT

RELEASED_SHAPES = [(240, 768), (3072, 768), (1280, 1280)]
ODD_SHAPES = [(48, 24), (100, 20), (7, 50), (640, 33)]
CLIPS = [0.05, 1.0, 2.7, 11.0]
"""Seconds."""


def main() -> None:
    warnings.simplefilter("ignore")
    digest, names, differ = hashlib.sha256(), [], []
    for dtype in ("float32", "bfloat16"):
        model = MossAudioTokenizerModel.from_pretrained(ROOT / "tests" / "golden" / "v1_tiny", dtype=dtype)
        names.append(model.numerics.name)
        for result in trial_of_model(model, differ, dtype):
            digest.update(result.contiguous().view(torch.uint8).numpy().tobytes())
    for shapes in (RELEASED_SHAPES, ODD_SHAPES):
        for precision in (torch.float32, torch.bfloat16):
            digest.update(trial_of_products(shapes, precision, differ))
    print(json.dumps({"differ": differ, "digest": digest.hexdigest(), "numerics": names}))


def trial_of_model(model: MossAudioTokenizerModel, differ: list[str], label: str) -> list[Tensor]:
    """Clips alone, in two batches, in chunks and decoded; what each gives must be what it gives alone."""
    draw = torch.Generator().manual_seed(0)
    rate, channels = model.sampling_rate, model.number_channels
    clips = [torch.randn(channels, max(1, int(seconds * rate)), generator=draw) / 8 for seconds in CLIPS]
    alone = [model.encode(clip[None]) for clip in clips]
    for order, chunk in ((clips, None), (clips[::-1], None), (clips, 0.4)):
        batch = model.batch_encode(order, chunk_duration=chunk)
        for index, expected in enumerate(alone if order is clips else alone[::-1]):
            frames = expected.audio_codes.shape[2]
            same = torch.equal(batch.audio_codes[:, index, :frames], expected.audio_codes[:, 0])
            hidden = batch.encoder_hidden_states[index, :, :frames]
            if not same or not torch.equal(hidden, expected.encoder_hidden_states[0]):
                differ.append(f"{label}: clip of {clips[index].shape[1]} samples, chunks of {chunk}")
    sound = [model.decode(output.audio_codes).audio[0] for output in alone]
    together = model.batch_decode([output.audio_codes[:, 0] for output in alone]).audio
    for index, expected in enumerate(sound):
        if not torch.equal(together[index, :, : expected.shape[1]], expected):
            differ.append(f"{label}: the sound of clip {index}")
    return [*(output.audio_codes for output in alone), *(output.encoder_hidden_states for output in alone), *sound]


def trial_of_products(shapes: list[tuple[int, int]], dtype: torch.dtype, differ: list[str]) -> bytes:
    """Rows among many, alone and in groups of odd sizes, for the way that is chosen for these shapes."""
    way = choose(Work(shapes), Work([]), dtype).products
    digest = hashlib.sha256()
    for inputs, outputs in shapes:
        draw = torch.Generator().manual_seed(inputs)
        product = Product(way, (torch.randn(outputs, inputs, generator=draw) * inputs**-0.5).to(dtype))
        x = torch.randn(330, inputs, generator=draw).to(dtype)
        together = product(x)
        digest.update(together.view(torch.uint8).numpy().tobytes())
        for start, rows in ((0, 1), (329, 1), (3, 15), (100, 17), (60, 31), (2, 129), (11, 200)):
            if not torch.equal(product(x[start : start + rows]), together[start : start + rows]):
                differ.append(f"{inputs} -> {outputs} {dtype}: rows {start} to {start + rows} by {way}")
    return digest.digest()


if __name__ == "__main__":
    main()
