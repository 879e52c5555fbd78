"""Size of a data file: bits per code, counting everything in the file, and the bytes of 8 of 32 layers.

python -m benchmarks.output [--clips 10000] [--frames 125]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipeline.items import ClipInfo, CodedClip, Origin
from pipeline.schema import CodeColumns, layer_column
from pipeline.steps.records import codes_table
from pipeline.steps.write import to_parquet

LAYERS, CODEBOOK, RATE, SAMPLES_PER_FRAME = 32, 1024, 24_000, 1920


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=125, help="frames of a clip: 125 are ten seconds")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    coded = [
        CodedClip(
            info(index, arguments.frames), random.integers(0, CODEBOOK, (LAYERS, arguments.frames), dtype=np.int16)
        )
        for index in range(arguments.clips)
    ]
    table = codes_table("0123456789abcdef", coded, CodeColumns((CODEBOOK,) * LAYERS), RATE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codes.parquet"
        size = path.write_bytes(to_parquet(table, {"moss_tok.fingerprint": "benchmark"}, row_group_rows=10_000))
        groups = pq.ParquetFile(path).metadata
    first = sum(
        groups.row_group(group).column(column).total_compressed_size
        for group in range(groups.num_row_groups)
        for column in range(groups.num_columns)
        if groups.row_group(group).column(column).path_in_schema.partition(".")[0] in map(layer_column, range(8))
    )
    bits = size * 8 / (arguments.clips * arguments.frames * LAYERS)
    print(
        f"{arguments.clips:,} clips of {arguments.frames} frames: {size / 1e6:.1f} MB, {bits:.2f} bits for each code;"
    )
    print(f"the first 8 of {LAYERS} layers are {100 * first / size:.1f} % of the file")


def info(index: int, frames: int) -> ClipInfo:
    return ClipInfo(
        origin=Origin(index=index, source="s3://bucket/train-0000000.tar", key=f"clip-{index:08d}"),
        num_samples=frames * SAMPLES_PER_FRAME,
        source_format="flac",
        source_codec="pcm_16",
        source_sample_rate=44_100,
        source_channels=2,
        peak=0.5,
        rms=0.1,
        clipping=0.0,
        silence=0.01,
        audio_xxh3=f"{index:032x}",
    )


if __name__ == "__main__":
    main()
