"""Arrow schemas, made from the column definitions in `schemas/`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, cast

import numpy as np
import pyarrow as pa
import yaml

CODES = "codes.v2"
READABLE = ("codes.v1", CODES)
"""Schemas of outputs that can be read. v1 lacks the column start."""
REJECTS = "rejects.v1"
MANIFEST = "manifest.v1"

SCALES = "scales"
LATENTS = "latents"
CODE_TYPES = ("int16", "int32", "int64")
"""Types of code columns. They are signed, because PyTorch computes with few unsigned ones, and none is smaller, so that
the codes of most codecs have one type: dictionary encoding stores a code in as few bits either way."""

_ARROW_TYPES = {
    "string": pa.string(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "list<string>": pa.list_(pa.field("element", pa.string(), nullable=False)),
    "list<float32>": pa.list_(pa.field("element", pa.float32(), nullable=False)),
    "list<list<float16>>": pa.list_(
        pa.field("element", pa.list_(pa.field("element", pa.float16(), nullable=False)), nullable=False)
    ),
    **{f"list<{name}>": pa.list_(pa.field("element", getattr(pa, name)(), nullable=False)) for name in CODE_TYPES},
}


@cache
def definition(name: str) -> dict[str, Any]:
    """The document `schemas/<name>.yaml`."""
    text = resources.files("schemas").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return cast("dict[str, Any]", yaml.safe_load(text))


def clip_columns(name: str = CODES) -> list[str]:
    """Names of the columns that stand before those of the RVQ layers in a data file, in order."""
    return [column["name"] for column in definition(name)["columns"]]


def signal_definitions(signals: Iterable[str]) -> list[dict[str, Any]]:
    """Name, type and description of the columns of these signals, which are keys of the section `signals`, always in
    the same order."""
    asked = set(signals)
    return [
        column for name, columns in definition(CODES).get("signals", {}).items() if name in asked for column in columns
    ]


def layer_column(layer: int) -> str:
    """Name of the column that holds the codes of RVQ layer `layer`, counted from 0."""
    return cast(str, definition(CODES)["layers"]["name"]).format(layer=layer)


@dataclass(frozen=True, slots=True)
class CodeColumns:
    """What follows the columns of the clip: a column for each codebook, and scales, latents and signals where there
    are any."""

    sizes: tuple[int, ...]
    """Codes of each codebook."""
    scales: bool = False
    prefix: bool = True
    """Whether the first codebooks decode without the others."""
    latents: bool = False
    signals: tuple[str, ...] = ()
    """What else was measured of the clips: keys of the section `signals`."""

    @property
    def names(self) -> list[str]:
        """Of the columns of codes."""
        return [layer_column(layer) for layer in range(len(self.sizes))]

    def definitions(self) -> list[dict[str, Any]]:
        """Name, type and description of each."""
        layers = [layer_definition(layer, size, self.prefix) for layer, size in enumerate(self.sizes)]
        kinds = {SCALES: self.scales, LATENTS: self.latents}
        others = [definition(CODES)[kind] for kind, there in kinds.items() if there]
        return [*layers, *others, *signal_definitions(self.signals)]


def codes_schema(codes: CodeColumns, name: str = CODES) -> pa.Schema:
    """Columns of a data file: one row per clip, one list of codes per codebook."""
    return pa.schema([_field(column) for column in (*definition(name)["columns"], *codes.definitions())])


def code_type(codebook_size: int) -> str:
    """The type of a code: the first of CODE_TYPES that holds all of a codebook."""
    return next(name for name in CODE_TYPES if codebook_size - 1 <= np.iinfo(name).max)


def layer_definition(layer: int, codebook_size: int, prefix: bool = True) -> dict[str, str]:
    """Name, type and description of the column of one codebook."""
    layers = definition(CODES)["layers"]
    description = layers["description" if prefix else "description_together"].format(
        layer=layer, last=codebook_size - 1
    )
    return {"name": layer_column(layer), "type": f"list<{code_type(codebook_size)}>", "description": description}


def rejects_schema() -> pa.Schema:
    """Columns of a rejects file: one row per clip without codes."""
    return pa.schema([_field(column) for column in definition(REJECTS)["columns"]])


def _field(column: dict[str, Any]) -> pa.Field:
    notes = {key: column[key] for key in ("description", "unit") if key in column}
    return pa.field(column["name"], _ARROW_TYPES[column["type"]], column.get("nullable", False), metadata=notes)
