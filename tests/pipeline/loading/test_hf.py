"""Codes for a trainer: the matrices that were written, for the bytes of the layers that are wanted."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import s3fs
from datasets.distributed import split_dataset_by_node
from fsspec.implementations.local import LocalFileSystem
from torch.utils.data import DataLoader

from benchmarks.read import Counter, random_output
from pipeline.dataset.dataset import read_output
from pipeline.loading.hf import load_codes
from pipeline.parquet import DamagedTable
from tests.seaweed import s3_clients, seaweed

CLIPS, SHARDS = 500, 4
WHERE = "num_frames > 140 and ends_with(id, '7')"
Load = Callable[..., Any]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shards of 500 clips of eight to twelve seconds."""
    return Path(random_output(tmp_path_factory.mktemp("output") / "codes", SHARDS, CLIPS, 125))


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load_codes` with a cache of its own and no progress bar."""
    datasets.disable_progress_bars()
    return lambda uri, *arguments, **options: load_codes(
        str(uri), *arguments, **({} if options.get("streaming") else {"cache_dir": tmp_path}) | options
    )


def copy_of(output: Path, folder: Path) -> Path:
    """The same output with files of its own."""
    target = folder / "copy"
    LocalFileSystem().copy(f"{output}/", f"{target}/", recursive=True)
    return target


def written(output: Path) -> list[dict[str, Any]]:
    """Every row, in the order of the plan."""
    specs = read_output(str(output)).specs
    return [row for spec in specs for row in pq.read_table(output / f"data/train/{spec.shard_id}.parquet").to_pylist()]


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Bytes of data files that this process reads from the disk."""
    counter = Counter()
    original = LocalFileSystem.cat_file

    def cat_file(self: LocalFileSystem, path: str, *arguments: Any, **options: Any) -> bytes:
        data: bytes = original(self, path, *arguments, **options)
        counter.total += len(data) if "/data/" in path else 0
        return data

    monkeypatch.setattr(LocalFileSystem, "cat_file", cat_file)
    return counter


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
def test_rows_hold_the_matrices_that_were_written(output: Path, load: Load, streaming: bool):
    loaded = list(load(output, "train", num_quantizers=8, streaming=streaming))
    rows = written(output)
    assert len(loaded) == len(rows) == SHARDS * CLIPS
    for got, row in zip(loaded, rows, strict=True):
        assert got.keys() == {"id", "num_samples", "text", "codes"}
        assert (got["id"], got["num_samples"]) == (row["id"], row["num_samples"])
        assert got["codes"].dtype == np.int16
        assert np.array_equal(got["codes"], [row[f"codes_{layer:02d}"] for layer in range(8)])
        assert got["codes"].flags.writeable, "PyTorch warns of tensors on memory that is read-only"


@pytest.mark.slow
def test_batches_shuffles_and_selections_keep_codes_and_ids_together(output: Path, load: Load):
    dataset = load(output, "train", num_quantizers=None, columns=("id", "duration"))
    truth = {row["id"]: row for row in written(output)}
    shuffled = dataset.shuffle(seed=1).filter(lambda row: row["duration"] > 9, load_from_cache_file=False)
    assert 0 < len(shuffled) < len(dataset)
    batch = shuffled[5:300]
    for name, codes in zip(batch["id"], batch["codes"], strict=True):
        assert np.array_equal(codes, [truth[name][f"codes_{layer:02d}"] for layer in range(32)])
    assert dataset.select_columns(["id"])[0] == {"id": next(iter(truth))}


def test_eight_of_32_layers_read_a_quarter_of_the_bytes(output: Path, load: Load, counter: Counter):
    size = sum(path.stat().st_size for path in output.glob("data/train/*.parquet"))
    for streaming in (False, True):
        counter.total = 0
        dataset = load(output, "train", num_quantizers=8, streaming=streaming)
        assert sum(row["codes"].shape[0] for row in dataset) == 8 * SHARDS * CLIPS
        assert 0.2 * size < counter.total <= 0.27 * size
    counter.total = 0
    assert len(load(output, "train", num_quantizers=8)) == SHARDS * CLIPS
    assert counter.total == 0, "the second time, what was read lies in the cache"


def test_of_several_that_load_at_once_one_reads_and_the_others_wait(output: Path, load: Load, counter: Counter):
    size = sum(path.stat().st_size for path in output.glob("data/train/*.parquet"))
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: load(output, "train", num_quantizers=8), range(4)))
    assert {len(dataset) for dataset in loaded} == {SHARDS * CLIPS}
    assert counter.total <= 0.27 * size


def test_only_committed_shards_are_read_and_a_warning_says_so(
    output: Path, load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    copy = copy_of(output, tmp_path)
    specs = read_output(str(copy)).specs
    (copy / f"_moss_tok/shards/{specs[1].shard_id}.json").unlink()
    ids = load(copy, "train")["id"]
    assert [name.partition("-")[0] for name in ids[::CLIPS]] == [specs[index].shard_id for index in (0, 2, 3)]
    assert "only 3 of 4 shards of split train are committed" in caplog.text
    for spec in specs:
        (copy / f"_moss_tok/shards/{spec.shard_id}.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="none of the 4 shards of split train is committed"):
        load(copy, "train")


def test_a_committed_shard_that_is_gone_is_named(output: Path, load: Load, tmp_path: Path):
    copy = copy_of(output, tmp_path)
    spec = read_output(str(copy)).specs[2]
    (copy / f"data/train/{spec.shard_id}.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{spec.shard_id}\.parquet: gone, .*run moss-tok repair"):
        load(copy, "train")


def test_a_flipped_byte_is_noticed_and_leaves_no_half_cache(output: Path, load: Load, tmp_path: Path):
    copy = copy_of(output, tmp_path)
    path = copy / f"data/train/{read_output(str(copy)).specs[0].shard_id}.parquet"
    data = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(0).column(pq.read_metadata(path).num_columns - 30)
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 4
    path.write_bytes(data)
    for streaming in (False, True):
        with pytest.raises(DamagedTable, match=path.name):
            list(load(copy, "train", streaming=streaming))
    assert not list(tmp_path.glob("moss_tok/*.arrow")) + list(tmp_path.glob("moss_tok/*.tmp"))
    assert len(list(load(copy, "train", num_quantizers=1))) == SHARDS * CLIPS, "pages that nobody reads harm nobody"


@pytest.mark.parametrize("rest", [0, 10, 1000, 100_000])
def test_a_file_that_is_cut_is_damaged(output: Path, load: Load, tmp_path: Path, rest: int):
    copy = copy_of(output, tmp_path)
    path = copy / f"data/train/{read_output(str(copy)).specs[0].shard_id}.parquet"
    path.write_bytes(path.read_bytes()[:rest])
    with pytest.raises(DamagedTable, match=path.name):
        load(copy, "train")


def test_a_shard_that_was_made_anew_is_read_anew(output: Path, load: Load, tmp_path: Path):
    copy = copy_of(output, tmp_path)
    before = load(copy, "train")[0]["codes"]
    path = copy / f"data/train/{read_output(str(copy)).specs[0].shard_id}.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    after = load(copy, "train")
    assert len(after) == SHARDS * CLIPS - 1
    assert not np.array_equal(after[0]["codes"], before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "no split test: it has train"),
        ({"num_quantizers": 33}, "num_quantizers 33: .* has 1 to 32"),
        ({"num_quantizers": 0}, "num_quantizers 0"),
        ({"columns": ("idd",)}, "no column idd: choose from id, source"),
        ({"columns": ("codes_00",)}, "no column codes_00"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(output: Path, load: Load, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        load(output, **options)
    with pytest.raises(FileNotFoundError, match="no output of moss-tok"):
        load(output.parent, **options)


def test_a_split_that_holds_no_clips_has_no_rows(load: Load, tmp_path: Path):
    empty = random_output(tmp_path / "codes", shards=2, clips=0, frames=10)
    assert list(load(empty)) == []
    assert list(load(empty, streaming=True)) == []


def test_a_dataset_can_be_sent_to_another_process(output: Path, load: Load):
    dataset = load(output, "train", num_quantizers=2)
    assert np.array_equal(pickle.loads(pickle.dumps(dataset))[7]["codes"], dataset[7]["codes"])


@pytest.mark.slow
def test_ranks_and_workers_of_a_stream_share_the_shards(output: Path, load: Load):
    seen: list[str] = []
    for rank in range(2):
        part = split_dataset_by_node(load(output, "train", streaming=True), rank, world_size=2)
        loader = DataLoader(part, batch_size=None, num_workers=2)
        seen += [row["id"] for row in loader]
    assert sorted(seen) == sorted(row["id"] for row in written(output))


def test_a_stream_goes_on_where_its_state_was_taken(output: Path, load: Load):
    stream = load(output, "train", streaming=True).shuffle(seed=3, buffer_size=1)
    whole = [row["id"] for row in stream]
    rows = iter(stream)
    first = [row["id"] for row in islice(rows, CLIPS + 123)]
    fresh = load(output, "train", streaming=True).shuffle(seed=3, buffer_size=1)
    fresh.load_state_dict(stream.state_dict())
    assert first + [row["id"] for row in fresh] == whole


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory, output: Path) -> Iterator[str]:
    """The output in a bucket of a real S3 server."""
    with seaweed(tmp_path_factory.mktemp("weed")) as environment, s3_clients(environment):
        client = s3fs.S3FileSystem()
        client.mkdir("codes")
        client.put(f"{output}/", "codes/random/", recursive=True)
        yield "s3://codes/random"


def test_a_bucket_gives_the_rows_of_a_folder_for_a_quarter_of_its_bytes(
    output: Path, bucket: str, load: Load, monkeypatch: pytest.MonkeyPatch
):
    fetched = 0
    original = s3fs.S3FileSystem._cat_file

    async def counted(self: s3fs.S3FileSystem, path: str, *arguments: Any, **options: Any) -> bytes:
        nonlocal fetched
        data = await original(self, path, *arguments, **options)
        fetched += len(data) if "/data/" in path else 0
        return data

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", counted)
    size = sum(path.stat().st_size for path in output.glob("data/train/*.parquet"))
    local = load(output, "train")
    for streaming in (False, True):
        fetched = 0
        remote = list(load(bucket, "train", streaming=streaming))
        assert 0.2 * size < fetched <= 0.27 * size
        assert [row["id"] for row in remote] == local["id"][:]
        assert all(np.array_equal(a["codes"], b["codes"]) for a, b in zip(remote, local, strict=True))


@pytest.mark.parametrize("streaming", [False, True])
def test_only_rows_of_which_a_condition_holds_are_there(output: Path, load: Load, streaming: bool):
    lengths = ["id", "num_frames"]
    everything = load(output, columns=lengths, num_quantizers=4)
    expected = [row for row in everything if row["num_frames"] > 140 and row["id"].endswith("7")]
    found = list(load(output, columns=["id"], num_quantizers=4, streaming=streaming, where=WHERE))
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    assert 0 < len(found) < SHARDS * CLIPS / 10
    np.testing.assert_array_equal(found[-1]["codes"], expected[-1]["codes"])
    assert found[0].keys() == {"id", "codes"}


def test_a_condition_of_which_no_row_holds_leaves_an_empty_dataset(output: Path, load: Load):
    assert len(load(output, where="num_frames < 0")) == 0
    with pytest.raises(ValueError, match="syntax error"):
        load(output, where="num_frames <")
