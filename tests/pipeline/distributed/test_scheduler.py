"""The rules of retrying, without Ray: what is blamed on a shard, what is not, and what is tried when."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline.distributed.scheduler import (
    LONGEST_RETRY_SECONDS,
    OUTAGE_SECONDS,
    PREEMPTIONS_PER_ATTEMPT,
    Attempt,
    Scheduler,
)
from pipeline.items import ShardSpec


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def spec(name: str) -> ShardSpec:
    return ShardSpec(split="train", format="webdataset", uri=f"s3://bucket/{name}.tar", size=1, version="1")


def scheduler_of(names: Sequence[str], max_attempts: int = 3) -> tuple[Scheduler, Clock]:
    clock = Clock()
    return Scheduler([spec(name) for name in names], max_attempts, clock), clock


def take(scheduler: Scheduler, open_shards: int = 0) -> Attempt:
    attempt = scheduler.next(open_shards)
    assert attempt is not None
    return attempt


def name_of(attempt: Attempt) -> str:
    return attempt.spec.uri.rpartition("/")[2].removesuffix(".tar")


def test_shards_come_in_the_order_of_the_plan_and_end_when_all_are_committed():
    scheduler, _ = scheduler_of("abc")
    attempts = [take(scheduler, count) for count in range(3)]
    assert [name_of(attempt) for attempt in attempts] == ["a", "b", "c"]
    assert [attempt.number for attempt in attempts] == [1, 1, 1]
    assert scheduler.next(0) is None
    for left, attempt in zip((2, 1, 0), attempts, strict=True):
        scheduler.committed(attempt)
        assert scheduler.remaining == left


def test_an_error_is_tried_again_after_a_while_that_doubles_and_given_up_after_the_last_attempt():
    scheduler, clock = scheduler_of("ab")
    bad = take(scheduler)
    assert "failed, attempt 1 of 3: no such key" in scheduler.failed(bad, "no such key")
    scheduler.committed(take(scheduler))
    for number, wait in ((2, 1.0), (3, 2.0)):
        clock.now += wait - 0.01
        assert scheduler.next(0) is None, "too early"
        clock.now += 0.02
        bad = take(scheduler)
        assert bad.number == number
        line = scheduler.failed(bad, "no such key")
    assert "failed 3 times and is given up: no such key" in line
    assert "s3://bucket/a.tar" in line
    assert scheduler.remaining == 0
    (failure,) = scheduler.failures
    assert (failure.spec.uri, failure.reason) == ("s3://bucket/a.tar", "no such key")


def test_a_store_that_is_away_is_no_fault_of_the_shards_however_often_they_are_tried():
    scheduler, clock = scheduler_of("ab", max_attempts=1)
    for _ in range(5):
        for attempt in [take(scheduler), take(scheduler, open_shards=1)]:
            assert "found a store unavailable" in scheduler.store_unavailable(attempt, "no route to host")
        clock.now += LONGEST_RETRY_SECONDS
    assert not scheduler.store_outage_is_too_long
    scheduler.committed(take(scheduler))
    clock.now += OUTAGE_SECONDS
    assert not scheduler.store_outage_is_too_long, "it was there for the other shard"
    scheduler.store_unavailable(take(scheduler), "no route to host")
    clock.now += OUTAGE_SECONDS
    assert scheduler.store_outage_is_too_long
    assert scheduler.failures == []


def test_a_store_that_answers_others_meanwhile_is_not_away():
    scheduler, _ = scheduler_of("ab", max_attempts=1)
    bad, good = take(scheduler), take(scheduler, open_shards=1)
    scheduler.committed(good)
    assert "is given up" in scheduler.store_unavailable(bad, "503 for this object alone")
    assert not scheduler.store_outage_is_too_long


def test_a_shard_that_waits_holds_up_none_of_the_others_and_comes_first_when_it_is_due():
    scheduler, clock = scheduler_of("abc")
    scheduler.failed(take(scheduler), "cut off")
    assert name_of(take(scheduler)) == "b"
    clock.now += 5
    assert [name_of(take(scheduler)) for _ in range(2)] == ["a", "c"]


def test_a_lost_node_counts_nothing_and_its_shards_are_next():
    scheduler, clock = scheduler_of("abcd", max_attempts=1)
    lines = scheduler.node_gone([take(scheduler), take(scheduler, 1)], "node 12 is gone")
    assert len(lines) == 2
    assert "lost its node and goes back to the queue: node 12 is gone" in lines[0]
    clock.now += 2
    again = [take(scheduler), take(scheduler, 1), take(scheduler)]
    assert sorted(name_of(attempt) for attempt in again) == ["a", "b", "c"]
    assert sorted(attempt.number for attempt in again) == [1, 2, 2]
    assert not any(attempt.isolated for attempt in again)
    assert not scheduler.failures


def test_a_shard_that_takes_every_node_with_it_is_given_up_in_the_end():
    scheduler, clock = scheduler_of("a", max_attempts=2)
    allowed = 2 * PREEMPTIONS_PER_ATTEMPT
    for _ in range(allowed):
        assert not scheduler.failures
        (line,) = scheduler.node_gone([take(scheduler)], "gone")
        clock.now += LONGEST_RETRY_SECONDS
    assert f"lost its node {allowed} times and is given up" in line
    assert scheduler.remaining == 0


def test_the_shards_of_an_actor_that_died_are_tried_last_and_alone_and_only_the_killer_is_given_up():
    scheduler, clock = scheduler_of(["innocent", "killer", "other"])
    lines = scheduler.actor_died([take(scheduler), take(scheduler, 1)], "signal 9")
    assert all("was one of 2 in an actor that died" in line for line in lines)
    clock.now += LONGEST_RETRY_SECONDS
    assert name_of(take(scheduler)) == "other", "what may kill an actor waits until the others are through"
    assert scheduler.next(1) is None, "nothing is put beside it that it may kill"
    innocent, killer = take(scheduler), take(scheduler)
    assert innocent.isolated
    assert (name_of(innocent), name_of(killer)) == ("innocent", "killer")
    scheduler.committed(innocent)
    for attempt in (1, 2):
        assert (
            f"was alone in an actor that died, attempt {attempt} of 3" in scheduler.actor_died([killer], "signal 9")[0]
        )
        clock.now += LONGEST_RETRY_SECONDS
        killer = take(scheduler)
        assert killer.isolated
    assert killer.number == 4
    assert "was alone in 3 actors that died, and is given up: signal 9" in scheduler.actor_died([killer], "signal 9")[0]
    assert [failure.spec for failure in scheduler.failures] == [spec("killer")]


def test_errors_and_deaths_and_lost_nodes_do_not_add_up():
    """A shard that is unlucky in three ways is not given up for any of them."""
    scheduler, clock = scheduler_of("a", max_attempts=2)
    for befall in (
        lambda attempt: scheduler.failed(attempt, "reset"),
        lambda attempt: scheduler.actor_died([attempt], "signal 9"),
        lambda attempt: scheduler.node_gone([attempt], "gone"),
    ):
        befall(take(scheduler))
        clock.now += LONGEST_RETRY_SECONDS
    last = take(scheduler)
    assert last.number == 4
    scheduler.committed(last)
    assert scheduler.remaining == 0
    assert not scheduler.failures


def test_what_an_unwanted_actor_had_goes_back_as_if_it_had_never_been_taken():
    scheduler, clock = scheduler_of("abcd")
    scheduler.give_back([take(scheduler), take(scheduler, 1)])
    assert [name_of(take(scheduler)) for _ in range(3)] == ["a", "b", "c"]
    assert scheduler.remaining == 4
    (suspect,) = [attempt for attempt in [take(scheduler)] if scheduler.actor_died([attempt], "signal 9")]
    clock.now += 2
    scheduler.give_back([take(scheduler)])
    assert take(scheduler).isolated, "a suspect stays one"
    assert name_of(suspect) == "d"


@pytest.mark.parametrize("times", [1, 5, 50])
def test_nobody_waits_longer_than_a_minute(times: int):
    scheduler, clock = scheduler_of("a", max_attempts=times + 1)
    for _ in range(times):
        scheduler.failed(take(scheduler), "reset")
        clock.now += LONGEST_RETRY_SECONDS
    assert take(scheduler).number == times + 1
