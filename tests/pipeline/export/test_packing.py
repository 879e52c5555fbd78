"""Packed documents come back whatever their lengths, and no sequence is longer or emptier than it may be."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.export.tokens.packing import Packed, pack, unpack

lengths = st.lists(st.integers(1, 12), max_size=20)


def documents(sizes: list[int]) -> list[tuple[str, np.ndarray]]:
    starts = np.cumsum([0, *sizes])
    return [(f"clip {n}", np.arange(starts[n], starts[n + 1])[:, None]) for n in range(len(sizes))]


def check_round_trip(sizes: list[int], sequences: list[Packed]) -> None:
    back = list(unpack(sequences))
    assert [clip_id for clip_id, _ in back] == [clip_id for clip_id, _ in documents(sizes)]
    for (_, found), (_, document) in zip(back, documents(sizes), strict=True):
        np.testing.assert_array_equal(found, document)


@given(lengths, st.integers(1, 15))
def test_cut_sequences_are_full_but_the_last(sizes: list[int], length: int):
    sequences = list(pack(documents(sizes), length, cut=True))
    assert all(sum(sequence.lengths) == length for sequence in sequences[:-1])
    assert len(sequences) == -(-sum(sizes) // length)
    check_round_trip(sizes, sequences)


@given(lengths, st.integers(12, 30))
def test_whole_documents_are_in_one_sequence_and_the_next_begins_where_one_does_not_fit(sizes: list[int], length: int):
    sequences = list(pack(documents(sizes), length, cut=False))
    assert sorted(clip_id for sequence in sequences for clip_id in sequence.ids) == sorted(
        clip_id for clip_id, _ in documents(sizes)
    )
    for sequence, following in pairwise(sequences):
        assert sum(sequence.lengths) <= length < sum(sequence.lengths) + following.lengths[0]
    check_round_trip(sizes, sequences)


@given(lengths)
def test_without_a_length_every_document_is_a_sequence(sizes: list[int]):
    sequences = list(pack(documents(sizes), None, cut=False))
    assert [sequence.lengths for sequence in sequences] == [[size] for size in sizes]
    check_round_trip(sizes, sequences)


def test_padding_fills_the_end():
    (sequence,) = pack(documents([3]), 5, cut=False)
    assert sequence.steps(5, np.array([-1])).tolist() == [[0], [1], [2], [-1], [-1]]
    assert sequence.steps(None, np.array([-1])).tolist() == [[0], [1], [2]]


def test_a_document_longer_than_a_sequence_is_an_error():
    with pytest.raises(ValueError, match="clip 1: 6 steps do not fit a sequence of 5"):
        list(pack(documents([2, 6]), 5, cut=False))
