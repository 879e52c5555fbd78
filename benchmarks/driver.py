"""CPU time of the driver per shard, with actors that do nothing: scheduling, Ray calls, totals, logs, heartbeat.

    python -m benchmarks.driver [--shards 20000] [--actors 8] [--shards-per-actor 4]

Ray, the actors and the driver are real; only the work is missing. The memory of the driver is printed during the run,
because it must not grow with the number of finished shards.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from typing import Any

import psutil

from benchmarks.store_of_many import PROTOCOL, StoreOfMany, register
from pipeline.config import Config, parse_config
from pipeline.dataset.manifest import ShardManifest
from pipeline.distributed.actor import Readiness
from pipeline.distributed.reader_task import this_node
from pipeline.distributed.scheduler import Attempt, Scheduler
from pipeline.distributed.throughput import ActorFigures
from pipeline.items import ShardSpec


class IdleTokenizer:
    """An actor that returns a manifest at once, without doing any work."""

    def __init__(self, *_: Any) -> None:
        self._shards = 0

    def ready(self) -> Readiness:
        return Readiness(this_node(), [{}])

    def figures(self) -> ActorFigures:
        return ActorFigures()

    def tokenize(self, spec: ShardSpec, *_: Any) -> list[ShardManifest]:
        return [manifest_of(spec)]


def manifest_of(spec: ShardSpec) -> ShardManifest:
    """A manifest of realistic size."""
    values: dict[str, Any] = {field.name: 1 for field in dataclasses.fields(ShardManifest)}
    names = {"shard_id": spec.shard_id, "split": spec.split, "uri": spec.uri, "version": spec.version}
    stages = dict.fromkeys(("read", "prepare", "encode", "write"), 1.0)
    checksums = dict.fromkeys(("sha256", "rejects_sha256", "fingerprint"), "0" * 64)
    software = {f"package {number}": "1.0" for number in range(8)}
    return ShardManifest(
        **values
        | names
        | checksums
        | {
            "rejects_by_reason": {"empty": 1},
            "seconds": stages,
            "versions": software,
            "machine": {"processor": "a CPU"},
        }
    )


def scheduler_only(shards: int) -> None:
    """The cost of the scheduler without Ray."""
    specs = [
        ShardSpec(split="train", format="webdataset", uri=f"s3://bucket/{number}.tar", size=1, version="1")
        for number in range(shards)
    ]
    scheduler = Scheduler(specs, max_attempts=3)
    started = time.process_time()
    attempt: Attempt | None = scheduler.next(0)
    while attempt is not None:
        scheduler.committed(attempt)
        attempt = scheduler.next(0)
    print(f"the scheduler only: {(time.process_time() - started) / shards * 1e6:.1f} us of CPU for each shard")


def config_of(actors: int, shards_per_actor: int) -> Config:
    return parse_config(
        {
            "input": {"splits": {"train": f"{PROTOCOL}://bucket/audio/*.tar"}},
            "output": {"uri": f"{PROTOCOL}://bucket/codes"},
            "model": {"name": "cat-tiny"},
            "cluster": {
                "actors": actors,
                "cpus_per_actor": 0.1,
                "shards_per_actor": shards_per_actor,
            },
            "run": {"max_reject_fraction": 1.0},
        }
    )


def with_ray(config: Config, shards: int) -> None:
    """The whole driver."""
    import ray

    from pipeline.dataset.opening import open_output
    from pipeline.distributed.cluster import connect
    from pipeline.distributed.driver import _Driver

    class Watched(_Driver):
        """Prints progress now and then."""

        def _assign(self, *arguments: Any) -> None:
            super()._assign(*arguments)
            if self.totals[0].shards >= self.next_report:
                self.next_report += shards // 5
                say(self.totals[0].shards)

        next_report = 1

    def say(done: int) -> None:
        spent.append((done, time.thread_time(), sum(process.cpu_times()[:2])))
        memory = process.memory_info().rss / 1e6
        print(f"  {done:7,} shards done, {memory:,.0f} MB", flush=True)

    process = psutil.Process(os.getpid())
    spent: list[tuple[int, float, float]] = []
    register()
    StoreOfMany.tars = shards
    driver = Watched(config, [open_output(config)])
    connect(config.cluster)
    started = time.perf_counter()
    try:
        driver.run(IdleTokenizer)  # type: ignore[arg-type]
    finally:
        ray.shutdown()
    wall = time.perf_counter() - started
    say(driver.totals[0].shards)
    (first, thread, total), (last, thread_end, total_end) = spent[0], spent[-1]
    each = 1000 / (last - first)
    print(
        f"the driver: {(thread_end - thread) * each:.2f} ms of its own thread for each shard, "
        f"{(total_end - total) * each:.2f} ms of CPU with the threads of Ray; {shards / wall:,.0f} shards a second "
        f"with {config.cluster.actors} actors"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=20_000)
    parser.add_argument("--actors", type=int, default=8)
    parser.add_argument("--shards-per-actor", type=int, default=4)
    arguments = parser.parse_args()
    scheduler_only(arguments.shards)
    with_ray(config_of(arguments.actors, arguments.shards_per_actor), arguments.shards)


if __name__ == "__main__":
    main()
