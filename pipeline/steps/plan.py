"""URIs, globs and input lists into a fixed list of ShardSpec, which is made once and stored with the output.

A shard's id is a hash of what the shard reads, and of nothing else. So it is the same in every process, run and
cluster.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.concurrency import in_order
from pipeline.input_config import InputConfig
from pipeline.items import ShardSpec, file_version
from pipeline.redaction import has_secret, redact_uri
from pipeline.steps.formats import AUDIO_ENDINGS, RECORD_ENDINGS, format_of
from pipeline.steps.jsonl_csv import read_records
from pipeline.steps.listed_clips import file_of, listed_clips
from pipeline.storage import NotAFile, NotAnObject, ObjectInfo, OnUnreadable, StorageError, StoreUnavailable

logger = logging.getLogger(__name__)

FILE_SHARDS = 4
LISTING_THREADS = 16  # listings, footers and input lists are small reads, whose time is the store's latency


class Range(NamedTuple):
    """A part of an object that becomes a shard."""

    start: int
    stop: int | None
    """The end of the part; None for the end of the object."""
    size: int
    """Size in bytes."""
    clips: int | None
    """Number of clips; None if it is not known before reading."""
    first_line: int = 1
    """Number of the line that the part begins with (list)."""


class PlanError(ValueError):
    """The input cannot be planned. The message names the URI and what to do."""


def plan_shards(config: InputConfig, on_unreadable: OnUnreadable = lambda error: None) -> list[ShardSpec]:
    """Every shard of every split, in the order of the configuration and then of names.

    Raises PlanError if a pattern matches nothing, if a format cannot be told, if one pattern matches several formats,
    if two patterns match the same object, or if a folder cannot be listed. Under `input.unreadable: skip`, such a
    folder is left out and `on_unreadable` is called with the error.
    """
    specs: list[ShardSpec] = []
    owners: dict[str, str] = {}
    patterns = [(split, pattern) for split, patterns in config.splits.items() for pattern in patterns]
    listings = in_order(lambda named: _list_pattern(named[1], config, on_unreadable), patterns, LISTING_THREADS)
    for (split, pattern), (kind, objects) in zip(patterns, listings, strict=True):
        owner = f"{pattern} (split {split})"
        for info in objects:
            if has_secret(info.uri):
                raise PlanError(f"{redact_uri(info.uri)}: listed with a signature or token, which a plan must not hold")
            if info.uri in owners:
                raise PlanError(
                    f"{info.uri}: matched by {owners[info.uri]} and by {owner}, so its clips "
                    "would be in the dataset twice: change input.splits so that one of them matches it"
                )
            owners[info.uri] = owner
        root = storage.root_of(pattern)
        specs.extend(
            replace(spec, root=root, clips=spec.clips and spec.clips * (config.split_channels or 1))
            for spec in _PLANNERS[kind](split, objects, config)
        )
    if not specs:
        first = ", ".join([*islice(owners, 3), *(["..."] if len(owners) > 3 else [])])
        raise PlanError(f"no clips in {first}: the input lists or Parquet files have no rows")
    return specs


def _list_pattern(pattern: str, config: InputConfig, on_unreadable: OnUnreadable) -> tuple[str, list[ObjectInfo]]:
    wanted = config.format
    objects = _list_objects(pattern, config, on_unreadable)
    if not objects:
        raise PlanError(f"{pattern}: nothing there: give a file, a folder or a glob that matches some")
    if wanted == "list" and (other := next((info for info in objects if format_of(info.uri) != wanted), None)):
        raise PlanError(f"{other.uri}: matched by {pattern}, but input lists end in {', '.join(RECORD_ENDINGS)}")
    if wanted != "auto":
        return wanted, objects
    by_format: dict[str | None, list[ObjectInfo]] = {}
    for info in objects:
        by_format.setdefault(format_of(info.uri), []).append(info)
    unknown = by_format.pop(None, [])
    if not by_format:
        raise PlanError(
            f"{pattern}: cannot tell how to read {unknown[0].uri}: set input.format to files, list, webdataset, "
            "parquet, arrow or librispeech"
        )
    if len(by_format) > 1:
        found = ", ".join(f"{len(infos)} of {kind} ({infos[0].uri})" for kind, infos in by_format.items())
        raise PlanError(f"{pattern}: holds several formats: {found}: use a glob that matches one, or set input.format")
    if unknown:
        logger.warning(
            "%s: left out %d files whose names are not audio, such as %s", pattern, len(unknown), unknown[0].uri
        )
    ((kind, matched),) = by_format.items()
    return cast(str, kind), matched


def _list_objects(pattern: str, config: InputConfig, on_unreadable: OnUnreadable) -> list[ObjectInfo]:
    def skip(error: StorageError) -> None:
        logger.warning("left out, since it cannot be listed: %s", error)
        on_unreadable(error)

    if config.unreadable == "skip":
        return storage.list_objects(pattern, skip)
    try:
        return storage.list_objects(pattern)
    except (StoreUnavailable, NotAnObject):
        raise
    except StorageError as error:
        raise PlanError(
            f"{error}\nNothing is planned, since what is in it would be lost in silence. input.unreadable=skip leaves "
            "out folders below an input that cannot be listed, and counts them"
        ) from error


def _plan_files(split: str, objects: Sequence[ObjectInfo], config: InputConfig) -> Iterator[ShardSpec]:
    return _plan_groups("files", split, objects, config)


def _plan_librispeech(split: str, objects: Sequence[ObjectInfo], config: InputConfig) -> Iterator[ShardSpec]:
    """Groups of audio files. The reader finds the transcripts."""
    audio = [info for info in objects if info.uri.lower().endswith(AUDIO_ENDINGS)]
    if not audio:
        raise PlanError(f"{objects[0].uri}: no audio file there: give a folder such as LibriSpeech/train-clean-100")
    return _plan_groups("librispeech", split, audio, config)


def _plan_groups(kind: str, split: str, objects: Sequence[ObjectInfo], config: InputConfig) -> Iterator[ShardSpec]:
    """Groups of neighbouring files, with paths relative to the folder that they share."""
    for first in range(0, len(objects), config.clips_per_shard):
        group = objects[first : first + config.clips_per_shard]
        root = group[0].uri.rpartition("/")[0]
        while not all(info.uri.startswith(f"{root}/") for info in group):
            root = root.rpartition("/")[0]
        yield ShardSpec(
            split=split,
            format=kind,
            uri=root,
            members=tuple(storage.relative(info.uri, root) for info in group),
            size=sum(info.size for info in group),
            clips=len(group),
            version="".join(file_version(info.version) for info in group),
        )


def _plan_tars(split: str, objects: Sequence[ObjectInfo], config: InputConfig) -> Iterator[ShardSpec]:
    return _plan_whole("webdataset", split, objects)


def _plan_arrow(split: str, objects: Sequence[ObjectInfo], config: InputConfig) -> Iterator[ShardSpec]:
    """Files of `Dataset.save_to_disk`. Those named cache-* beside them hold results that `datasets` has computed."""
    data = [info for info in objects if not posixpath.basename(info.uri).startswith("cache-")]
    return _plan_whole("arrow", split, data)


def _plan_whole(kind: str, split: str, objects: Sequence[ObjectInfo]) -> Iterator[ShardSpec]:
    """Each object as one shard, because it can only be read from its beginning."""
    for info in objects:
        yield ShardSpec(split=split, format=kind, uri=info.uri, size=info.size, version=info.version)


def _plan_input_lists(split: str, objects: Sequence[ObjectInfo], config: InputConfig) -> Iterator[ShardSpec]:
    """Byte ranges of `clips_per_shard` clips.

    Neighbouring records of one file stay together, up to FILE_SHARDS times as many clips, because a file is fetched and
    decoded once in each shard that has a part of it.
    """
    return _plan_ranges("list", _record_ranges, split, objects, config)


def _record_ranges(uri: str, config: InputConfig) -> list[Range]:
    ranges: list[Range] = []
    start, stop, clips, first_line, file = 0, 0, 0, 1, ""
    with storage.open_read(uri) as stream:
        for record in read_records(uri, stream, quoted=config.quoted):
            listed = listed_clips(record, config, {})
            this = file_of(record, listed)
            most = config.clips_per_shard * (FILE_SHARDS if this and this == file else 1)
            if clips >= most:
                ranges.append(Range(start, stop, stop - start, clips, first_line))
                clips = 0
            if not clips:
                start, first_line = record.start, record.line
            stop, file, clips = record.stop, this, clips + len(listed)
    if clips:
        ranges.append(Range(start, stop, stop - start, clips, first_line))
    return ranges


def _plan_parquet(split: str, objects: Sequence[ObjectInfo], config: InputConfig) -> Iterator[ShardSpec]:
    """Ranges of whole row groups with at least `clips_per_shard` rows, except for the last range."""
    return _plan_ranges("parquet", _row_group_ranges, split, objects, config)


def _row_group_ranges(uri: str, config: InputConfig) -> list[Range]:
    try:
        with storage.open_read(uri) as stream:
            footer = pq.read_metadata(stream)
    except (pa.ArrowException, OSError, ValueError):  # also UnicodeDecodeError, from the name of a column
        return [Range(0, None, 0, None)]  # its reader rejects it by name, and the other shards go on
    ranges: list[Range] = []
    start, rows, size = 0, 0, 0
    for group in range(footer.num_row_groups):
        rows += footer.row_group(group).num_rows
        size += footer.row_group(group).total_byte_size
        if rows >= config.clips_per_shard or group == footer.num_row_groups - 1:
            ranges.append(Range(start, group + 1, size, rows))
            start, rows, size = group + 1, 0, 0
    return ranges


def _plan_ranges(
    kind: str,
    ranges_of: Callable[[str, InputConfig], list[Range]],
    split: str,
    objects: Sequence[ObjectInfo],
    config: InputConfig,
) -> Iterator[ShardSpec]:
    """A shard for each range of each object. A few objects are looked into at the same time."""

    def ranges_or_whole(info: ObjectInfo) -> list[Range]:
        try:
            return ranges_of(info.uri, config)
        except NotAFile:
            return [Range(0, None, 0, None)]  # the reader rejects it by name

    found = in_order(ranges_or_whole, objects, LISTING_THREADS)
    for info, ranges in zip(objects, found, strict=True):
        for part in ranges:
            yield ShardSpec(
                split=split,
                format=kind,
                uri=info.uri,
                start=part.start,
                stop=part.stop,
                size=info.size if part.stop is None else part.size,
                clips=part.clips,
                first_line=part.first_line,
                version=info.version,
            )


_PLANNERS: dict[str, Callable[[str, Sequence[ObjectInfo], InputConfig], Iterator[ShardSpec]]] = {
    "files": _plan_files,
    "librispeech": _plan_librispeech,
    "arrow": _plan_arrow,
    "list": _plan_input_lists,
    "webdataset": _plan_tars,
    "parquet": _plan_parquet,
}
