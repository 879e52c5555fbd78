"""From a model's name to its family: read from `config.json`, or named by `model.codec`.

Families are those of this room and those that installed packages offer under the entry point group `moss_tok.codecs`:
each entry point names a `Family`. No code of a model's own folder or repo is ever run; that of XY-Tokenizer comes from
a checkout which the user names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from moss_tok.checkpoint import CONFIG_FILE, Checkpoint, resolve
from pipeline.codecs.config_file import read_config
from pipeline.codecs.protocol import Codec, CodecDescription, CodecError, Family, Parts
from pipeline.items import stable_hash

GROUP = "moss_tok.codecs"
BUILT_IN = {
    "moss": "moss:FAMILY",
    "mimi": "mimi:FAMILY",
    "qwen3_tts": "qwen3_tts:FAMILY",
    "encodec": "encodec:FAMILY",
    "dac": "dac:FAMILY",
    "xcodec2": "xcodec2:FAMILY",
    "neucodec": "xcodec2:NEUCODEC",
    "xcodec": "xcodec:FAMILY",
    "higgs": "xcodec:HIGGS",
    "wavtokenizer": "wavtokenizer:FAMILY",
    "snac": "snac:FAMILY",
    "speechtokenizer": "speechtokenizer:FAMILY",
    "bigcodec": "bigcodec:FAMILY",
    "xy_tokenizer": "xy_tokenizer:FAMILY",
}
"""Where each family of this room is, by its name."""
NOT_DECISIVE = ("transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype", "trained")
"""Keys of a config.json that say where a model comes from, not what it computes."""


@dataclass(frozen=True, slots=True)
class CodecSource:
    """A model that was found, without its weights."""

    name: str
    checkpoint: Checkpoint
    family: Family
    description: CodecDescription
    config_hash: str


def find_codec(name: str, revision: str | None = None, family: str | None = None) -> CodecSource:
    """The model of this name (a folder, an embedded codec or a hub repo), by its configuration.

    `family` overrides what config.json says. Raises CodecError for a model of no family that is known, and what
    `moss_tok.checkpoint.resolve` raises.
    """
    checkpoint = resolve(name, revision)
    config = read_config(checkpoint)
    found = family_named(family) if family else _recognise(name, config)
    try:
        description = found.describe(config)
    except CodecError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        problem = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
        raise CodecError(
            f"{checkpoint.folder / CONFIG_FILE} describes no codec of family {found.name}: {problem}"
        ) from error
    decisive = found.decisive(config) if found.decisive else _decisive(config)
    return CodecSource(name, checkpoint, found, description, stable_hash(json.dumps(decisive, sort_keys=True)))


def load_codec(
    source: CodecSource, device: str, dtype: str = "float32", parts: Parts = "all", latents: bool = False
) -> Codec:
    """The codec with its weights; `dtype` may be "auto". With `latents` it gives what it quantizes beside the codes.

    Raises CodecError for a precision or for latents that the family does not have, and for weights that do not fit the
    configuration.
    """
    dtype = precision_of(source.family, dtype, on_gpu=device.startswith("cuda"))
    codec = source.family.load(source.checkpoint, device, dtype, parts)
    if not latents:
        return codec
    from pipeline.codecs.moss_codec import with_latents

    return with_latents(codec)


def precision_of(family: Family, dtype: str, on_gpu: bool) -> str:
    """The precision that a configured one stands for: `auto` is bfloat16 on a GPU, for codecs that run in it.

    Raises CodecError for one that the family does not have.
    """
    if dtype == "auto":
        return "bfloat16" if on_gpu and "bfloat16" in family.dtypes else "float32"
    if dtype not in family.dtypes:
        raise CodecError(f"model.dtype: {dtype}, but codecs of family {family.name} run in {', '.join(family.dtypes)}")
    return dtype


def family_named(name: str) -> Family:
    """Raises CodecError where there is none of this name."""
    if name in BUILT_IN:
        return _built_in(name)
    for point in _entry_points():
        if point.name == name:
            return _plugged_in(point)
    known = ", ".join(_names())
    raise CodecError(f"model.codec: no codec {name!r} is installed: there are {known}")


def _recognise(name: str, config: Mapping[str, Any]) -> Family:
    model_type = config.get("model_type")
    for family in _families():
        if model_type in family.model_types:
            return family
    for family in _families():
        if family.recognises(config):
            return family
    known = ", ".join(sorted(_names()))
    raise CodecError(
        f"{name}: its {CONFIG_FILE} is of model_type {model_type!r}, which no installed codec knows: name one with "
        f"model.codec ({known}), or install the package that offers it"
    )


def _families() -> Iterator[Family]:
    """Every family that is installed. A module is imported when it is its turn: MOSS is first, without torch."""
    yield from map(_built_in, BUILT_IN)
    yield from map(_plugged_in, _entry_points())


@cache
def _built_in(name: str) -> Family:
    module, _, attribute = BUILT_IN[name].partition(":")
    family: Family = getattr(import_module(f"pipeline.codecs.{module}"), attribute)
    return family


def _names() -> list[str]:
    return [*BUILT_IN, *(point.name for point in _entry_points())]


def _entry_points() -> list[EntryPoint]:
    return sorted((point for point in entry_points(group=GROUP)), key=lambda point: point.name)


def _plugged_in(point: EntryPoint) -> Family:
    if point.name in BUILT_IN:
        raise CodecError(f"{point.value}: offers a codec {point.name}, and moss-tok has one of that name itself")
    try:
        family = point.load()
    except Exception as error:  # whatever another package raises when it is imported
        raise CodecError(f"the codec {point.name} ({point.value}) cannot be loaded: {error}") from error
    if not isinstance(family, Family):
        raise CodecError(f"{point.value}: is no pipeline.codecs.Family but {type(family).__name__}")
    return family


def _decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in NOT_DECISIVE}
