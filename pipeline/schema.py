"""Arrow schemas, made from the column definitions in `schemas/`."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, cast

import pyarrow as pa
import yaml

CODES = "codes.v2"
READABLE = ("codes.v1", CODES)
"""Schemas of outputs that can be read. v1 lacks the column start."""
REJECTS = "rejects.v1"
MANIFEST = "manifest.v1"

_ARROW_TYPES = {
    "string": pa.string(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "list<string>": pa.list_(pa.field("element", pa.string(), nullable=False)),
    "list<int16>": pa.list_(pa.field("element", pa.int16(), nullable=False)),
}


@cache
def definition(name: str) -> dict[str, Any]:
    """The document `schemas/<name>.yaml`."""
    text = resources.files("schemas").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return cast("dict[str, Any]", yaml.safe_load(text))


def clip_columns(name: str = CODES) -> list[str]:
    """Names of the columns that stand before those of the RVQ layers in a data file, in order."""
    return [column["name"] for column in definition(name)["columns"]]


def layer_column(layer: int) -> str:
    """Name of the column that holds the codes of RVQ layer `layer`, counted from 0."""
    return cast(str, definition(CODES)["layers"]["name"]).format(layer=layer)


def codes_schema(num_quantizers: int, codebook_size: int, name: str = CODES) -> pa.Schema:
    """Columns of a data file: one row per clip, one `list<int16>` column per RVQ layer."""
    layers = [layer_definition(layer, codebook_size) for layer in range(num_quantizers)]
    return pa.schema([_field(column) for column in (*definition(name)["columns"], *layers)])


def layer_definition(layer: int, codebook_size: int) -> dict[str, str]:
    """Name, type and description of the column of one RVQ layer."""
    layers = definition(CODES)["layers"]
    description = layers["description"].format(layer=layer, last=codebook_size - 1)
    return {"name": layer_column(layer), "type": layers["type"], "description": description}


def rejects_schema() -> pa.Schema:
    """Columns of a rejects file: one row per clip without codes."""
    return pa.schema([_field(column) for column in definition(REJECTS)["columns"]])


def _field(column: dict[str, Any]) -> pa.Field:
    notes = {key: column[key] for key in ("description", "unit") if key in column}
    return pa.field(column["name"], _ARROW_TYPES[column["type"]], column.get("nullable", False), metadata=notes)
