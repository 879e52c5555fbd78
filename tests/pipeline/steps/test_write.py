"""Data files: the same bytes every time, tight, checked, and ready for every reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.items import CodedClip, Description
from pipeline.schema import CodeColumns
from pipeline.steps.records import codes_table
from pipeline.steps.write import to_parquet
from tests.support import info_of

METADATA = {"moss_tok.model": "cat-tiny", "moss_tok.dtype": "float32"}


def random_clips(clips: int, frames: int, layers: int) -> list[CodedClip]:
    """Codes without any pattern: the hardest there are to store."""
    random = np.random.default_rng(0)
    return [
        CodedClip(
            info_of(
                index,
                frames * 1920,
                source_sample_rate=16_000,
                source_channels=1,
                audio_xxh3=random.bytes(16).hex(),
                description=Description(text=f"text of {index}", metadata={"speaker": index % 7, "language": "en"}),
            ),
            random.integers(0, 1024, (layers, frames), dtype=np.int16),
        )
        for index in range(clips)
    ]


def write_random(path: str, clips: int = 50, frames: int = 30, layers: int = 4) -> bytes:
    table = codes_table("f00d", random_clips(clips, frames, layers), CodeColumns((1024,) * layers), 24_000)
    data = to_parquet(table, METADATA, row_group_rows=20)
    Path(path).write_bytes(data)
    return data


def test_rows_are_in_groups_of_the_size_that_was_asked_for(tmp_path: Path) -> None:
    write_random(str(tmp_path / "a.parquet"))
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3


def test_writing_twice_and_in_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = write_random(str(tmp_path / "a.parquet")), write_random(str(tmp_path / "b.parquet"))
    assert first == second
    script = "import runpy, sys; runpy.run_path(sys.argv[1])['write_random'](sys.argv[2])"
    environment = os.environ | {"PYTHONHASHSEED": "12345", "TZ": "Asia/Tokyo"}
    uri = tmp_path / "c.parquet"
    subprocess.run([sys.executable, "-c", script, __file__, str(uri)], check=True, env=environment)
    assert uri.read_bytes() == (tmp_path / "a.parquet").read_bytes()


def test_the_order_of_the_metadata_does_not_matter() -> None:
    table = pa.table({"a": [1]})
    one = to_parquet(table, METADATA, 10)
    assert one == to_parquet(table, dict(reversed(METADATA.items())), 10)
    assert one != to_parquet(table, METADATA | {"moss_tok.dtype": "bfloat16"}, 10)


def test_metadata_and_descriptions_stand_in_the_file(tmp_path: Path) -> None:
    write_random(str(tmp_path / "a.parquet"))
    found = pq.read_schema(tmp_path / "a.parquet")
    assert found.metadata == {key.encode(): value.encode() for key, value in METADATA.items()}
    assert b"RVQ layer 0" in found.field("codes_00").metadata[b"description"]
    assert found.field("duration").metadata[b"unit"] == b"s"


def test_codes_are_lists_of_int16_on_disk(tmp_path: Path) -> None:
    write_random(str(tmp_path / "a.parquet"))
    found = pq.read_schema(tmp_path / "a.parquet")
    assert found.field("codes_03").type == pa.list_(pa.field("element", pa.int16(), nullable=False))


def test_hugging_face_datasets_reads_the_codes_that_were_written(tmp_path: Path) -> None:
    write_random(str(tmp_path / "a.parquet"))
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "a.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    clips = random_clips(50, 30, 4)
    assert loaded.features["codes_00"].feature.dtype == "int16"
    assert len(loaded) == 50
    for row, clip in zip(loaded, clips, strict=True):
        assert np.array_equal([row[f"codes_{layer:02d}"] for layer in range(4)], clip.codes)
        assert (row["key"], row["text"]) == (clip.info.origin.key, clip.info.description.text)


def test_a_shard_without_rows_spoils_nothing_for_hugging_face_datasets(tmp_path: Path) -> None:
    """All of its clips were rejected: its file says that it was done, and the others must load beside it."""
    for name, clips in (("a", []), ("b", random_clips(3, 20, 2))):
        table = codes_table(name, clips, CodeColumns((1024, 1024)), 24_000)
        (tmp_path / f"{name}.parquet").write_bytes(to_parquet(table, METADATA, 10_000))
    assert pq.ParquetFile(tmp_path / "a.parquet").schema_arrow.names[0] == "id"
    files = str(tmp_path / "*.parquet")
    whole = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert whole.num_rows == 3
    streamed = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    assert len(list(streamed)) == 3


def test_reading_some_layers_reads_few_bytes(tmp_path: Path) -> None:
    write_random(str(tmp_path / "a.parquet"), clips=100, frames=100, layers=32)
    footer = pq.read_metadata(tmp_path / "a.parquet")
    sizes = {
        group.column(column).path_in_schema: group.column(column).total_compressed_size
        for group in map(footer.row_group, range(footer.num_row_groups))
        for column in range(group.num_columns)
    }
    codes = [size for name, size in sizes.items() if name.startswith("codes_")]
    first_eight = [size for name, size in sizes.items() if name.startswith("codes_0") and int(name[6:8]) < 8]
    assert len(codes) == 32
    assert sum(first_eight) < 0.26 * sum(codes)


def test_a_code_takes_about_ten_bits() -> None:
    """The whole file counts: footer, dictionaries, page headers and all columns beside the codes."""
    clips, frames, layers = 2000, 125, 32
    table = codes_table("f00d", random_clips(clips, frames, layers), CodeColumns((1024,) * layers), 24_000)
    assert len(to_parquet(table, METADATA, row_group_rows=10_000)) * 8 / (clips * frames * layers) <= 10.3


@pytest.mark.parametrize("place", [0.1, 0.35, 0.6, 0.8])
def test_a_flipped_bit_in_the_codes_is_noticed(tmp_path: Path, place: float) -> None:
    path = tmp_path / "a.parquet"
    write_random(str(path), clips=200, frames=100, layers=8)
    columns = pq.read_metadata(path).row_group(0)
    data = bytearray(path.read_bytes())
    codes = columns.column(columns.num_columns - 1)
    start = codes.dictionary_page_offset
    data[start + int(place * codes.total_compressed_size)] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(OSError, match=r"(?i)crc|checksum|thrift|page"):
        pq.read_table(path, page_checksum_verification=True)
