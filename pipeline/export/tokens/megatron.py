"""Megatron's indexed datasets: the token ids of all documents end to end (`.bin`), and where each begins (`.idx`).

The layout is that of `IndexedDatasetBuilder` in github.com/NVIDIA/Megatron-LM (`megatron/core/datasets`), whose library
is built for training and takes seconds to import. All numbers are little-endian:

    .idx    "MMIDIDX", two zero bytes; uint64 1; uint8 type of the ids: 8 uint16, 4 int32; uint64 sequences;
            uint64 documents + 1; int32 ids of each sequence; int64 byte at which each begins in the .bin;
            int64 sequence with which each document begins, and the number of sequences

Each clip is a document of one sequence. Megatron packs documents itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import numpy as np

from pipeline.export.tokens.documents import DocumentLayout
from pipeline.export.tokens.packing import Packed

_UINT16_IDS = 65500  # Megatron takes int32 from here on


def megatron_files(stem: str, sequences: Iterable[Packed], layout: DocumentLayout) -> Mapping[str, bytes]:
    """The two files of a dataset, whose prefix is `stem`. The layout must be flat, and a sequence one document."""
    code, dtype = (8, "<u2") if layout.largest_id < _UINT16_IDS else (4, "<i4")
    documents = [piece[:, 0].astype(dtype) for sequence in sequences for piece in sequence.pieces]
    lengths = np.array([len(document) for document in documents], "<i4")
    begins = np.cumsum(lengths, dtype="<i8") - lengths
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(documents), len(documents) + 1)
    arrays = (lengths, begins * np.dtype(dtype).itemsize, np.arange(len(documents) + 1, dtype="<i8"))
    return {
        f"{stem}.bin": b"".join(document.tobytes() for document in documents),
        f"{stem}.idx": header + b"".join(array.tobytes() for array in arrays),
    }
