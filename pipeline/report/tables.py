"""Data and rejects files of an output, with errors that say which of them is damaged and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.layout import Layout
from pipeline.parquet import open_table


@contextlib.contextmanager
def open_file(layout: Layout, uri: str) -> Iterator[pq.ParquetFile]:
    """The file, for as long as it is read.

    Raises StorageError or FileNotFoundError if it cannot be had, ValueError if it is damaged.
    """
    with layout.open_committed(uri) as stream:
        try:
            yield open_table(stream)
        except (pa.ArrowException, OSError, LookupError, ValueError) as error:
            raise ValueError(f"{uri}: damaged: {error}: moss-tok verify tells what else is") from error
