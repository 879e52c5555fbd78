"""A plan of many shards: seconds to write it, to read it back and to find what is left of it.

python -m benchmarks.plan [--shards 1000000]
"""

from __future__ import annotations

import argparse
import resource
import time

from pipeline.items import ShardSpec
from pipeline.plan import plan_bytes, read_plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1_000_000)
    count = parser.parse_args().shards
    started = time.perf_counter()
    specs = [
        ShardSpec(
            split="train",
            format="webdataset",
            uri=f"s3://bucket/train-{number:07d}.tar",
            size=10**9,
            version=f"{number}",
        )
        for number in range(count)
    ]
    made = time.perf_counter()
    data = plan_bytes(specs)
    written = time.perf_counter()
    read = read_plan(data)
    finished = time.perf_counter()
    done = {spec.shard_id for spec in read[: count * 9 // 10]}
    left = [spec for spec in read if spec.shard_id not in done]
    found = time.perf_counter()
    print(f"{count:,} shards: named in {made - started:.1f} s,")
    print(f"written in {written - made:.1f} s ({len(data) / 1e6:.1f} MB),")
    print(f"read in {finished - written:.1f} s, {len(left):,} that are left found in {found - finished:.1f} s,")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB with both lists")


if __name__ == "__main__":
    main()
