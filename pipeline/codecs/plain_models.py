"""Modules of small packages of their own: built from config.json, filled from safetensors, nothing unpickled."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from moss_tok.checkpoint import Checkpoint
from pipeline.codecs.protocol import CodecError
from pipeline.codecs.transformers_models import EXTRA


def fill(model: nn.Module, checkpoint: Checkpoint) -> nn.Module:
    """The module with the checkpoint's weights. Raises CodecError where they do not fit."""
    try:
        tensors = {name: tensor for file in checkpoint.weights_files for name, tensor in load_file(file).items()}
        model.load_state_dict(tensors, strict=True)
    except FileNotFoundError as error:
        raise CodecError(
            f"{error}: weights that are published as a pickle are converted once, see docs/codecs.md"
        ) from error
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CodecError(f"the weights in {checkpoint.folder} do not fit its config.json: {error}") from error
    return model


def import_package(module: str, distribution: str) -> Any:
    """A module of a package. Raises CodecError that says what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        raise CodecError(
            f"this codec needs the package {distribution} ({error}): {EXTRA}, or pip install --no-deps {distribution}"
        ) from error


def import_without_init(package: str, module: str, distribution: str) -> Any:
    """A module of a package whose own `__init__` is left out, because it brings in what only training needs."""
    spec = find_spec(package) if package not in sys.modules else None
    add_bare_package(package, list((spec and spec.submodule_search_locations) or []))
    return import_package(f"{package}.{module}", distribution)


def add_bare_package(name: str, folders: list[str]) -> None:
    """Make a package of the modules in these folders, if there is none of this name; an `__init__` of it is not run."""
    if name not in sys.modules:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = folders
        sys.modules[name] = module_from_spec(spec)
