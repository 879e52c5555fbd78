"""From a trained codec to the folder of a checkpoint that `MossAudioTokenizerModel.from_pretrained` loads, and back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from moss_tok.checkpoint import CONFIG_FILE, WEIGHTS_FILE, resolve
from moss_tok.training.model import TrainableCodec

PROJECTIONS = ("quantizer.input_proj", "quantizer.output_proj")


def checkpoint_tensors(codec: TrainableCodec, average: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The codec's tensors by the v1 release's names; `average` has parameters to take in place of its own."""
    parameters = {name: value.detach() for name, value in codec.named_parameters()} | (average or {})
    tensors = {name: value for name, value in parameters.items() if not name.startswith("quantizer.")}
    for name in PROJECTIONS:
        tensors |= _weight_norm(name, parameters[f"{name}.weight"], parameters[f"{name}.bias"])
    quantizer = codec.quantizer
    for index in range(quantizer.config.num_quantizers):
        name = f"quantizer.quantizers.{index}"
        tensors |= _weight_norm(f"{name}.in_proj", quantizer.in_weight[index], quantizer.in_bias[index])
        nothing = torch.zeros(quantizer.config.rvq_dim)
        tensors |= _weight_norm(f"{name}.out_proj", quantizer.out_weight[index], nothing)
        tensors[f"{name}.codebook.weight"] = quantizer.codebooks[index]
    return {name: value.cpu().contiguous() for name, value in tensors.items()}


def _weight_norm(name: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """Length and direction of each output. A row of zeros gets the length 0 and any direction: no norm is 0 / 0."""
    length = torch.linalg.vector_norm(weight, dim=1)
    direction = torch.where(length[:, None] > 0, weight, torch.ones_like(weight))
    return {
        f"{name}.bias": bias,
        f"{name}.parametrizations.weight.original0": length[:, None, None],
        f"{name}.parametrizations.weight.original1": direction[:, :, None],
    }


def load_tensors(codec: TrainableCodec, tensors: dict[str, Tensor]) -> None:
    """Fill a codec with a checkpoint's tensors (v1 names). Raises KeyError for one that is missing.

    Quantizers are fitted without a bias of the out-projection, so one that has it is refused (ValueError).
    """
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            if not name.startswith("quantizer."):
                parameter.copy_(tensors[name].float())
        for name in PROJECTIONS:
            codec.get_parameter(f"{name}.weight").copy_(_folded(tensors, name))
            codec.get_parameter(f"{name}.bias").copy_(tensors[f"{name}.bias"].float())
        quantizer = codec.quantizer
        for index in range(quantizer.config.num_quantizers):
            name = f"quantizer.quantizers.{index}"
            if tensors[f"{name}.out_proj.bias"].any():
                raise ValueError(f"{name}.out_proj has a bias: this quantizer was not fitted by moss_tok.training")
            quantizer.in_weight[index] = _folded(tensors, f"{name}.in_proj")
            quantizer.in_bias[index] = tensors[f"{name}.in_proj.bias"].float()
            quantizer.out_weight[index] = _folded(tensors, f"{name}.out_proj")
            quantizer.codebooks[index] = tensors[f"{name}.codebook.weight"].float()


@torch.no_grad()
def start_from_codec(codec: TrainableCodec, waveforms: Tensor, name: str) -> None:
    """Fill a codec with the weights of a trained one, an embedded name or a folder; waveforms (B, samples), whole
    frames, tell how its latents spread. Raises ValueError where it is of another shape.
    """
    found = resolve(name)
    if found.config != codec.config:
        raise ValueError(f"{name} is of another shape than the recipe's codec: give the recipe its shape")
    load_tensors(codec, {name: value for path in found.weights_files for name, value in load_file(path).items()})
    latents = torch.cat([codec.encode(part).flatten(0, 1) for part in torch.split(waveforms, 32)])
    codec.quantizer.mean.copy_(latents.mean(0))
    codec.quantizer.variance.copy_(latents.var(0))


def _folded(tensors: dict[str, Tensor], name: str) -> Tensor:
    length = tensors[f"{name}.parametrizations.weight.original0"].double()[:, :, 0]
    direction = tensors[f"{name}.parametrizations.weight.original1"].double()[:, :, 0]
    return (F.normalize(direction, dim=1) * length).float()


def write_checkpoint(
    folder: Path, codec: TrainableCodec, average: dict[str, Tensor] | None, dtype: torch.dtype = torch.float16
) -> None:
    """Write config.json and model.safetensors; each appears whole or not at all.

    `dtype` is how weights are stored: float16 keeps 11 bits of them, in half the bytes, and is widened exactly when
    loaded. Raises OverflowError where a weight does not fit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: value.to(dtype) for name, value in checkpoint_tensors(codec, average).items()}
    for name, value in stored.items():
        if not torch.isfinite(value).all():
            raise OverflowError(f"{name} does not fit into {dtype}")
    partial_weights, partial_config = folder / f".{WEIGHTS_FILE}.partial", folder / f".{CONFIG_FILE}.partial"
    save_file(stored, partial_weights, metadata={"format": "pt"})
    partial_weights.chmod(0o644)
    partial_config.write_text(json.dumps(codec.config.to_dict(), indent=2) + "\n", encoding="utf-8")
    os.replace(partial_weights, folder / WEIGHTS_FILE)
    os.replace(partial_config, folder / CONFIG_FILE)


def export_run(run: Path, folder: Path) -> None:
    """Write the averaged codec of a training run. Raises ValueError where its quantizer is not fitted yet."""
    from moss_tok.training import checkpoint
    from moss_tok.training.loop import CHECKPOINT, RECIPE
    from moss_tok.training.recipe import Recipe, codec_config

    recipe = Recipe.from_file(run / RECIPE)
    codec = TrainableCodec(codec_config(recipe.shape))
    average = {name: value.detach().clone() for name, value in codec.named_parameters()}
    step = checkpoint.load(run / CHECKPOINT, codec, average, None)
    if step <= recipe.channel_steps:
        raise ValueError(
            f"{run} is at step {step}: its codec has no quantizer before step {recipe.channel_steps + 1}; train on"
        )
    write_checkpoint(folder, codec, average)
