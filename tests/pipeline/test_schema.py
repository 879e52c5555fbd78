"""The documents in schemas/ are the one source of columns, and they are complete."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from pipeline import schema
from pipeline.dataset.manifest import ShardManifest
from pipeline.signal_config import SignalsConfig

FOLDER = Path(__file__).parents[2] / "schemas"


@pytest.mark.parametrize("name", [*schema.READABLE, schema.REJECTS, schema.MANIFEST])
def test_every_column_has_a_name_a_type_and_a_description_and_nothing_unknown(name: str) -> None:
    document = schema.definition(name)
    assert document["name"] == name
    names = [column["name"] for column in document["columns"]]
    assert len(set(names)) == len(names)
    for column in document["columns"]:
        assert {"name", "type", "description"} <= column.keys() <= {"name", "type", "description", "unit", "nullable"}
        assert column["description"].endswith(".")


def test_every_signal_has_columns_that_may_be_null_and_are_no_others() -> None:
    document = schema.definition(schema.CODES)
    assert document["signals"].keys() == SignalsConfig.model_fields.keys()
    columns = schema.signal_definitions(document["signals"])
    names = [column["name"] for column in columns]
    assert len({*names, *schema.clip_columns()}) == len(names) + len(schema.clip_columns())
    assert all(column["nullable"] and column["description"].endswith(".") for column in columns)
    table = schema.codes_schema(schema.CodeColumns((1024,), signals=tuple(document["signals"])))
    assert table.names[-len(names) :] == names


def test_every_document_of_the_folder_is_known() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*schema.READABLE, schema.REJECTS, schema.MANIFEST}


def test_a_data_file_has_the_documented_columns_and_one_per_layer() -> None:
    document = yaml.safe_load((FOLDER / "codes.v2.yaml").read_text())
    table = schema.codes_schema(schema.CodeColumns((1024,) * 3))
    assert table.names == [column["name"] for column in document["columns"]] + ["codes_00", "codes_01", "codes_02"]
    assert [str(table.field(column["name"]).type) for column in document["columns"]] == [
        {"float32": "float", "float64": "double", "list<string>": "list<element: string not null>"}.get(
            column["type"], column["type"]
        )
        for column in document["columns"]
    ]
    for field in table:
        assert field.metadata[b"description"]
    assert (
        b"Codes of RVQ layer 2, one per frame, each from 0 to 1023" in table.field("codes_02").metadata[b"description"]
    )
    assert table.field("codes_00").type.value_type == pa.int16()
    assert table.field("num_samples").metadata[b"unit"] == b"samples"
    assert [field.name for field in table if field.nullable] == ["start", "text", "language", "speaker_id", "labels"]


def test_a_rejects_file_has_the_documented_columns() -> None:
    document = yaml.safe_load((FOLDER / "rejects.v1.yaml").read_text())
    table = schema.rejects_schema()
    assert table.names == [column["name"] for column in document["columns"]]
    assert all(field.metadata[b"description"] and not field.nullable for field in table)


def test_a_manifest_has_the_documented_fields_and_types() -> None:
    document = yaml.safe_load((FOLDER / "manifest.v1.yaml").read_text())
    types = {
        "string": "str",
        "int64": "int",
        "float64": "float",
        "map<string,int64>": "Mapping[str, int]",
        "map<string,float64>": "Mapping[str, float]",
        "map<string,string>": "Mapping[str, str]",
    }
    assert {field.name: field.type for field in fields(ShardManifest)} == {
        column["name"]: types[column["type"]] for column in document["columns"]
    }


def test_layer_columns_sort_as_their_layers_do() -> None:
    names = [schema.layer_column(layer) for layer in range(32)]
    assert names == sorted(names)
    assert (names[0], names[31]) == ("codes_00", "codes_31")
