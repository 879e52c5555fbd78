"""The table of failed shards."""

from __future__ import annotations

from pipeline.cli.printing import describe_failures
from pipeline.distributed.scheduler import Failure
from pipeline.items import ShardSpec


def failure(number: int, reason: str) -> Failure:
    spec = ShardSpec(split="train", format="webdataset", uri=f"s3://bucket/{number}.tar", size=1, version="1")
    return Failure(spec, reason)


def test_one_failure_is_its_reason_and_what_it_was_to_read():
    one = failure(7, "StorageError: s3://bucket/7.tar: not allowed to read it")
    assert describe_failures([one]) == (
        "1 shards failed:\n\n"
        "1 x StorageError: s3://bucket/7.tar: not allowed to read it\n"
        f"  {one.spec.shard_id}  s3://bucket/7.tar"
    )


def test_thousands_of_failures_are_a_table_of_their_kinds():
    gone = [failure(number, f"FileNotFoundError: s3://bucket/{number}.tar") for number in range(3000)]
    odd = [failure(9999, "MemoryError: no message")]
    table = describe_failures([*odd, *gone])
    assert table.startswith("3,001 shards failed:\n\n3,000 x FileNotFoundError: s3://bucket/0.tar\n")
    assert "and 2,995 more" in table
    assert "1 x MemoryError" in table
    assert len(table.splitlines()) < 20


def test_hundreds_of_kinds_are_cut_short_with_their_number():
    letters = "abcdefghijkl"
    table = describe_failures([failure(number, f"{letter}Error") for number, letter in enumerate(letters)])
    assert "and 2 for 2 other reasons" in table
