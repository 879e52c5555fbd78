"""The configuration of the input: which files, and which of their columns."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.redaction import has_secret
from pipeline.signal_config import SplitAtPausesConfig, switched
from pipeline.yaml_config import Section, one_or_several

BUCKET_SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "hf")
"""Kinds of stores whose addresses begin with a bucket."""
SPLIT_PATTERN = r"^\w+(\.\w+)*$"  # what Hugging Face Datasets accepts as a split's name


def _non_empty(uris: tuple[str, ...]) -> tuple[str, ...]:
    if not uris or not all(uris):
        raise ValueError("give at least one URI or glob, none of them empty")
    return _without_secrets(uris)


def _without_secrets(uris: tuple[str, ...]) -> tuple[str, ...]:
    if any(has_secret(uri) for uri in uris):
        raise ValueError(
            "a URI with a password, a signature or a token would be written into the output: let the store's client "
            "find its credentials, or name the audio files in a local input list, from which secrets go no further"
        )
    return uris


def address(uri: str) -> str:
    if "\0" in uri:
        raise ValueError("no address has a NUL byte in it")
    scheme, found, rest = uri.partition("://")
    if found and scheme in BUCKET_SCHEMES and not rest.strip("/").strip():
        raise ValueError(f"{uri} names no bucket: {scheme}://BUCKET/FOLDER")
    if found and scheme in BUCKET_SCHEMES and rest.startswith("/"):
        raise ValueError(f"{uri} names no bucket, but begins with a slash: {scheme}://{rest.lstrip('/')}?")
    return uri


def _addresses(uris: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(address, uris))


def _split_name(name: str) -> str:
    if not re.fullmatch(SPLIT_PATTERN, name):
        raise ValueError("a split's name is letters, digits and underscores, in parts joined by dots")
    return name


Uris = Annotated[
    tuple[str, ...], BeforeValidator(one_or_several), AfterValidator(_non_empty), AfterValidator(_addresses)
]
SplitName = Annotated[str, AfterValidator(_split_name)]


def _current_format(name: Any) -> Any:
    if name == "manifest":
        raise ValueError("this format is called list")
    return name


class InputConfig(Section):
    """What to read."""

    splits: Annotated[dict[SplitName, Uris], Field(min_length=1)]
    """URIs, folders or globs for each split: local paths or any fsspec URI (s3://, gs://, hf://, https://)."""
    format: Annotated[
        Literal["auto", "files", "list", "webdataset", "parquet", "arrow", "librispeech"],
        BeforeValidator(_current_format),
    ] = "auto"
    """How to read them. auto goes by name: .tar is webdataset; .jsonl, .csv and .tsv are list, an input list with a
    record for each clip; .parquet is parquet; .arrow, as save_to_disk of Hugging Face Datasets writes it, is arrow;
    folders and audio files are files. librispeech is files whose transcripts stand beside them in *.trans.txt."""
    unreadable: Literal["fail", "skip"] = "fail"
    """What to do about a folder below an input that cannot be listed. fail: nothing is planned, and the message names
    the folder. skip: it is left out, and the summary counts it."""
    audio_column: str | None = None
    """Column or field that holds the audio (parquet) or its path (list). By default the first that is there of
    audio, audio_filepath, audio_path, path and file."""
    audio_folder: str = ""
    """Folder that the relative paths of an input list begin in, itself relative to the list's folder."""
    quoted: bool = True
    """Whether double quotes enclose fields of .csv and .tsv. false for Common Voice, where they are letters of the
    text."""
    text_column: str = "text"
    """Column, field or JSON key that holds the transcript, where there is one."""
    language_column: str | None = None
    """Column, field or JSON key of the language. By default the first that is there of language, lang and locale."""
    speaker_column: str | None = None
    """Column, field or JSON key of the speaker. By default the first that is there of speaker_id, speaker and
    client_id."""
    labels_column: str | None = None
    """Column, field or JSON key of the labels: a list, one label, or several with commas and no spaces between them, as
    in AudioSet's tables. By default the first that is there of labels, label, human_labels and positive_labels."""
    segments: bool = True
    """Whether a record of an input list with a start, or with a list called segments, stands for a part of its file.
    false leaves such fields in the metadata and takes the whole file. Cuts and supervisions of Lhotse are always
    parts."""
    split_channels: Annotated[int, Field(ge=2)] | None = None
    """Channels of each file, each of which becomes a clip of its own, for recordings with a speaker on each channel. A
    file with more or fewer is rejected. By default channels are mixed to those of the model."""
    split_at_pauses: Annotated[SplitAtPausesConfig | None, BeforeValidator(switched)] = None
    """true or {max_seconds: 30, min_seconds: 10} cuts longer recordings at their pauses. Each clip is a part of its
    source. Needs the extra signals."""
    start_column: str | None = None
    """Field that says where a part begins, in seconds of the file. By default the first that is there of offset, start,
    start_time, start_seconds and start_time_seconds."""
    end_column: str | None = None
    """Field that says where it ends, in seconds of the file. By default the first that is there of end, end_time,
    end_seconds and end_time_seconds."""
    duration_column: str | None = None
    """Field that says how long it is, in seconds; by default duration. In a record without a start it does not make a
    part."""
    recordings: str | None = None
    """List of the recordings that supervisions of Lhotse name. By default the file in the same folder that has
    "recordings" in its name where the list of supervisions has "supervisions"."""
    allow: Annotated[tuple[str, ...], BeforeValidator(one_or_several), AfterValidator(_without_secrets)] | None = None
    """Folders and URIs that an input list may point to, and below, and that links in folders and redirects of web
    servers may lead to; s3:// alone allows all of S3. Beside the list, and below, is always allowed. By default the
    remote kinds of storage that input.splits names are, and no local files elsewhere."""
    clips_per_shard: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    """Rows or files in a shard; a WebDataset tar is always one shard. The parts of one file stay together in a shard,
    which may then have up to four times as many."""
    max_file_bytes: Annotated[int, Field(ge=1)] = 2**36
    """A file of more encoded bytes than this is not read for its parts. Such a file is read from disk and not held in
    memory. One of a remote store is copied to the folder for temporary files (TMPDIR) first."""
    max_clip_bytes: Annotated[int, Field(ge=1)] = 2**30
    """A clip of more encoded bytes than this is rejected without being read."""
