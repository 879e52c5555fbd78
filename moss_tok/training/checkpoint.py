"""A training checkpoint: one safetensors file with parameters, averages, optimizer state and the step.

Nothing is pickled. What is random at a step follows from the seed and the step, so there is no generator to store.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class TrainingCheckpointError(ValueError):
    """A checkpoint that is damaged or belongs to a codec of another shape."""


def save(path: Path, model: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write the checkpoint; it appears whole or not at all."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        tensors |= {f"{key}.{name}": torch.as_tensor(state[key]).float() for key in MOMENTS if key in state}
    tensors["step"] = torch.tensor(step)
    partial = path.with_name(f".{path.name}.partial")
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial)
    os.replace(partial, path)


def load(path: Path, model: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer | None) -> int:
    """Fill model, average and optimizer; returns the step. Raises TrainingCheckpointError."""
    try:
        tensors = load_file(path)
        model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})
        for name, value in average.items():
            value.copy_(tensors[f"average.{name}"])
        step = int(tensors["step"])
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise TrainingCheckpointError(f"{path} is damaged, or of a codec of another shape: {error}") from error
    for name, parameter in model.named_parameters():
        if optimizer is not None and f"exp_avg.{name}" in tensors:
            device = parameter.device
            optimizer.state[parameter] = {key: tensors[f"{key}.{name}"].to(device) for key in MOMENTS}
    return step
