"""Speed of reading codes into numpy: `load_codes` and plain `load_dataset`, in clips per second and in bytes.

python -m benchmarks.read [--clips 20000] [--frames 125] [--num-quantizers 8]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from benchmarks.output import CODEBOOK, LAYERS, info
from pipeline import storage
from pipeline.config import parse_config
from pipeline.dataset.opening import open_output
from pipeline.items import Clip, ClipInfo, CodedClip
from pipeline.loading.hf import load_codes
from pipeline.schema import layer_column
from pipeline.shard.chunks import Chunk
from pipeline.shard.long_clip import Encoded
from pipeline.shard.tokenize import OpenShard

CLIPS_PER_SHARD = 2000
BATCH = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--frames", type=int, default=125, help="mean length of a clip: 125 are ten seconds")
    parser.add_argument("--num-quantizers", type=int, default=8)
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    layers, shards = arguments.num_quantizers, max(1, arguments.clips // CLIPS_PER_SHARD)
    clips = shards * CLIPS_PER_SHARD
    with tempfile.TemporaryDirectory() as folder:
        output = random_output(Path(folder) / "codes", shards, CLIPS_PER_SHARD, arguments.frames)
        cache = f"{folder}/cache"
        load = partial(load_codes, output, "train", layers, cache_dir=cache)
        with counted_bytes() as read:
            report("load_codes, first time: read, unpack, keep", clips, load)
        size = sum(path.stat().st_size for path in Path(output).glob("data/*/*"))
        print(f"{layers} of {LAYERS} layers: {read.total / 1e6:.1f} of {size / 1e6:.1f} MB, {read.total / size:.1%}")
        dataset = load()
        order = np.random.default_rng(0).permutation(clips)
        batches = [order[first : first + BATCH].tolist() for first in range(0, clips, BATCH)]
        report(f"load_codes, batches of {BATCH} in order", clips, lambda: use(dataset.iter(BATCH)))
        report(f"load_codes, batches of {BATCH} shuffled", clips, lambda: use(dataset[batch] for batch in batches))
        report("load_codes, one clip at a time", clips, lambda: use_rows(dataset))
        stream = load_codes(output, "train", layers, streaming=True)
        report("load_codes, streaming", clips, lambda: use_rows(stream))
        plain(output, cache, layers, clips)


def plain(output: str, cache: str, layers: int, clips: int) -> None:
    """Read with `datasets` only; a tenth of the clips where that takes long."""
    names = [layer_column(layer) for layer in range(layers)]
    load: Callable[[], Any] = lambda: datasets.load_dataset(output, split="train", cache_dir=cache)  # noqa: E731
    report(f"load_dataset, first time, all {LAYERS} layers", clips, load)
    some = load().select(range(clips // 10)).select_columns(names)
    typed = some.with_format("numpy", dtype=np.int16)
    report("load_dataset, numpy format, stacked", clips // 10, lambda: use(stacked(typed.iter(BATCH), names)))
    report("load_dataset, lists, stacked", clips // 10, lambda: use(stacked(some.iter(BATCH), names)))


class Counter:
    """Counts the bytes that are read from the store."""

    total = 0


@contextmanager
def counted_bytes() -> Iterator[Counter]:
    counter, original = Counter(), storage.read_ranges

    def read_ranges(uri: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        parts = original(uri, ranges)
        counter.total += sum(map(len, parts))
        return parts

    storage.read_ranges = read_ranges
    try:
        yield counter
    finally:
        storage.read_ranges = original


def stacked(batches: Iterable[dict[str, Any]], names: list[str]) -> Iterable[dict[str, Any]]:
    for batch in batches:
        rows = zip(*(batch[name] for name in names), strict=True)
        yield {"codes": [np.array(row, np.int16) for row in rows]}


def use(batches: Iterable[dict[str, Any]]) -> None:
    for batch in batches:
        assert all(codes.dtype == np.int16 for codes in batch["codes"])


def use_rows(rows: Iterable[dict[str, Any]]) -> None:
    assert all(row["codes"].dtype == np.int16 for row in rows)


def report(name: str, clips: int, work: Callable[[], object]) -> None:
    started, busy = time.perf_counter(), time.process_time()
    work()
    busy, elapsed = time.process_time() - busy, time.perf_counter() - started
    print(f"{name:<48} {clips / busy:>10,.0f} clips/s of CPU {clips / elapsed:>10,.0f} clips/s")


def random_output(
    folder: Path, shards: int, clips: int, frames: int, describe: Callable[[int, int], ClipInfo] = info
) -> str:
    """An output of random codes, made by the pipeline's own writer from sources that only look like tars."""
    source = folder.with_name("source")
    source.mkdir(parents=True)
    for number in range(shards):
        (source / f"{number:05d}.tar").write_bytes(b"")
    document = {"input": {"splits": {"train": [f"{source}/*.tar"]}}, "output": {"uri": str(folder)}}
    output = open_output(parse_config(document | {"model": {"name": "cat-tiny"}}))
    random = np.random.default_rng(0)
    for spec in output.specs:
        shard = OpenShard(spec)
        lengths = random.integers(max(1, frames * 4 // 5), frames * 6 // 5, clips, endpoint=True).tolist()
        infos = [describe(index, length) for index, length in enumerate(lengths)]
        shard.add_chunk(Chunk(([Clip(about, np.empty((1, 0), np.float32)) for about in infos],)))
        for about, length in zip(infos, lengths, strict=True):
            codes = random.integers(0, CODEBOOK, (LAYERS, length), dtype=np.int16)
            shard.add_codes(Encoded(CodedClip(about, codes), 0.0))
        shard.publish(output.layout, output.record, row_group_rows=10_000)
    output.finish()
    return str(folder)


if __name__ == "__main__":
    main()
