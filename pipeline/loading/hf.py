"""Loads an output for a trainer: a Hugging Face dataset whose rows hold one matrix of codes.

    from pipeline.loading import load_codes

    dataset = load_codes("s3://bucket/codes", split="train", num_quantizers=8)
    dataset[0]["codes"]                  # int16 (8, frames)
    dataset[:1000]["codes"]              # 1,000 of them

`datasets.load_dataset(output)` gives the same rows with one list per RVQ layer. `load_codes` reads only the wanted
layers, and makes no lists of Python numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, overload

import datasets
import numpy as np
import pyarrow as pa

from pipeline import schema, storage
from pipeline.dataset.dataset import Output, read_output
from pipeline.loading.codes_cache import CODES, cached_files
from pipeline.parquet import DamagedTable, read_columns
from pipeline.storage import ObjectInfo

COLUMNS = ("id", "num_samples", "text")

logger = logging.getLogger(__name__)


@overload
def load_codes(
    uri: str,
    split: str | None = None,
    num_quantizers: int | None = 8,
    streaming: Literal[False] = False,
    columns: Sequence[str] = COLUMNS,
    cache_dir: str | Path | None = None,
) -> datasets.Dataset: ...


@overload
def load_codes(
    uri: str,
    split: str | None = None,
    num_quantizers: int | None = 8,
    *,
    streaming: Literal[True],
    columns: Sequence[str] = COLUMNS,
    cache_dir: str | Path | None = None,
) -> datasets.IterableDataset: ...


def load_codes(
    uri: str,
    split: str | None = None,
    num_quantizers: int | None = 8,
    streaming: bool = False,
    columns: Sequence[str] = COLUMNS,
    cache_dir: str | Path | None = None,
) -> datasets.Dataset | datasets.IterableDataset:
    """The clips of one split of an output, local or remote; `codes` of a row is int16 (num_quantizers, frames).

    The rows are those of the committed shards, in the order of the plan. If shards are not committed yet, a warning
    says how many. Only the first `num_quantizers` layers (None: all that there are) and `columns` are read.

    A Dataset is random access: the first call copies what it reads into `cache_dir` (by default below that of
    `datasets`) as 16 bit numbers, later ones map it into memory. With `streaming` nothing is kept: an IterableDataset
    reads shard by shard, and `split_dataset_by_node`, the workers of a DataLoader and `state_dict` divide it by shards.

    `split` can be left out where there is only one. Raises FileNotFoundError if there is no output, ValueError for a
    split, a column or a number of layers that it does not have, or if no shard is committed.
    """
    output = read_output(uri)
    split = _split_of(output, split)
    num_quantizers = _layers_of(output, num_quantizers)
    columns = tuple(columns)
    known = schema.clip_columns(output.record.codes_schema)
    if unknown := [name for name in columns if name not in known]:
        raise ValueError(f"no column {unknown[0]}: choose from {', '.join(known)}")
    shards = committed_shards(output, split)
    if streaming:
        arguments = {"shards": shards, "num_quantizers": num_quantizers, "columns": columns}
        return datasets.IterableDataset.from_generator(_rows, gen_kwargs=arguments, split=datasets.NamedSplit(split))
    folder = Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / "moss_tok"
    files = cached_files(shards, partial(_packed_batches, num_quantizers=num_quantizers, columns=columns), folder)
    parts = [datasets.Dataset.from_file(str(file), split=datasets.NamedSplit(split)) for file in files]
    return datasets.concatenate_datasets(parts).with_transform(partial(_unpack, num_quantizers=num_quantizers))


def committed_shards(output: Output, split: str) -> list[ObjectInfo]:
    """The data objects of the committed shards of a split, in the order of the plan.

    Raises ValueError if none is committed, FileNotFoundError for a data object that is gone.
    """
    root = output.layout.root
    listed = {info.uri.rpartition("/")[2]: info for info in storage.list_objects(output.layout.split_data(split))}
    planned = [spec for spec in output.specs if spec.split == split]
    done = [spec for spec in output.committed if spec.split == split]
    if not done:
        raise ValueError(f"{root}: none of the {len(planned)} shards of split {split} is committed: run tokenize again")
    if len(done) < len(planned):
        logger.warning(
            "%s: only %d of %d shards of split %s are committed; the rows of the others are missing",
            root,
            len(done),
            len(planned),
            split,
        )
    if lost := [spec for spec in done if f"{spec.shard_id}.parquet" not in listed]:
        raise output.layout.gone(output.layout.data(lost[0]))
    return [listed[f"{spec.shard_id}.parquet"] for spec in done]


def _split_of(output: Output, split: str | None) -> str:
    splits = list(output.record.input["splits"])
    if split is None and len(splits) == 1:
        return str(splits[0])
    if split not in splits:
        missing = "choose a split" if split is None else f"no split {split}"
        raise ValueError(f"{output.layout.root}: {missing}: it has {', '.join(splits)}")
    return str(split)


def _layers_of(output: Output, num_quantizers: int | None) -> int:
    present = output.record.num_quantizers
    if num_quantizers is None:
        return present
    if not 1 <= num_quantizers <= present:
        raise ValueError(f"num_quantizers {num_quantizers}: {output.layout.root} has 1 to {present}")
    return num_quantizers


def _rows(shards: Sequence[ObjectInfo], num_quantizers: int, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for info in shards:
        for batch, matrices in _batches(info, num_quantizers, columns):
            for row, codes in zip(batch.to_pylist(), matrices, strict=True):
                row[CODES] = codes
                yield row


def _packed_batches(info: ObjectInfo, num_quantizers: int, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """Batches of the clip columns, and of a column `codes` with the bytes of each clip's matrix."""
    for batch, matrices in _batches(info, num_quantizers, columns):
        packed = pa.array([codes.tobytes() for codes in matrices], pa.large_binary())
        yield batch.append_column(CODES, packed)


def _unpack(batch: dict[str, list[Any]], num_quantizers: int) -> dict[str, list[Any]]:
    if CODES in batch:
        # A copy, because bytes are read-only and PyTorch warns about tensors on read-only memory.
        batch[CODES] = [np.frombuffer(data, np.int16).reshape(num_quantizers, -1).copy() for data in batch[CODES]]
    return batch


def _batches(
    info: ObjectInfo, num_quantizers: int, columns: tuple[str, ...]
) -> Iterator[tuple[pa.RecordBatch, list[np.ndarray]]]:
    layers = [schema.layer_column(layer) for layer in range(num_quantizers)]
    for batch in read_columns(info, [*columns, *layers]):
        yield batch.select(list(columns)), _matrices(batch, layers, info.uri)


def _matrices(batch: pa.RecordBatch, layers: Sequence[str], uri: str) -> list[np.ndarray]:
    """int16 (num_quantizers, frames) for each row. Raises DamagedTable if the layers of a row differ in length."""
    lists = [batch.column(name) for name in layers]
    offsets = lists[0].offsets.to_numpy()
    if any(not np.array_equal(np.diff(other.offsets.to_numpy()), np.diff(offsets)) for other in lists[1:]):
        raise DamagedTable(f"{uri}: layers of different lengths in one row: see moss-tok verify")
    stacked = np.stack([column.flatten().to_numpy() for column in lists])
    starts = (offsets - offsets[0]).tolist()
    return [np.ascontiguousarray(stacked[:, start:stop]) for start, stop in pairwise(starts)]
