"""What is counted in the data files, how much of them is read, and which clips are shown."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.codecs import Codec
from pipeline.dataset.dataset import Output, read_output
from pipeline.dataset.expression import Chosen
from pipeline.report.clips import choose
from pipeline.report.gather import gather
from pipeline.report.page import render
from pipeline.report.sample import Candidate, take_sample
from tests.support import rows


def test_every_code_of_a_small_output_is_counted(output: Output, root: Path):
    sample = take_sample(output)
    everything = rows(root)
    for layer in (0, 17, 31):
        codes = np.concatenate([row[f"codes_{layer:02d}"] for row in everything])
        np.testing.assert_array_equal(sample.counts[layer], np.bincount(codes, minlength=1024))
    assert sample.whole
    assert (sample.rows, sample.shards) == (len(everything), len(output.done))
    assert sum(len(part) for part in sample.durations) == len(everything) == sum(sample.sources.values())
    assert sample.frames == sum(row["num_frames"] for row in everything)
    assert sample.codes_in_files == 32 * sample.frames
    stored = sum(path.stat().st_size for path in root.glob("data/**/*.parquet"))
    assert 0.5 * stored < sample.bits_per_code * sample.codes_in_files / 8 < stored


def test_figures_are_of_the_chosen_rows(output: Output, root: Path, decoder: Codec):
    chosen = Chosen("duration > 2 and language = 'en'")
    sample = take_sample(output, chosen=chosen)
    expected = [row for row in rows(root) if row["duration"] > 2 and row["language"] == "en"]
    assert 0 < sample.rows == len(expected) < len(rows(root))
    assert {candidate.clip_id for candidate in sample.candidates} <= {row["id"] for row in expected}
    page = render(gather(output, 0, lambda: decoder, chosen)).decode()
    assert f"of all {len(expected)} rows where duration &gt; 2 and language = &#39;en&#39;" in page
    assert render(gather(output, 0, lambda: decoder, Chosen("duration < 0")))


def test_a_large_output_is_sampled_and_always_alike(output: Output):
    one, other = take_sample(output, max_frames=1000), take_sample(output, max_frames=1000)
    assert not one.whole
    assert 1000 <= one.frames < 5000
    assert one.shards < len(output.done)
    np.testing.assert_array_equal(one.counts, other.counts)
    assert take_sample(output, max_shards=2).shards == 2


@pytest.mark.parametrize("damage", ["code", "bytes"])
def test_damaged_data_is_named_with_what_to_do(root: Path, tmp_path: Path, damage: str):
    copy = tmp_path / "codes"
    shutil.copytree(root, copy)
    path = sorted(copy.glob("data/train/*.parquet"))[0]
    if damage == "bytes":
        codes = pq.ParquetFile(path).metadata.row_group(0)
        chunk = next(codes.column(i) for i in range(codes.num_columns) if "codes_03" in codes.column(i).path_in_schema)
        data = bytearray(path.read_bytes())
        data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 0xFF
        path.write_bytes(data)
    else:
        table = pq.read_table(path)
        index = table.schema.get_field_index("codes_03")
        wrong = pa.array([[5000] * count for count in table["num_frames"].to_pylist()], pa.list_(pa.int16()))
        pq.write_table(table.set_column(index, "codes_03", wrong), path)
    with pytest.raises(ValueError, match=rf"{path.name}: damaged.*moss-tok verify"):
        take_sample(read_output(str(copy)))


def test_clips_are_spread_over_the_durations_and_silence_is_left_out():
    candidates = [Candidate(float(seconds), f"id-{seconds:08d}", True) for seconds in range(1, 101)]
    assert [clip.duration for clip in choose(candidates[::-1], 4)] == [13, 38, 63, 88]
    mixed = [*candidates[:3], Candidate(50.0, "id-00000050", False)]
    assert [clip.duration for clip in choose(mixed, 3)] == [1, 2, 3]
    assert len(choose(mixed, 4)) == 4, "silence is better than nothing"
    assert len(choose(candidates[:2], 8)) == 2
    assert choose(candidates, 0) == choose([], 3) == []
