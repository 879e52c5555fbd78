"""Documents with a checksum: what was written is read back, and any other byte is noticed."""

from __future__ import annotations

import json
import random

import pytest

from pipeline.dataset.checksummed_json import dump_checksummed, load_checksummed

DOCUMENT = {
    "name": "日本 latin-\udce9",
    "rows": 12,
    "seconds": {"read": 0.1, "encode": 1e-9},
    "none": None,
    "list": [1, 2],
}


def test_a_document_is_read_back_as_it_was_and_people_can_read_it():
    data = dump_checksummed(DOCUMENT)
    assert load_checksummed(data) == DOCUMENT
    assert json.loads(data)["rows"] == 12
    assert "日本" in data.decode()


def test_every_changed_byte_is_noticed():
    data = dump_checksummed(DOCUMENT)
    chance = random.Random(7)
    for offset in range(len(data)):
        damaged = bytearray(data)
        damaged[offset] ^= 1 << chance.randrange(8)
        with pytest.raises(ValueError, match=r"."):
            load_checksummed(bytes(damaged))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"3", json.dumps(DOCUMENT).encode(), dump_checksummed(DOCUMENT) + b"\n"]
)
def test_bytes_of_another_writer_are_refused(data: bytes):
    with pytest.raises(ValueError, match=r"."):
        load_checksummed(data)
