"""Tensors of a checkpoint <-> parameters of a model.

In memory the in-projections are permuted (rope.py), and the weights of the transformers have the precision of the
products. All others are held as stored, in float32.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from moss_tok.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from moss_tok.config import MossAudioTokenizerConfig
from moss_tok.linear import Linear
from moss_tok.quantizer import ResidualQuantizer
from moss_tok.rope import join_pairs, split_pairs
from moss_tok.transformer import TransformerLayer

IN_PROJECTION = ".self_attn.in_projs.0.weight"


@torch.no_grad()
def assign_weights(model: nn.Module, tensors: dict[str, Tensor], precision: torch.dtype) -> None:
    """Make `tensors` (v1 names) the parameters of a model that was built on the meta device, and fold the constants of
    the quantizer.

    The copies of weights for the products follow when the model is moved to a device: `MossAudioTokenizerModel.to`.
    Tensors that need no conversion stay mapped to their file. Each of the others is released as soon as it is
    converted.
    """
    modules = dict(model.named_modules())
    for name in tensors:
        of_product = isinstance(modules[name.rpartition(".")[0]], Linear)
        tensors[name] = tensors[name].to(precision if of_product else torch.float32)
        if name.endswith(IN_PROJECTION):
            tensors[name] = split_pairs(tensors[name], _num_heads(modules, name))
    model.load_state_dict(tensors, strict=True, assign=True)
    model.requires_grad_(False)
    for module in modules.values():
        if isinstance(module, ResidualQuantizer):
            module.prepare()


def save_weights(model: nn.Module, config: MossAudioTokenizerConfig, folder: Path) -> None:
    """Write config.json and model.safetensors (v1 names); each appears whole or not at all."""
    modules = dict(model.named_modules())
    tensors = {}
    for name, parameter in model.named_parameters():
        value = join_pairs(parameter, _num_heads(modules, name)) if name.endswith(IN_PROJECTION) else parameter
        tensors[name] = value.detach().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    partial_weights, partial_config = folder / f".{WEIGHTS_FILE}.partial", folder / f".{CONFIG_FILE}.partial"
    save_file(tensors, partial_weights, metadata={"format": "pt"})
    partial_config.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
    os.replace(partial_weights, folder / WEIGHTS_FILE)
    os.replace(partial_config, folder / CONFIG_FILE)


def _num_heads(modules: dict[str, nn.Module], in_projection: str) -> int:
    layer = modules[in_projection.removesuffix(IN_PROJECTION)]
    if not isinstance(layer, TransformerLayer):
        raise TypeError(f"{in_projection} belongs to no transformer layer")
    return layer.heads[1]
