"""Bytes of arrays and of tars, without times, owners or anything else that differs between two runs."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable

import numpy as np


def npy(array: np.ndarray) -> bytes:
    """The array as a `.npy` file, in C order."""
    sink = io.BytesIO()
    np.save(sink, np.ascontiguousarray(array), allow_pickle=False)
    return sink.getvalue()


def tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar of these members, by name and content."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return sink.getvalue()
