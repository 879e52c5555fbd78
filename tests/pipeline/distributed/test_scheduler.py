"""The rules of retrying, without Ray: what is blamed on a shard, what is not, and what is tried when."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline.distributed.scheduler import LONGEST_RETRY_SECONDS, OUTAGE_SECONDS, PREEMPTIONS_PER_ATTEMPT, Schedule, Try
from pipeline.items import ShardSpec


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def spec(name: str) -> ShardSpec:
    return ShardSpec(split="train", format="webdataset", uri=f"s3://bucket/{name}.tar", size=1, version="1")


def schedule_of(names: Sequence[str], max_attempts: int = 3) -> tuple[Schedule, Clock]:
    clock = Clock()
    return Schedule([spec(name) for name in names], max_attempts, clock), clock


def take(schedule: Schedule, beside: int = 0) -> Try:
    tried = schedule.take(beside)
    assert tried is not None
    return tried


def name_of(tried: Try) -> str:
    return tried.spec.uri.rpartition("/")[2].removesuffix(".tar")


def test_shards_come_in_the_order_of_the_plan_and_end_when_all_are_committed():
    schedule, _ = schedule_of("abc")
    tries = [take(schedule, beside) for beside in range(3)]
    assert [name_of(tried) for tried in tries] == ["a", "b", "c"]
    assert [tried.number for tried in tries] == [1, 1, 1]
    assert schedule.take(0) is None
    for left, tried in zip((2, 1, 0), tries, strict=True):
        schedule.committed(tried)
        assert schedule.remaining == left


def test_an_error_is_tried_again_after_a_while_that_doubles_and_given_up_after_the_last_attempt():
    schedule, clock = schedule_of("ab")
    bad = take(schedule)
    assert "failed, try 1 of 3: no such key" in schedule.failed(bad, "no such key")
    schedule.committed(take(schedule))
    for number, wait in ((2, 1.0), (3, 2.0)):
        clock.now += wait - 0.01
        assert schedule.take(0) is None, "too early"
        clock.now += 0.02
        bad = take(schedule)
        assert bad.number == number
        line = schedule.failed(bad, "no such key")
    assert "failed 3 times and is given up: no such key" in line
    assert "s3://bucket/a.tar" in line
    assert schedule.remaining == 0
    (failure,) = schedule.failures
    assert (failure.spec.uri, failure.reason) == ("s3://bucket/a.tar", "no such key")


def test_a_store_that_is_away_is_no_fault_of_the_shards_however_often_they_are_tried():
    schedule, clock = schedule_of("ab", max_attempts=1)
    for _ in range(5):
        for tried in [take(schedule), take(schedule, beside=1)]:
            assert "found a store away" in schedule.store_away(tried, "no route to host")
        clock.now += LONGEST_RETRY_SECONDS
    assert not schedule.store_is_gone
    schedule.committed(take(schedule))
    clock.now += OUTAGE_SECONDS
    assert not schedule.store_is_gone, "it was there for the other shard"
    schedule.store_away(take(schedule), "no route to host")
    clock.now += OUTAGE_SECONDS
    assert schedule.store_is_gone
    assert schedule.failures == []


def test_a_store_that_answers_others_meanwhile_is_not_away():
    schedule, _ = schedule_of("ab", max_attempts=1)
    bad, good = take(schedule), take(schedule, beside=1)
    schedule.committed(good)
    assert "is given up" in schedule.store_away(bad, "503 for this object alone")
    assert not schedule.store_is_gone


def test_a_shard_that_waits_holds_up_none_of_the_others_and_comes_first_when_it_is_due():
    schedule, clock = schedule_of("abc")
    schedule.failed(take(schedule), "cut off")
    assert name_of(take(schedule)) == "b"
    clock.now += 5
    assert [name_of(take(schedule)) for _ in range(2)] == ["a", "c"]


def test_a_lost_node_counts_nothing_and_its_shards_are_next():
    schedule, clock = schedule_of("abcd", max_attempts=1)
    lines = schedule.node_gone([take(schedule), take(schedule, 1)], "node 12 is gone")
    assert len(lines) == 2
    assert "lost its node and goes back to the queue: node 12 is gone" in lines[0]
    clock.now += 2
    again = [take(schedule), take(schedule, 1), take(schedule)]
    assert sorted(name_of(tried) for tried in again) == ["a", "b", "c"]
    assert sorted(tried.number for tried in again) == [1, 2, 2]
    assert not any(tried.alone for tried in again)
    assert not schedule.failures


def test_a_shard_that_takes_every_node_with_it_is_given_up_in_the_end():
    schedule, clock = schedule_of("a", max_attempts=2)
    allowed = 2 * PREEMPTIONS_PER_ATTEMPT
    for _ in range(allowed):
        assert not schedule.failures
        (line,) = schedule.node_gone([take(schedule)], "gone")
        clock.now += LONGEST_RETRY_SECONDS
    assert f"lost its node {allowed} times and is given up" in line
    assert schedule.remaining == 0


def test_the_shards_of_an_actor_that_died_are_tried_last_and_alone_and_only_the_killer_is_given_up():
    schedule, clock = schedule_of(["innocent", "killer", "other"])
    lines = schedule.actor_died([take(schedule), take(schedule, 1)], "signal 9")
    assert all("was one of 2 in an actor that died" in line for line in lines)
    clock.now += LONGEST_RETRY_SECONDS
    assert name_of(take(schedule)) == "other", "what may kill an actor waits until the others are through"
    assert schedule.take(1) is None, "nothing is put beside it that it may kill"
    innocent, killer = take(schedule), take(schedule)
    assert innocent.alone
    assert (name_of(innocent), name_of(killer)) == ("innocent", "killer")
    schedule.committed(innocent)
    for attempt in (1, 2):
        assert f"was alone in an actor that died, try {attempt} of 3" in schedule.actor_died([killer], "signal 9")[0]
        clock.now += LONGEST_RETRY_SECONDS
        killer = take(schedule)
        assert killer.alone
    assert killer.number == 4
    assert "was alone in 3 actors that died, and is given up: signal 9" in schedule.actor_died([killer], "signal 9")[0]
    assert [failure.spec for failure in schedule.failures] == [spec("killer")]


def test_errors_and_deaths_and_lost_nodes_do_not_add_up():
    """A shard that is unlucky in three ways is not given up for any of them."""
    schedule, clock = schedule_of("a", max_attempts=2)
    for befall in (
        lambda tried: schedule.failed(tried, "reset"),
        lambda tried: schedule.actor_died([tried], "signal 9"),
        lambda tried: schedule.node_gone([tried], "gone"),
    ):
        befall(take(schedule))
        clock.now += LONGEST_RETRY_SECONDS
    last = take(schedule)
    assert last.number == 4
    schedule.committed(last)
    assert schedule.remaining == 0
    assert not schedule.failures


def test_what_an_unwanted_actor_had_goes_back_as_if_it_had_never_been_taken():
    schedule, clock = schedule_of("abcd")
    schedule.give_back([take(schedule), take(schedule, 1)])
    assert [name_of(take(schedule)) for _ in range(3)] == ["a", "b", "c"]
    assert schedule.remaining == 4
    (suspect,) = [tried for tried in [take(schedule)] if schedule.actor_died([tried], "signal 9")]
    clock.now += 2
    schedule.give_back([take(schedule)])
    assert take(schedule).alone, "a suspect stays one"
    assert name_of(suspect) == "d"


@pytest.mark.parametrize("times", [1, 5, 50])
def test_nobody_waits_longer_than_a_minute(times: int):
    schedule, clock = schedule_of("a", max_attempts=times + 1)
    for _ in range(times):
        schedule.failed(take(schedule), "reset")
        clock.now += LONGEST_RETRY_SECONDS
    assert take(schedule).number == times + 1
