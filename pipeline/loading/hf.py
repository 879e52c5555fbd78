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
from typing import Any, Literal, NamedTuple, overload

import datasets
import numpy as np
import pyarrow as pa

from pipeline import schema, storage
from pipeline.dataset.dataset import Output, read_output
from pipeline.dataset.expression import Chosen
from pipeline.loading.codes_cache import CODES, cached_files
from pipeline.parquet import DamagedTable, read_columns
from pipeline.storage import ObjectInfo

COLUMNS = ("id", "num_samples", "text")

USUAL_LAYERS = 8

logger = logging.getLogger(__name__)


class CodesFormat(NamedTuple):
    """The codes that are read of each clip."""

    num_quantizers: int
    dtype: str
    single_rate: bool
    """Whether the codes of a clip are a matrix."""

    def pack(self, codes: np.ndarray | list[np.ndarray]) -> bytes:
        """As bytes; the lengths go first where there is a list of arrays."""
        if isinstance(codes, np.ndarray):
            return codes.tobytes()
        return np.array([len(layer) for layer in codes], np.int64).tobytes() + np.concatenate(codes).tobytes()

    def unpack(self, data: bytes) -> np.ndarray | list[np.ndarray]:
        """The inverse of `pack`. A copy, because bytes are read-only, and PyTorch warns of tensors of such memory."""
        if self.single_rate:
            matrix: np.ndarray = np.frombuffer(data, self.dtype).reshape(self.num_quantizers, -1).copy()
            return matrix
        lengths = np.frombuffer(data, np.int64, self.num_quantizers)
        flat = np.frombuffer(data, self.dtype, offset=lengths.nbytes).copy()
        layers: list[np.ndarray] = np.split(flat, np.cumsum(lengths)[:-1])
        return layers


@overload
def load_codes(
    uri: str,
    split: str | None = None,
    num_quantizers: int | Literal["usual"] | None = "usual",
    streaming: Literal[False] = False,
    columns: Sequence[str] = COLUMNS,
    cache_dir: str | Path | None = None,
    where: str | None = None,
) -> datasets.Dataset: ...


@overload
def load_codes(
    uri: str,
    split: str | None = None,
    num_quantizers: int | Literal["usual"] | None = "usual",
    *,
    streaming: Literal[True],
    columns: Sequence[str] = COLUMNS,
    cache_dir: str | Path | None = None,
    where: str | None = None,
) -> datasets.IterableDataset: ...


def load_codes(
    uri: str,
    split: str | None = None,
    num_quantizers: int | Literal["usual"] | None = "usual",
    streaming: bool = False,
    columns: Sequence[str] = COLUMNS,
    cache_dir: str | Path | None = None,
    where: str | None = None,
) -> datasets.Dataset | datasets.IterableDataset:
    """The clips of one split of an output, local or remote; `codes` of a row is (num_quantizers, frames).

    Codes are int16, or int32 for codebooks of more than 32,768 codes. Of a codec whose codebooks have different frame
    rates, `codes` is a list of arrays, one for each codebook.

    The rows are those of the committed shards, in the order of the plan. If shards are not committed yet, a warning
    says how many. Only the first `num_quantizers` layers and `columns` are read: "usual" takes the first 8, or all if
    there are fewer or they decode only together, and None all.

    A Dataset is random access: the first call copies what it reads into `cache_dir` (by default below that of
    `datasets`) as numbers, later ones map it into memory. With `streaming` nothing is kept: an IterableDataset
    reads shard by shard, and `split_dataset_by_node`, the workers of a DataLoader and `state_dict` divide it by shards.

    `where` is a condition over columns and metadata, such as "dnsmos > 3.2 and snr > 15" (docs/loading.md): only rows
    of which it holds are there. It needs DuckDB: pip install 'moss-tok[filters]'.

    `split` can be left out where there is only one. Raises FileNotFoundError if there is no output, ValueError for a
    split, a column or a number of layers that it does not have, for a condition that is none, or if no shard is
    committed.
    """
    output = read_output(uri)
    split = _split_of(output, split)
    codes = _format_of(output, num_quantizers)
    columns = tuple(columns)
    known = [*output.record.value_columns, *[schema.SCALES] * output.record.code_columns.scales]
    known += [schema.LATENTS] * output.record.latents
    if unknown := [name for name in columns if name not in known]:
        raise ValueError(f"no column {unknown[0]}: choose from {', '.join(known)}")
    # Without a condition the names of cached files stay what they were.
    chosen: dict[str, Any] = {} if where is None else {"chosen": Chosen(where, output.record.value_columns).checked()}
    shards = committed_shards(output, split)
    if streaming:
        arguments = {"shards": shards, "codes": codes, "columns": columns, **chosen}
        return datasets.IterableDataset.from_generator(_rows, gen_kwargs=arguments, split=datasets.NamedSplit(split))
    folder = Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / "moss_tok"
    files = cached_files(shards, partial(_packed_batches, codes=codes, columns=columns, **chosen), folder)
    parts = [datasets.Dataset.from_file(str(file), split=datasets.NamedSplit(split)) for file in files]
    return datasets.concatenate_datasets(parts).with_transform(partial(_unpack, codes=codes))


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


