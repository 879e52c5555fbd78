"""A file proves itself: every bit of it counts, those of the footer and of the digest too."""

from __future__ import annotations

import hashlib
import io
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.parquet_checksum import BLANK, CHECKSUM, check_parquet, insert_checksum
from pipeline.steps.write import to_parquet


def small() -> bytes:
    return to_parquet(pa.table({"a": [1, 2, 3], "text": ["x", "y", "z"]}), {"moss_tok.dtype": "float32"}, 2)


def footer_of(data: bytes) -> range:
    length = int.from_bytes(data[-8:-4], "little")
    return range(len(data) - 8 - length, len(data))


def test_the_recipe_of_the_documentation_proves_a_file() -> None:
    data = small()
    digest = pq.read_metadata(io.BytesIO(data)).metadata[CHECKSUM.encode()]
    assert hashlib.sha256(data.replace(digest, b"0" * 64)).hexdigest().encode() == digest
    check_parquet(data)


def test_no_flip_of_any_bit_of_the_footer_survives() -> None:
    data = small()
    for place in footer_of(data):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            with pytest.raises(ValueError, match="checksum"):
                check_parquet(bytes(damaged))


def test_no_other_damage_survives() -> None:
    data, chance = small(), random.Random(0)
    for damaged in (data[:-1], data[1:], data + b"\0", b"", data[: len(data) // 2], data * 2):
        with pytest.raises(ValueError, match="checksum"):
            check_parquet(damaged)
    for _ in range(500):
        copy = bytearray(data)
        copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
        with pytest.raises(ValueError, match="checksum"):
            check_parquet(bytes(copy))


def test_the_text_of_a_row_cannot_stand_in_for_the_checksum() -> None:
    hostile = f"\x18\x0f{CHECKSUM}\x18\x40{BLANK}"
    data = to_parquet(pa.table({"text": [hostile]}), {"a": "b"}, 10)
    assert data.count(hostile.encode()) >= 2, "it stands in the statistics as it is"
    check_parquet(data)
    assert pq.read_metadata(io.BytesIO(data)).metadata[CHECKSUM.encode()] != BLANK.encode()


def test_a_file_whose_writer_left_no_place_for_the_checksum_gets_none_and_proves_nothing() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), sink)
    for use in (insert_checksum, check_parquet):
        with pytest.raises(ValueError, match="no checksum of its own"):
            use(sink.getvalue())
    with pytest.raises(ValueError, match="not blank"):
        insert_checksum(small())
