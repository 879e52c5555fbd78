"""Make the embedded codec `cat-tiny`: the released architecture with 1.7 M random parameters.

It is untrained: it exists so that the demo and the tests run anywhere, with every code path of the real model. Its
random weights are chosen so that codes depend on the audio and spread over the codebooks, because tests that compare
codes must be able to fail:

- projections keep the variance of what they are given, and layer scales are large, so that every layer matters;
- each quantizer reads 8 orthonormal directions of the residual and writes back along the same directions, so that the
  residual shrinks;
- codebook rows have random directions and lengths that follow the residual's size from quantizer to quantizer.

The same seed gives the same bytes: numpy's PCG64 draws, and only elementary arithmetic after it.

    python scripts/make_cat_tiny.py [FOLDER]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

Array = npt.NDArray[np.float32]

SEED = 20260209
FOLDER = Path(__file__).resolve().parent.parent / "moss_tok" / "models" / "cat-tiny"
RVQ_DIM, CODE_DIM, NUM_QUANTIZERS, CODEBOOK_SIZE, CODEBOOK_DIM = 64, 96, 32, 1024, 8
LAYER_SCALE = 0.5
# Measured on speech, music and noise: the residual's length along one quantizer's 8 directions, at the first quantizer,
# and the factor by which it shrinks from each quantizer to the next.
FIRST_LENGTH, SHRINKAGE = 4.0, 0.96

# (input dimension, model dimension, output dimension, layers) from 100 Hz to 12.5 Hz; heads have 32 dimensions.
ENCODER_STAGES = ((240, 64, 48, 1), (96, 96, 48, 1), (96, 96, 64, 1), (128, 128, CODE_DIM, 2))
DECODER_STAGES = ((CODE_DIM, 128, 128, 2), (64, 96, 96, 1), (48, 96, 96, 1), (48, 64, 240, 1))


def stage(input_dimension: int, d_model: int, output_dimension: int, num_layers: int) -> dict[str, Any]:
    return {
        "module_type": "Transformer", "input_dimension": input_dimension, "output_dimension": output_dimension,
        "d_model": d_model, "num_heads": d_model // 32, "num_layers": num_layers, "dim_feedforward": 4 * d_model,
        "causal": True, "norm": "layer_norm", "positional_embedding": "rope", "max_period": 10000, "gating": "none",
        "layer_scale": LAYER_SCALE, "conv_layout": True,
    }  # fmt: skip


def patch(size: int) -> dict[str, Any]:
    return {"module_type": "PatchedPretransform", "patch_size": size}


def make_config() -> dict[str, Any]:
    encoder = [
        module
        for size, shape in zip((240, 2, 2, 2), ENCODER_STAGES, strict=True)
        for module in (patch(size), stage(*shape))
    ]
    decoder = [
        module
        for size, shape in zip((2, 2, 2, 240), DECODER_STAGES, strict=True)
        for module in (stage(*shape), patch(size))
    ]
    return {
        "architectures": ["MossAudioTokenizerModel"],
        "model_type": "moss-audio-tokenizer",
        "trained": False,
        "sampling_rate": 24000,
        "downsample_rate": 1920,
        "causal_transformer_context_duration": 10,
        "encoder_kwargs": encoder,
        "decoder_kwargs": decoder,
        "quantizer_type": "rlfq",
        "quantizer_kwargs": {
            "quantizer_type": "rlfq", "input_dim": CODE_DIM, "rvq_dim": RVQ_DIM, "output_dim": CODE_DIM,
            "num_quantizers": NUM_QUANTIZERS, "codebook_size": CODEBOOK_SIZE, "codebook_dim": CODEBOOK_DIM,
        },
    }  # fmt: skip


def make_weights() -> dict[str, Array]:
    draw = np.random.Generator(np.random.PCG64(SEED))
    tensors: dict[str, Array] = {}

    def gaussian(*shape: int, deviation: float) -> Array:
        return (draw.standard_normal(shape) * deviation).astype(np.float32)

    def linear(name: str, inputs: int, outputs: int, gain: float = 1.0) -> None:
        tensors[f"{name}.weight"] = gaussian(outputs, inputs, deviation=gain * inputs**-0.5)

    def transformer(name: str, inputs: int, d_model: int, outputs: int, layers: int, gain: float) -> None:
        if inputs != d_model:
            linear(f"{name}.input_proj", inputs, d_model, gain)
        for index in range(layers):
            layer = f"{name}.transformer.layers.{index}"
            linear(f"{layer}.self_attn.in_projs.0", d_model, 3 * d_model)
            linear(f"{layer}.self_attn.out_projs.0", d_model, d_model)
            linear(f"{layer}.linear1", d_model, 4 * d_model)
            linear(f"{layer}.linear2", 4 * d_model, d_model)
            for part in ("1", "2"):
                tensors[f"{layer}.norm{part}.weight"] = 1 + gaussian(d_model, deviation=0.05)
                tensors[f"{layer}.norm{part}.bias"] = gaussian(d_model, deviation=0.05)
                tensors[f"{layer}.layer_scale_{part}.scale"] = LAYER_SCALE + gaussian(d_model, deviation=0.05)
        if outputs != d_model:
            linear(f"{name}.output_proj", d_model, outputs)

    def projection(name: str, weight: npt.NDArray[np.float64], bias_deviation: float) -> None:
        """Store a weight (outputs, inputs) as weight norm does: length g and direction v of each output."""
        tensors[f"{name}.parametrizations.weight.original0"] = np.sqrt((weight**2).sum(1))[:, None, None].astype(
            np.float32
        )
        # safetensors writes an array's buffer as it lies, so a transposed view has to be copied into order first.
        tensors[f"{name}.parametrizations.weight.original1"] = np.ascontiguousarray(
            weight[:, :, None], dtype=np.float32
        )
        tensors[f"{name}.bias"] = gaussian(weight.shape[0], deviation=bias_deviation)

    for index, shape in enumerate(ENCODER_STAGES):
        # The first projection lifts speech, whose samples are about 0.05, to the size of the layers' outputs.
        transformer(f"encoder.{2 * index + 1}", *shape, gain=20.0 if index == 0 else 1.0)
    for index, shape in enumerate(DECODER_STAGES):
        transformer(f"decoder.{2 * index}", *shape, gain=1.0)
    tensors["decoder.6.output_proj.weight"] *= np.float32(0.05)

    projection("quantizer.input_proj", draw.standard_normal((RVQ_DIM, CODE_DIM)) * CODE_DIM**-0.5, 0.0)
    projection("quantizer.output_proj", draw.standard_normal((CODE_DIM, RVQ_DIM)) * RVQ_DIM**-0.5, 0.0)
    for index in range(NUM_QUANTIZERS):
        name = f"quantizer.quantizers.{index}"
        directions = orthonormal(draw.standard_normal((CODEBOOK_DIM, RVQ_DIM)))
        projection(f"{name}.in_proj", directions, 0.0)
        projection(f"{name}.out_proj", directions.T, 0.0)
        rows = draw.standard_normal((CODEBOOK_SIZE, CODEBOOK_DIM))
        length = FIRST_LENGTH * SHRINKAGE**index * (0.6 + 0.8 * draw.random((CODEBOOK_SIZE, 1)))
        rows *= length / np.sqrt((rows**2).sum(1, keepdims=True))
        tensors[f"{name}.codebook.weight"] = rows.astype(np.float32)
    return tensors


def orthonormal(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Gram-Schmidt over rows; elementary sums in a fixed order, so that every machine gets the same bits."""
    basis: list[npt.NDArray[np.float64]] = []
    for row in rows:
        for other in basis:
            row = row - other * sum(float(a) * float(b) for a, b in zip(row, other, strict=True))
        basis.append(row / sum(float(a) ** 2 for a in row) ** 0.5)
    return np.stack(basis)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(make_weights(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    (folder / "config.json").write_text(json.dumps(make_config(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
