"""Arrow streams with audio bytes in a column, as `Dataset.save_to_disk` of Hugging Face Datasets writes them.

The `datasets` library is not used: it would decode the audio, and stop at the first broken clip.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from pipeline import storage
from pipeline.input_config import InputConfig
from pipeline.items import Origin, RawClip, Reject, ShardSpec
from pipeline.steps.read.fields import clean, read_reject
from pipeline.steps.read.rows import RowReader, SourceError

FILE_MAGIC = b"ARROW1"
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def read_arrow(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """Each row of the file. If it is damaged, one reject stands for all rows from there on.

    Raises SourceError if the file has no audio column.
    """
    row = 0
    reader: RowReader | None = None
    with storage.open_read(spec.uri) as stream:
        trouble = None
        file_format = stream.read(len(FILE_MAGIC)) == FILE_MAGIC
        stream.seek(0)
        try:
            for batch in pa.ipc.open_stream(stream):
                batch.validate(full=True)  # Arrow would follow offsets that lead outside of their buffers
                reader = reader or RowReader(batch.schema, spec.uri, config)
                for position in range(batch.num_rows):
                    yield reader.clip(batch, position, row)
                    row += 1
            trouble = _trouble_at_end(stream)
        except SourceError:
            raise
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            trouble = f"cannot be read on: {error}"
        if file_format:
            trouble = "has Arrow's file format, and only streams are read, as save_to_disk writes them"
        if trouble is not None:
            origin = Origin(index=row, source=clean(spec.uri), key="")
            yield read_reject(origin, "damaged_source", f"the Arrow file {trouble}")


def _trouble_at_end(stream: BinaryIO) -> str | None:
    """What is missing at the end of the stream. One that is cut between two batches lacks only its last eight bytes."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - len(END_OF_STREAM)))
    if stream.read() == END_OF_STREAM:
        return None
    return "stops without its end mark: it was cut, and rows may be missing"