def _format_of(output: Output, num_quantizers: int | str | None) -> CodesFormat:
    present = output.record.num_quantizers
    if num_quantizers is None:
        num_quantizers = present
    if num_quantizers == "usual":
        num_quantizers = min(USUAL_LAYERS, present) if output.record.model.codec.prefix else present
    if not isinstance(num_quantizers, int) or not 1 <= num_quantizers <= present:
        raise ValueError(f"num_quantizers {num_quantizers}: {output.layout.root} has 1 to {present}")
    books = output.record.codebooks[:num_quantizers]
    dtype = schema.code_type(max(codebook.size for codebook in books))
    return CodesFormat(num_quantizers, dtype, len({codebook.samples_per_code for codebook in books}) == 1)


def _rows(
    shards: Sequence[ObjectInfo], codes: CodesFormat, columns: tuple[str, ...], chosen: Chosen | None = None
) -> Iterator[dict[str, Any]]:
    for info in shards:
        for batch, clips in _batches(info, codes, columns, chosen):
            for row, clip in zip(batch.to_pylist(), clips, strict=True):
                row[CODES] = clip
                yield row


def _packed_batches(
    info: ObjectInfo, codes: CodesFormat, columns: tuple[str, ...], chosen: Chosen | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of the clip columns and of `codes`, the bytes of each clip's codes: what a row needs lies together."""
    for batch, clips in _batches(info, codes, columns, chosen):
        packed = pa.array([codes.pack(clip) for clip in clips], pa.large_binary())
        yield batch.append_column(CODES, packed)


def _unpack(batch: dict[str, list[Any]], codes: CodesFormat) -> dict[str, list[Any]]:
    if CODES in batch:
        batch[CODES] = [codes.unpack(data) for data in batch[CODES]]
    return batch


def _batches(
    info: ObjectInfo, codes: CodesFormat, columns: tuple[str, ...], chosen: Chosen | None
) -> Iterator[tuple[pa.RecordBatch, Sequence[np.ndarray | list[np.ndarray]]]]:
    layers = [schema.layer_column(layer) for layer in range(codes.num_quantizers)]
    take = _matrices if codes.single_rate else _lists
    asked = chosen.columns if chosen else []
    for batch in read_columns(info, list(dict.fromkeys([*columns, *asked, *layers]))):
        kept = chosen.of(batch) if chosen else batch
        yield kept.select(list(columns)), take(kept, layers, codes.dtype, info.uri)


def _matrices(batch: pa.RecordBatch, layers: Sequence[str], dtype: str, uri: str) -> list[np.ndarray]:
    """(num_quantizers, frames) of each row. The lists of all layers of a row are equally long."""
    lists = [batch.column(name) for name in layers]
    offsets = lists[0].offsets.to_numpy()
    if any(not np.array_equal(np.diff(other.offsets.to_numpy()), np.diff(offsets)) for other in lists[1:]):
        raise DamagedTable(f"{uri}: layers of different lengths in one row: see moss-tok verify")
    stacked = np.stack([column.flatten().to_numpy() for column in lists]).astype(dtype, copy=False)
    starts = (offsets - offsets[0]).tolist()
    return [np.ascontiguousarray(stacked[:, start:stop]) for start, stop in pairwise(starts)]


def _lists(batch: pa.RecordBatch, layers: Sequence[str], dtype: str, uri: str) -> list[list[np.ndarray]]:
    """One array for each codebook of each row."""
    columns = [batch.column(name) for name in layers]
    return [[column[row].values.to_numpy().astype(dtype) for column in columns] for row in range(batch.num_rows)]
