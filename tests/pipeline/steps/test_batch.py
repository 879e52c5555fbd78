"""Batching: every clip once, longest first, under the budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.steps.batch import POOL_BATCHES, Batcher

LENGTHS = st.lists(st.integers(1, 40), max_size=60)


def all_batches(batcher: Batcher[int]) -> list[list[int]]:
    batches = []
    while batch := batcher.take():
        batches.append(batch)
    return batches


@given(LENGTHS, st.integers(1, 30))
def test_every_clip_comes_out_once_longest_first_and_under_the_budget(lengths: list[int], budget: int) -> None:
    batcher: Batcher[int] = Batcher(budget)
    for item, frames in enumerate(lengths):
        batcher.add(item, frames)
    assert batcher.frames == sum(lengths)
    batches = all_batches(batcher)
    assert batcher.frames == 0
    assert sorted(item for batch in batches for item in batch) == list(range(len(lengths)))
    for batch in batches:
        frames = [lengths[item] for item in batch]
        assert frames == sorted(frames, reverse=True)
        assert sum(frames) <= budget or len(batch) == 1
    firsts = [lengths[batch[0]] for batch in batches]
    assert firsts == sorted(firsts, reverse=True)


@pytest.mark.slow
@given(LENGTHS, st.integers(1, 30))
def test_no_batch_leaves_out_a_clip_that_would_fit(lengths: list[int], budget: int) -> None:
    batcher: Batcher[int] = Batcher(budget)
    for item, frames in enumerate(lengths):
        batcher.add(item, frames)
    waiting = set(range(len(lengths)))
    for batch in all_batches(batcher):
        waiting -= set(batch)
        room = budget - sum(lengths[item] for item in batch)
        assert all(lengths[item] > room for item in waiting)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), max_size=60), st.integers(1, 30))
def test_an_older_shard_never_waits_for_room_that_a_younger_one_takes(
    clips: list[tuple[int, int]], budget: int
) -> None:
    batcher: Batcher[int] = Batcher(budget)
    for item, (frames, rank) in enumerate(clips):
        batcher.add(item, frames, rank)
    waiting = dict(enumerate(clips))
    while batch := batcher.take():
        room = budget
        for item in batch:
            frames, rank = waiting.pop(item)
            passed_over = [other for other, of in waiting.values() if of < rank and other <= room]
            assert not passed_over, "a clip of an older shard would have fitted"
            room -= frames
    assert not waiting


def test_shards_end_one_after_the_other_and_not_together() -> None:
    batcher: Batcher[int] = Batcher(10)
    for rank in (1, 0):
        for frames in (9, 1, 8, 2):
            batcher.add(rank, frames, rank)
    assert all_batches(batcher) == [[0, 0], [0, 0], [1, 1], [1, 1]]


@given(LENGTHS, st.integers(1, 30), st.integers(1, 5))
def test_clips_that_arrive_between_batches_are_not_lost(lengths: list[int], budget: int, each: int) -> None:
    batcher: Batcher[int] = Batcher(budget)
    taken: list[int] = []
    for item, frames in enumerate(lengths):
        batcher.add(item, frames)
        if item % each == 0:
            taken += batcher.take()
    taken += [item for batch in all_batches(batcher) for item in batch]
    assert sorted(taken) == list(range(len(lengths)))


def test_clips_of_equal_length_leave_in_the_order_in_which_they_came() -> None:
    batcher: Batcher[int] = Batcher(10)
    for item in range(5):
        batcher.add(item, 2)
    assert batcher.take() == [0, 1, 2, 3, 4]


def test_items_need_no_order_of_their_own() -> None:
    batcher: Batcher[object] = Batcher(10)
    items = [object(), object()]
    for item in items:
        batcher.add(item, 3)
    assert batcher.take() == items


def test_a_pool_is_full_when_it_holds_several_batches() -> None:
    batcher: Batcher[int] = Batcher(10)
    assert not batcher.full
    for _ in range(POOL_BATCHES):
        assert not batcher.full
        batcher.add(0, 10)
    assert batcher.full
    assert batcher.take() == [0]
    assert not batcher.full


def test_nothing_waiting_is_an_empty_batch() -> None:
    assert Batcher[int](10).take() == []
