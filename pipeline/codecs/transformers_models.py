"""Models of the `transformers` library, from a folder's config.json and safetensors alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from moss_tok.checkpoint import Checkpoint
from pipeline.codecs.config_file import read_config
from pipeline.codecs.protocol import Codec, CodecDescription, CodecError, Family, Parts
from pipeline.codecs.torch_clips import TorchClips

EXTRA = "pip install 'moss-tok[codecs]'"


def import_transformers() -> Any:
    """The library. Raises CodecError that says what to install."""
    try:
        import transformers
    except ImportError as error:
        raise CodecError(f"this codec needs the transformers library ({error}): {EXTRA}") from error
    return transformers


def config_of(name: str, config: Mapping[str, Any]) -> Any:
    """The configuration object of a model class, such as "Mimi"."""
    found = getattr(import_transformers(), f"{name}Config", None)
    if found is None:
        raise CodecError(f"the installed transformers has no {name}: a newer one is needed: {EXTRA}")
    try:
        return found.from_dict(dict(config))
    except Exception as error:  # its strict configurations raise errors of a package of their own
        raise CodecError(f"not the configuration of a {name} model: {error}") from error


def load_model(name: str, checkpoint: Checkpoint) -> Any:
    """The model in float32. Raises CodecError for weights that are missing, of other shapes or left over."""
    transformers = import_transformers()
    progress = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        model, found = getattr(transformers, f"{name}Model").from_pretrained(
            checkpoint.folder, local_files_only=True, use_safetensors=True, dtype="float32", output_loading_info=True
        )
    except Exception as error:  # of safetensors, of the hub's client and of its own configurations
        raise CodecError(f"{checkpoint.folder}: the weights cannot be loaded: {error}") from error
    finally:
        if progress:
            transformers.utils.logging.enable_progress_bar()
    wrong = [f"{key.removesuffix('_keys')}: {sorted(map(str, names))[:5]}" for key, names in found.items() if names]
    if wrong:
        raise CodecError(f"the weights in {checkpoint.folder} do not fit its config.json: {'; '.join(wrong)}")
    return model


def transformers_family(
    name: str,
    model: str,
    describe: Callable[[Any], CodecDescription],
    codec: Callable[[CodecDescription, Any, str], TorchClips],
    model_types: tuple[str, ...],
) -> Family:
    """The family of a model class. `describe` takes the library's configuration object."""

    def load(checkpoint: Checkpoint, device: str, dtype: str, parts: Parts) -> Codec:
        loaded = load_model(model, checkpoint)
        description = describe_config(read_config(checkpoint))
        return codec(description, loaded, device)

    def describe_config(config: Mapping[str, Any]) -> CodecDescription:
        return replace(describe(config_of(model, config)), trained=config.get("trained") is not False)

    return Family(
        name=name,
        describe=describe_config,
        load=load,
        model_types=model_types,
        packages=("transformers",),
    )
