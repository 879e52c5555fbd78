"""What the ending of a file name says about how to read it."""

from __future__ import annotations

_AUDIO_NAMES = """
wav wave w64 flac mp3 mp2 ogg oga opus spx m4a m4b mp4 mov 3gp aac webm mka mkv aif aiff aifc au snd caf wv tta g722 amr
wma asf sph nist voc
"""
AUDIO_ENDINGS = tuple(f".{name}" for name in _AUDIO_NAMES.split())
"""Endings of files that may hold audio. The bytes decide how they are decoded; a wrong ending does no harm."""

RECORD_ENDINGS = (".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.gz", ".tsv.gz")

FORMAT_ENDINGS = {
    "webdataset": (".tar", ".tar.gz", ".tgz"),
    "list": RECORD_ENDINGS,
    "parquet": (".parquet",),
    "arrow": (".arrow",),
    "files": AUDIO_ENDINGS,
}


def format_of(uri: str) -> str | None:
    """The input format that the ending of a name stands for; None if it stands for none."""
    name = uri.lower()
    return next((kind for kind, endings in FORMAT_ENDINGS.items() if name.endswith(endings)), None)
