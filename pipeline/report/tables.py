"""Opens data and rejects files of an output, with errors that name the damaged file and say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.layout import Layout
from pipeline.parquet import open_table


@contextlib.contextmanager
def open_file(layout: Layout, uri: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file for reading.

    Raises StorageError or FileNotFoundError if it cannot be read, ValueError if it is damaged.
    """
    with layout.open_committed(uri) as stream:
        try:
            yield open_table(stream)
        except (pa.ArrowException, OSError, LookupError, ValueError) as error:
            raise ValueError(f"{uri}: damaged: {error}: moss-tok verify finds what else is damaged") from error
