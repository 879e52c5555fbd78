"""A stream over ranges reads as a file does, whatever way it is gone through, and holds no more than it may."""

from __future__ import annotations

import io
from concurrent.futures import Future
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage import streaming
from pipeline.storage.streaming import RangedStream, gauge

SIZES = {"FIRST_RANGE": 4, "RANGE": 16, "AHEAD": 64}


class Store:
    """An object whose ranges come at once; remembers which were asked for."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[tuple[int, int]] = []

    def fetch(self, start: int, stop: int) -> Future[bytes]:
        assert 0 <= start < stop <= len(self.content)
        assert stop - start <= SIZES["RANGE"]
        self.asked.append((start, stop))
        answer: Future[bytes] = Future()
        answer.set_result(self.content[start:stop])
        return answer


@given(
    size=st.integers(0, 500),
    steps=st.lists(st.tuples(st.integers(0, 600) | st.none(), st.integers(-1, 300)), max_size=30),
    buffer=st.sampled_from([0, 1, 7, 64]),
)
def test_any_seeks_and_reads_give_what_a_file_gives(
    size: int, steps: list[tuple[int | None, int]], buffer: int
) -> None:
    content = bytes(place % 251 for place in range(size))
    expected, before = io.BytesIO(content), gauge.now
    with patch.multiple(streaming, **SIZES):
        raw = RangedStream(Store(content).fetch, size)
        with io.BufferedReader(raw, buffer) if buffer else raw as stream:
            for place, count in steps:
                if place is not None:
                    assert stream.seek(place) == expected.seek(place)
                assert stream.read(count) == expected.read(count)
                assert gauge.now - before <= SIZES["AHEAD"] + SIZES["RANGE"]
    assert gauge.now == before


def test_a_reader_that_goes_straight_asks_for_each_byte_once_and_soon_far_ahead() -> None:
    store = Store(bytes(1000))
    with patch.multiple(streaming, **SIZES), RangedStream(store.fetch, 1000) as stream:
        for _ in range(10):
            stream.readinto(bytearray(4))
        assert store.asked[-1][1] - stream.tell() > SIZES["AHEAD"] - SIZES["RANGE"]
        stream.read()
    assert [start for start, _ in store.asked] == [0, *(stop for _, stop in store.asked[:-1])]
    assert store.asked[-1][1] == 1000


def test_what_went_wrong_with_a_range_is_raised_where_it_is_read() -> None:
    def fetch(start: int, stop: int) -> Future[bytes]:
        answer: Future[bytes] = Future()
        answer.set_exception(ConnectionResetError("reset"))
        return answer

    with RangedStream(fetch, 10) as stream, pytest.raises(ConnectionResetError, match="reset"):
        stream.read(1)
    with RangedStream(fetch, 10) as stream, pytest.raises(OSError, match="before the beginning"):
        stream.seek(-1)
