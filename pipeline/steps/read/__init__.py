"""Shards into encoded clips, with one reader for each input format.

A defect of a clip is a Reject, and reading goes on. A store that fails is a StorageError, and the shard is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline import storage
from pipeline.input_config import InputConfig
from pipeline.items import Origin, RawClip, Reject, ShardSpec, file_version
from pipeline.steps.read.arrow import read_arrow
from pipeline.steps.read.channels import each_channel
from pipeline.steps.read.fields import clean
from pipeline.steps.read.files import places_below, read_files, unreadable
from pipeline.steps.read.input_list import read_input_list
from pipeline.steps.read.librispeech import read_librispeech
from pipeline.steps.read.parquet import read_parquet
from pipeline.steps.read.pauses import Splitter, split_each
from pipeline.steps.read.webdataset import read_webdataset
from pipeline.storage import NotAFile, NotAllowed


class SourceChanged(RuntimeError):
    """An input is no longer what the plan says. The message names it and says what can be done."""


_READERS: dict[str, Callable[[ShardSpec, InputConfig], Iterator[RawClip | Reject]]] = {
    "files": read_files,
    "list": read_input_list,
    "webdataset": read_webdataset,
    "parquet": read_parquet,
    "arrow": read_arrow,
    "librispeech": read_librispeech,
}


def read_shard(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """Every clip of the shard in source order, each once, as a RawClip or as a Reject.

    Raises SourceChanged as `read_recordings` does, and MissingPackage.
    """
    recordings = read_recordings(spec, config)
    return recordings if config.split_at_pauses is None else split_each(recordings, Splitter(config.split_at_pauses))


def read_recordings(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """`read_shard` with long recordings as the source has them: the clips before they are cut at pauses.

    Raises SourceChanged if the object is not the one that was planned; without that the dataset could hold half of
    each.
    """
    _check_unchanged(spec)
    clips = _READERS[spec.format](spec, config) if spec.members else _read_object(spec, config)
    return clips if config.split_channels is None else each_channel(clips, config.split_channels)


def _read_object(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """The clips of an object. One reject takes their place if it is a pipe, or a link that leads out of the input."""
    try:
        if places := places_below(spec, config):
            places.check(spec.uri)
        clips = _READERS[spec.format](spec, config)
        yield from clips
    except (NotAFile, NotAllowed) as error:
        yield unreadable(Origin(index=0, source=clean(spec.uri), key=""), error)


def _check_unchanged(spec: ShardSpec) -> None:
    if spec.members:
        _check_members(spec)
        return
    info = storage.stat(spec.uri)
    if info is None:
        raise SourceChanged(f"{spec.uri}: gone since it was planned: put it back, or tokenize into a new output")
    if storage.changed(spec.version, info.version):
        raise SourceChanged(
            f"{spec.uri}: changed since it was planned (then {spec.version}, now {info.version}): put the old object "
            "back, or tokenize into a new output"
        )


def _check_members(spec: ShardSpec) -> None:
    """Compare the files of a shard with the plan. A file that is gone becomes a reject when it is read."""
    uris = [storage.join(spec.uri, member) for member in spec.members]
    infos = storage.stat_all(uris)
    if not any(infos) and storage.is_local(spec.uri) and storage.stat(spec.uri) is None:
        raise SourceChanged(
            f"{spec.uri}: the folder is gone since it was planned: bring it back (is its disk mounted?)"
        )
    for position, (uri, info) in enumerate(zip(uris, infos, strict=True)):
        if info is not None and spec.planned_version(position) != file_version(info.version):
            raise SourceChanged(
                f"{uri}: changed since it was planned: put the old file back, or tokenize into a new output"
            )
