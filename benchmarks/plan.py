"""Start of a run over a million shards, up to the moment at which an actor could get the first shard.

    python -m benchmarks.plan [--shards 1000000] [--done 0.9]

It has two processes, so that each has its own peak memory: `begin` lists the input, plans it and stores the plan;
`resume` reads the plan, the totals and the manifests of finished shards, and queues the rest. The store is simulated
(benchmarks/store_of_many.py); codec, Ray and everything else that a driver loads are loaded.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.store_of_many import PROTOCOL, StoreOfMany, register
from pipeline.config import Config, parse_config


def config_of() -> Config:
    return parse_config(
        {
            "input": {"splits": {"train": f"{PROTOCOL}://bucket/audio/*.tar"}},
            "output": {"uri": f"{PROTOCOL}://bucket/codes"},
            "model": {"name": "cat-tiny"},
        }
    )


def begin(shards: int, done: float, folder: Path) -> None:
    """List, plan and store the plan; `folder` gets the contents of the store for the other process."""
    from pipeline.dataset.opening import open_output
    from pipeline.distributed.driver import _Driver

    register()
    StoreOfMany.tars = shards
    say = Stopwatch()
    output = open_output(config_of())
    say("input listed, planned, plan stored")
    driver = _Driver(config_of(), [output])
    assert driver.scheduler.next(0) is not None
    say(f"queue of {driver.scheduler.remaining:,}, the first shard is at hand")
    say.peak()
    for name, data in StoreOfMany.objects.items():
        (folder / name.replace("/", "|")).write_bytes(data)
    counted = [spec.shard_id for spec in output.specs[: int(shards * done)]]
    driver.totals_caches[0]._counted[: len(counted)] = b"\1" * len(counted)  # as if so many were read
    driver.totals_caches[0].totals.shards = len(counted)
    output.save(driver.totals_caches[0])
    (folder / "totals").write_bytes(StoreOfMany.objects["bucket/codes/_moss_tok/totals.json"])
    (folder / "manifests").write_text("\n".join(sorted(counted)))


def resume(shards: int, done: float, folder: Path) -> None:
    """Resume the output of `begin`, as if most of its shards were committed."""
    from pipeline.dataset.opening import open_output
    from pipeline.distributed.driver import _Driver

    register()
    StoreOfMany.objects = {path.name.replace("|", "/"): path.read_bytes() for path in folder.glob("bucket|*")}
    StoreOfMany.objects["bucket/codes/_moss_tok/totals.json"] = (folder / "totals").read_bytes()
    StoreOfMany.manifests = (folder / "manifests").read_text().splitlines()
    say = Stopwatch()
    output = open_output(config_of())
    say(f"plan read, {len(output.done):,} manifests listed in {StoreOfMany.requests:,} requests")
    driver = _Driver(config_of(), [output])
    assert driver.scheduler.next(0) is not None
    say(
        f"queue of {driver.scheduler.remaining:,}, {driver.totals_caches[0].totals.shards:,} counted, "
        "the first shard is at hand"
    )
    say.peak()


class Stopwatch:
    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    def __call__(self, what: str) -> None:
        wall, cpu = time.perf_counter() - self._started[0], time.process_time() - self._started[1]
        print(f"  {wall:5.1f} s ({cpu:.1f} s of CPU)  {what}", flush=True)

    def peak(self) -> None:
        print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1_000_000)
    parser.add_argument("--done", type=float, default=0.9, help="share of the shards that are done (default 0.9)")
    arguments = parser.parse_args()
    steps: tuple[Callable[[int, float, Path], None], ...] = (begin, resume)
    with tempfile.TemporaryDirectory() as folder:
        for step in steps:
            print(f"{step.__name__}:", flush=True)
            context = multiprocessing.get_context("spawn")
            process = context.Process(target=step, args=(arguments.shards, arguments.done, Path(folder)))
            process.start()
            process.join()
            assert process.exitcode == 0


if __name__ == "__main__":
    main()
