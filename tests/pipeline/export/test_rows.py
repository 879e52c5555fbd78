"""Rows as the Parquet files have them, read another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.dataset import Output, read_output
from pipeline.export.rows import read_rows


@pytest.fixture
def output(dataset: Path) -> Output:
    return read_output(str(dataset))


@pytest.mark.parametrize("layers", [0, 1, 8, 32])
def test_rows_are_those_of_the_files(output: Output, layers: int):
    for spec in output.specs:
        table = pq.read_table(output.layout.data(spec)).to_pylist()
        rows = list(read_rows(output, spec, layers))
        assert len(rows) == len(table)
        for row, expected in zip(rows, table, strict=True):
            assert row.duration == pytest.approx(expected["duration"])
            for name in ("id", "num_frames", "text", "language", "speaker_id", "silence", "clipping", "audio_xxh3"):
                assert getattr(row, name) == expected[name]
            assert row.codes.dtype == np.int16
            assert row.codes.shape == (layers, expected["num_frames"])
            for layer, codes in enumerate(row.codes):
                assert codes.tolist() == expected[f"codes_{layer:02d}"]


def test_a_clip_says_where_its_sound_is(output: Output):
    for spec in output.specs:
        for row, expected in zip(
            read_rows(output, spec, 0), pq.read_table(output.layout.data(spec)).to_pylist(), strict=True
        ):
            inside = spec.format in ("webdataset", "parquet")
            assert row.audio == (f"{expected['source']}#{expected['key']}" if inside else expected["source"])


def test_a_layer_of_another_length_is_damage(tmp_path: Path, output: Output):
    spec = max(output.specs, key=lambda spec: len(list(read_rows(output, spec, 0))))
    table = pq.read_table(output.layout.data(spec))
    short = [codes[:-1] for codes in table["codes_03"].to_pylist()]
    column = table.schema.get_field_index("codes_03")
    changed = table.set_column(column, table.schema.field(column), pa.array(short, table.schema.field(column).type))
    copy = Output(type(output.layout)(str(tmp_path)), output.record, output.specs, output.done)
    path = Path(copy.layout.data(spec))
    path.parent.mkdir(parents=True)
    pq.write_table(changed, path)
    with pytest.raises(ValueError, match="codes_03 has not as many codes as num_frames says"):
        list(read_rows(copy, spec, 4))
    assert len(list(read_rows(copy, spec, 3))) == table.num_rows
